"""Tables: finished Markdown, JSON that comes back, a drawing for each."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import plots
import pytest
from harness.duel import Measured
from harness.machine import machine
from harness.scaling import points, scaling_tables
from harness.step_tables import step_tables
from harness.tables import Bars, Lines, Report, Table, quartiles, spread

MIB = 2**20


def measured(against: str = "longest", what: str = "train", **others: object) -> Measured:
    seconds = {"sgemm": [0.1, 0.1, 0.1], "minigrad auto": [0.2, 0.2, 0.4], "torch sdpa": [0.5, 0.6, 0.8], "torch eager": [0.9, 0.9, 0.9]}
    values = {"seconds": seconds, "memory": {"minigrad auto": 100 * MIB, "torch sdpa": 400 * MIB, "torch eager": MIB}, "failed": {}}
    return Measured("tiny", 32, "mixed", "sequence", against, what, 1000.0, 2e9, **(values | others))  # type: ignore[arg-type]


def test_medians_and_quartiles() -> None:
    assert quartiles([5.0]) == (5.0, 5.0, 5.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0], 1) == "3.0 (2.0–4.0)"


def test_ratios_are_paired_and_against_the_faster_attention() -> None:
    m = measured()
    assert m.opponent == "torch sdpa"
    assert m.ratios("torch sdpa", "minigrad auto") == pytest.approx([2.5, 3.0, 2.0], rel=1e-12)  # one division each


def test_the_tables_of_a_step() -> None:
    failed = {"torch sdpa": "no compiler | found", "torch eager": "no compiler | found"}
    alone = {"seconds": {"sgemm": [0.1], "minigrad auto": [0.2]}, "memory": {"minigrad auto": 100 * MIB}}
    found = list(step_tables([measured(), measured("compile", failed=failed, **alone)]))
    ratios, times, closeness, memory = found
    assert ratios.header == ["size", "lengths", "minigrad", "longest", "compile"]
    assert ratios.rows == [["tiny b32", "mixed", "auto", "2.50 (2.25–2.75)", "fails: no compiler / found"]]
    assert times.rows[0][4:] == ["200.0 (200.0–300.0)", "600.0 (550.0–700.0) sdpa", "1,000", "5,000", "1,667"]
    assert closeness.rows[0][4:] == ["2.00", "20", "100.0", "50 (38–50)", "17 (15–18)"]
    assert memory.rows == [
        ["tiny b32", "mixed", "longest", "auto", "100", "400", "4.00"],
        ["tiny b32", "mixed", "compile", "auto", "100", "–", "–"],
    ]
    assert all(len(row) == len(table.header) for table in found for row in table.rows)
    assert isinstance(memory.chart, Bars)
    assert memory.chart.values == {"tiny mixed longest: ours": 100, "tiny mixed longest: torch": 400, "tiny mixed compile: ours": 100}
    assert [table.title for table in step_tables([measured(what="infer"), measured()])][::4] == [
        "Training step, sequence head: times as fast as PyTorch",
        "Inference, sequence head: times as fast as PyTorch",
    ]


def test_the_tables_of_scaling() -> None:
    chosen = list(points())
    found = list(scaling_tables([(point, measured()) for point in chosen]))
    assert [len(table.rows) for table in found] == [5, 4, 4, 6]
    layers = next(table for table in found if table.title.endswith("layers"))
    assert isinstance(layers.chart, Lines) and [x for x, _ in layers.chart.series["minigrad"]] == [1, 2, 4, 8]
    lengths = [point.duel for point in chosen if point.varied == "tokens of each text"]
    assert {int(duel.lengths) * duel.size.batch for duel in lengths} == {2048}


def test_a_report_is_saved_and_every_table_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = [
        Table("Ratios: of a step", ["a", "b"], [["1", "2"]], Bars("ratio", {"tiny": 2.0, "mini": 1.5})),
        Table("Time against layers", ["a"], [["1"]], Lines("layers", "ms", {"minigrad": [(1, 2.0), (2, 4.0)]})),
    ]
    report = Report("bert_step.py", ["--rounds", "1"], machine(), {"x": 1}, tables, ["A note."])
    text = report.markdown()
    assert "`python benchmarks/bert_step.py --rounds 1`" in text and "A note." in text and "NumPy" in text
    assert "### Ratios: of a step\n\n| a | b |\n| --- | --- |\n| 1 | 2 |" in text
    report.save(tmp_path / "found.json")
    monkeypatch.setattr(sys, "argv", ["plots.py", str(tmp_path / "found.json"), str(tmp_path / "drawn")])
    plots.main()
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["ratios-of-a-step.svg", "time-against-layers.svg"]
    assert len(capsys.readouterr().out.splitlines()) == 2
    for table in tables:
        root = ElementTree.parse(tmp_path / "drawn" / f"{table.name}.svg").getroot()
        assert root.findtext("{http://www.w3.org/2000/svg}title") == table.title
        assert Table.from_json(table.to_json()).svg() == table.svg()
