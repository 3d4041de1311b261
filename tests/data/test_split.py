"""Splitting: every record once, shares of every class kept, what belongs together together; and what cannot be divided."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data.duplicates import folded_text, similarity
from minigrad.data.records import Entity, Record, labels_of
from minigrad.data.split import split_records
from minigrad.errors import ArgumentError, DataError


def record(text: str, label: str | None = None, line: int = 1, **fields: object) -> Record:
    return Record(text, label, "a.jsonl", line, {"text": text, "label": label, **fields})


def distinct(labels: list[str | None]) -> list[Record]:
    """Records of texts that have nothing in common."""
    rng = np.random.default_rng(0)
    return [record("".join(map(chr, rng.integers(97, 123, 30))), label, line) for line, label in enumerate(labels, start=1)]


def split_quietly(records: list[Record], *arguments: Any, **options: Any) -> dict[str, list[Record]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rare labels and large groups: random records have them, other tests ask for the words
        return split_records(records, *arguments, **options)


SHARES = st.sampled_from(
    [{"train": 0.8, "dev": 0.1, "test": 0.1}, {"train": 0.5, "test": 0.5}, {"a": 0.34, "b": 0.33, "c": 0.33}, {"x": 0.05, "y": 0.95}]
)


@given(st.lists(st.sampled_from("AAAABBC"), min_size=40, max_size=120), SHARES, st.integers(0, 2**63 - 1))
def test_every_class_has_its_shares_to_less_than_one_record(labels: list[str], shares: dict[str, float], seed: int) -> None:
    records = distinct(labels)  # type: ignore[arg-type]
    splits = split_quietly(records, shares, seed=seed)
    assert list(splits) == list(shares)
    lines = [r.line for part in splits.values() for r in part]
    assert sorted(lines) == [r.line for r in records]
    total = Counter(labels)
    if 2 * sum(count for count in total.values() if count < len(shares)) > len(labels):
        return  # not stratified
    for name, part in splits.items():
        assert [r.line for r in part] == sorted(r.line for r in part)
        for label, count in total.items():
            assert abs(sum(r.label == label for r in part) - shares[name] * count) < 1 + 1e-6  # rounding of the product


@given(st.data())
def test_what_belongs_together_stays_together(data: st.DataObject) -> None:
    """Groups by column and near-duplicates at once; the bounds of the docstring hold where groups are of one class."""
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=12, max_size=25))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    records: list[Record] = []
    group_sizes: dict[str, list[int]] = {"A": [], "B": []}
    for number, size in enumerate(sizes):
        text, label = "".join(map(chr, rng.integers(97, 123, 80))), "AB"[number % 2]
        by_column = data.draw(st.booleans())
        for copy in range(size):
            other = "".join(map(chr, rng.integers(97, 123, 30)))
            group = f"g{number}" if by_column else f"g{number}.{copy}"
            records.append(record(other if by_column else f"{text}{copy}", label, len(records) + 1, group=group))
        group_sizes[label].append(size)
    shares = data.draw(SHARES)
    splits = split_quietly(records, shares, seed=data.draw(st.integers(0, 100)), group_column="group")
    for (name, part), (other, others) in product(splits.items(), repeat=2):
        if name < other:
            assert not {r.fields["group"] for r in part} & {r.fields["group"] for r in others}
            assert all(similarity(folded_text(a), folded_text(b)) < 0.8 for a in part for b in others)
    assert sorted(r.line for part in splits.values() for r in part) == [r.line for r in records]
    for name, part in splits.items():
        for label, of_label in group_sizes.items():
            excess = sum(r.label == label for r in part) - shares[name] * sum(of_label)
            assert -(len(shares) - 1) * max(of_label) - 1e-6 < excess < max(of_label) + 1e-6


def test_whole_file_has_its_shares_too() -> None:
    """A hundred classes of five records: each alone could give its odd records to the training set."""
    splits = split_records(distinct([f"class {number % 100}" for number in range(500)]))
    assert {name: len(part) for name, part in splits.items()} == {"train": 400, "dev": 50, "test": 50}
    assert len({r.label for r in splits["train"]}) == 100


def test_the_seed_decides() -> None:
    records = distinct(["A", "B"] * 50)
    first, again, other = (split_records(records, seed=seed)["test"] for seed in (1, 1, 2))
    assert first == again != other


def test_same_division_on_every_machine() -> None:
    """Written down once: another hash seed of the process, another version of NumPy must give the same."""
    program = (
        "import json; from minigrad.data.records import Record; from minigrad.data.split import split_records\n"
        "texts = [f'{n * 7919 % 1009} {n * 104729 % 9973} text' for n in range(20)]\n"
        "rows = [Record(t, 'AB'[n % 2], '', n, {}) for n, t in enumerate(texts)]\n"
        "print(json.dumps({k: [r.line for r in v] for k, v in split_records(rows, seed=5).items()}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert (found["dev"], found["test"]) == ([3, 14], [1, 10])


def test_sets_of_entity_types_are_classes() -> None:
    spans = {"PER": (Entity(0, 3, "PER"),), "PER LOC": (Entity(0, 3, "PER"), Entity(4, 6, "LOC")), "": ()}
    records = [
        Record(r.text, None, r.path, r.line, {}, entities=spans[kind])
        for r, kind in zip(distinct([None] * 300), ["PER"] * 200 + ["PER LOC"] * 60 + [""] * 40, strict=True)
    ]
    for name, part in split_records(records).items():
        share = {"train": 0.8, "dev": 0.1, "test": 0.1}[name]
        counts = Counter(len(r.entities or ()) for r in part)
        assert counts == {1: 200 * share, 2: 60 * share, 0: 40 * share}


def of_several(count: int, names: str, seed: int) -> list[Record]:
    """Labels of a long tail that come together more often than chance."""
    rng = np.random.default_rng(seed)
    often = 0.6 / np.arange(1, len(names) + 1)
    flags = rng.random((count, len(names))) < often * rng.choice([0.2, 1.8], (count, 1))
    return distinct([", ".join(name for name, flag in zip(names, row, strict=True) if flag) for row in flags])


def names_in(records: list[Record]) -> Counter[str]:
    """How many records have each label, or none, which is called so."""
    return Counter(name for record in records for name in set(labels_of(record, ",")) or {"none"})


@given(st.integers(30, 120), SHARES, st.integers(0, 1000))
def test_several_labels_exact_sizes_and_the_same_again(count: int, shares: dict[str, float], seed: int) -> None:
    records = of_several(count, "abcdef", seed)
    splits = split_quietly(records, shares, seed=seed, label_separator=",")
    assert sorted(r.line for part in splits.values() for r in part) == [r.line for r in records]
    for name, part in splits.items():
        assert [r.line for r in part] == sorted(r.line for r in part)
        assert abs(len(part) - shares[name] * count) < 1 + 1e-6  # rounding of the product
    assert split_quietly(records, shares, seed=seed, label_separator=",") == splits


def test_several_labels_have_their_shares() -> None:
    """Whole numbers are half a record off at best; by chance labels would be off by several records."""
    off, by_chance = [], []
    for seed in range(5):
        records = of_several(1000, "abcdefghijkl", seed)
        total = names_in(records)
        assert len(total) == 13
        for found, label_separator in ((off, ","), (by_chance, None)):
            splits = split_records(records, seed=seed, label_separator=label_separator, stratify=label_separator is not None)
            assert {name: len(part) for name, part in splits.items()} == {"train": 800, "dev": 100, "test": 100}
            for share, part in zip((0.8, 0.1, 0.1), splits.values(), strict=True):
                of_split = names_in(part)
                found += [abs(of_split[name] - share * number) for name, number in total.items()]
    assert np.mean(off) < 0.4 and max(off) < 3
    assert np.mean(by_chance) > 2


def test_one_label_a_record_read_as_several_has_its_shares_too() -> None:
    """The class that is dealt last takes the room that the others leave it, so it is off by what their roundings add up to."""
    records = distinct(["A"] * 500 + ["B"] * 333 + ["C"] * 74 + [""] * 93)  # type: ignore[list-item]
    splits = split_records(records, label_separator=",")
    for share, part in zip((0.8, 0.1, 0.1), splits.values(), strict=True):
        found = names_in(part)
        assert all(abs(found[name] - share * n) < 2 for name, n in {"A": 500, "B": 333, "C": 74, "none": 93}.items())
        assert len(part) == 1000 * share


@given(st.lists(st.integers(1, 6), min_size=12, max_size=25), SHARES, st.integers(0, 1000))
def test_groups_of_several_labels_stay_together(sizes: list[int], shares: dict[str, float], seed: int) -> None:
    records = of_several(sum(sizes), "abcd", seed)
    whose = np.repeat(np.arange(len(sizes)), sizes).tolist()
    records = [replace(r, fields={"who": who}) for r, who in zip(records, whose, strict=True)]
    try:
        splits = split_quietly(records, shares, seed=seed, label_separator=",", group_column="who")
    except ArgumentError as error:
        assert "would get none" in str(error)  # few large groups
        return
    where = [{r.fields["who"] for r in part} for part in splits.values()]
    assert sum(map(len, where)) == len(sizes)
    for name, part in splits.items():
        excess = len(part) - shares[name] * len(records)
        assert -(len(shares) - 1) * max(sizes) - 1e-6 < excess < max(sizes) + 1e-6


def test_groups_of_several_labels_have_their_shares() -> None:
    records = [replace(r, fields={"who": r.line // 3}) for r in of_several(3000, "abcdefgh", 0)]
    total = names_in(records)
    splits = split_records(records, label_separator=",", group_column="who")
    for share, part in zip((0.8, 0.1, 0.1), splits.values(), strict=True):
        found = names_in(part)
        assert abs(len(part) - share * 3000) < 3
        assert all(abs(found[name] - share * number) < 6 for name, number in total.items())  # two groups


def test_rare_labels_among_several_are_said_and_trained_on() -> None:
    records = of_several(50, "ab", 0)
    records[7], records[9] = replace(records[7], label="a, rare"), replace(records[9], label="rarer,rare")
    with pytest.warns(UserWarning, match=r"fewer records than splits have the label\(s\) 'rare', 'rarer': some") as said:
        splits = split_records(records, label_separator=",")
    assert said[0].filename == __file__
    assert names_in(splits["train"])["rare"] == 2


def test_separators_of_labels_that_are_none() -> None:
    with pytest.raises(ArgumentError, match="label_separator must be a string of more than white space, such as ','"):
        split_records(distinct(["A"] * 30), label_separator=" ")
    with pytest.raises(DataError, match="the record has no label"):
        split_records(distinct(["A", None] * 20), label_separator=",")
    records = distinct([None] * 30)
    assert split_records(records, label_separator=",") == split_records(records)


def test_same_division_of_several_labels_on_every_machine() -> None:
    """Written down once, as above."""
    splits = split_records(of_several(40, "abc", 1), seed=5, label_separator=",")
    assert ([r.line for r in splits["dev"]], [r.line for r in splits["test"]]) == ([6, 20, 35, 36], [7, 19, 22, 23])


def test_not_stratified() -> None:
    splits = split_records(distinct([str(number) for number in range(100)]), stratify=False)
    assert [len(part) for part in splits.values()] == [80, 10, 10]


def test_numbers_as_labels_are_not_classes() -> None:
    with pytest.warns(UserWarning, match="not stratified: most records have a label that fewer than 3 records have"):
        splits = split_records(distinct([f"{number / 7:.2f}" for number in range(100)]))
    assert [len(part) for part in splits.values()] == [80, 10, 10]


def test_a_rare_label_is_said_and_trained_on() -> None:
    with pytest.warns(UserWarning, match=r"fewer records than splits have the label\(s\) 'rare', 'rarer'"):
        splits = split_records(distinct(["A"] * 50 + ["B"] * 47 + ["rare"] * 2 + ["rarer"]))
    assert {"rare", "rarer"} <= {r.label for r in splits["train"]}


def test_copies_are_left_where_they_are_on_request() -> None:
    records = [record("the same text every time", "A", line) for line in range(1, 101)]
    assert [len(part) for part in split_records(records, near_duplicates=None).values()] == [80, 10, 10]
    with pytest.raises(ArgumentError, match=r"'dev' would get none of the 100 records.*largest group that must stay together has 100"):
        split_records(records)


def test_a_large_group_is_said() -> None:
    records = distinct(["A"] * 40)
    records += [record("".join(r.text for r in records[:3]), "A", 41 + copy) for copy in range(60)]
    with pytest.warns(UserWarning, match=r"too large for the shares \(the largest has 60 of 100 records\): a 6\d\.0%, b"):
        splits = split_records(records, {"a": 0.4, "b": 0.3, "c": 0.3})
    assert len(splits["a"]) == 60


def test_large_groups_do_not_all_go_to_training() -> None:
    records = [record(r.text, "A", r.line, who=str(r.line // 10)) for r in distinct(["A"] * 999)]
    splits = split_records(records, group_column="who")
    assert [len({r.fields["who"] for r in part}) for part in splits.values()] == [80, 10, 10]


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"train": 0.8, "dev": 0.1}, "add up to 1, got 0.9"),
        ({}, "add up to 1, got none"),
        ({"train": 1.0, "dev": 0.0}, "'dev' must be a number above 0"),
        ({"train": float("nan")}, "'train' must be a number above 0"),
        ({"train": True}, "got True"),
        ({"train": "0.8", "dev": 0.2}, "got '0.8'"),
        ((0.8, 0.1, 0.1), "a mapping such as {'train': 0.8"),
    ],
)
def test_impossible_shares(shares: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        split_records(distinct(["A"] * 30), shares)


def test_too_few_records() -> None:
    with pytest.raises(ArgumentError, match="2 record"):
        split_records(distinct(["A", "B"]))
    with pytest.raises(ArgumentError, match="'test' would get none of the 5 records"):
        split_records(distinct(["A"] * 5))
    with pytest.raises(ArgumentError, match="seed"):
        split_records(distinct(["A"] * 30), seed=-1)
    with pytest.raises(ArgumentError, match="threshold"):
        split_records(distinct(["A"] * 30), near_duplicates=0.2)


@pytest.mark.parametrize(
    ("fields", "code"), [({}, "unknown-column"), ({"who": ""}, "bad-group"), ({"who": None}, "bad-group"), ({"who": [1]}, "bad-group")]
)
def test_records_without_a_group(fields: dict[str, object], code: str) -> None:
    records = [record(r.text, "A", r.line, who=r.line) for r in distinct(["A"] * 30)]
    records[7] = record("another text altogether", "A", 8, **fields)
    with pytest.raises(DataError) as caught:
        split_records(records, group_column="who")
    assert (caught.value.code, caught.value.line) == (code, 8)


def test_one_split_takes_everything() -> None:
    records = distinct(["A"] * 3)
    assert split_records(records, {"all": 1.0}) == {"all": records}
