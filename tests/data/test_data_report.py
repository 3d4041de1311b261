"""The report: bounded counts, lengths whose quantiles and bins are right, and a table that says what was found."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data.data_report import BINS, EXAMPLES, DataReport, Finding, Lengths, SplitFindings


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=200))
def test_lengths_keep_three_digits(values: list[int]) -> None:
    lengths = Lengths()
    for value in values:
        lengths.add(value)
    for share in (0.5, 0.95, 1.0):
        exact = np.sort(values)[int(np.ceil(share * len(values) - 1e-9)) - 1]  # the product's rounding
        assert exact * 0.99 <= lengths.at(share) <= exact
    assert lengths.longest == max(values)
    names, counts = lengths.bins()
    assert len(names) == len(counts) <= BINS and sum(counts) == len(values)


def test_lengths_of_a_large_file_are_few() -> None:
    lengths = Lengths()
    for value in range(0, 3_000_000, 7):
        lengths.add(value)
    assert len(lengths.counts) < 1000 + 4 * 900


def test_bins_have_names() -> None:
    lengths = Lengths()
    for value in [0, 1, 1, 3]:
        lengths.add(value)
    assert lengths.bins() == (["0", "1", "2", "3"], [1, 2, 0, 1])
    for value in [*range(100), *range(100), 5000]:
        lengths.add(value)
    names, counts = lengths.bins()
    assert names[0] == "0–5" and names[-1] == "96–101" if len(names) < BINS else names[-1].endswith("and more")
    assert sum(counts) == 205
    assert Lengths().bins() == (["0"], [0]) and Lengths().at(0.5) == 0


def test_a_finding_keeps_the_first_places() -> None:
    finding = Finding()
    for place in reversed(range(100)):
        finding.add(place, f"line {place}", count=2)
    assert finding.to_dict() == {"count": 200, "first": [f"line {place}" for place in range(EXAMPLES)]}


def test_the_table() -> None:
    train, test = SplitFindings(["a"], records=1234), SplitFindings(["b"], records=10, compared=5)
    train.labels.update({f"label {i}": 50 - i for i in range(40)})
    test.labels.update({"label 0": 10, "odd\u202e": 1})
    train.lengths["words"], test.lengths["words"] = Lengths(), Lengths()
    train.lengths["words"].add(7)
    report = DataReport({"train": train, "test": test})
    shown = str(report)
    assert "train    1,234" in shown and "and 11 more" in shown and "\u202e" not in shown
    assert shown.endswith("ok: no leaks, no conflicts (near-duplicates were looked for among the first 5 of 10 of test)")
    report.leaks["train", "test"] = Finding(7, [(0, "b:1 = a:2")])
    report.conflicts.add(0, "a:1 ≠ a:3")
    shown = str(report)
    assert not report.ok
    assert "LEAK: 7 of test also in train\n  b:1 = a:2\n  and 6 more" in shown and "CONFLICT: 1 text(s)" in shown
    assert json.loads(json.dumps(report.to_dict()))["leaks"] == [{"of": "test", "in": "train", "count": 7, "first": ["b:1 = a:2"]}]
    charts = report.charts()
    assert list(charts) == ["words"] and ElementTree.fromstring(charts["words"]).tag.endswith("svg")


def test_shares_of_several_labels_are_of_records() -> None:
    train, test = SplitFindings(["a"], records=4), SplitFindings(["b"], records=2)
    train.labels.update({"x": 3, "y": 2})
    train.labels_per_record.update({"none": 1, "one": 1, "several": 2})
    test.labels_per_record.update({"none": 2})
    shown = str(DataReport({"train": train, "test": test})).splitlines()
    assert [" ".join(line.split()) for line in shown[4:12]] == [
        "labels per record train test",
        "none 1 (25.0%) 2 (100.0%)",
        "several 2 (50.0%) 0 (0.0%)",
        "one 1 (25.0%) 0 (0.0%)",
        "",
        "label train test",
        "x 3 (75.0%) 0 (0.0%)",
        "y 2 (50.0%) 0 (0.0%)",
    ]
