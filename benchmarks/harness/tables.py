"""Results as tables: printed as finished Markdown, saved as JSON, drawn as charts (`benchmarks/plots.py`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.machine import machine_line
from minigrad import plots
from minigrad.files import write_text


@dataclass(frozen=True)
class Bars:
    """A chart with one bar per label."""

    x_label: str
    values: Mapping[str, float]

    def drawn(self, title: str) -> str:
        return plots.bars(title, list(self.values), list(self.values.values()), self.x_label)


@dataclass(frozen=True)
class Lines:
    """A chart with a line through the points of each series."""

    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]

    def drawn(self, title: str) -> str:
        return plots.lines(title, self.series, self.x_label, self.y_label)


CHARTS = {"bars": Bars, "lines": Lines}


@dataclass(frozen=True)
class Table:
    """A table of formatted cells, and a chart of its main figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    chart: Bars | Lines

    @property
    def name(self) -> str:
        """The title as a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join([f"### {self.title}", "", *(f"| {' | '.join(cells)} |" for cells in lines)])

    def svg(self) -> str:
        return self.chart.drawn(self.title)

    def to_json(self) -> dict[str, Any]:
        kind = next(name for name, chart in CHARTS.items() if isinstance(self.chart, chart))
        return asdict(self) | {"chart": {"kind": kind, **asdict(self.chart)}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Table:
        chart = dict(values["chart"])
        return cls(values["title"], values["header"], values["rows"], CHARTS[chart.pop("kind")](**chart))


@dataclass(frozen=True)
class Report:
    """The results of a benchmark. measured: every single measurement, ready for JSON; notes: for the reader."""

    benchmark: str
    command: Sequence[str]
    machine: dict[str, Any]
    measured: Any
    tables: Sequence[Table]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        head = [f"`python benchmarks/{' '.join([self.benchmark, *self.command])}`", machine_line(self.machine), *self.notes]
        return "\n\n".join([*head, *(table.markdown() for table in self.tables)])

    def save(self, path: Path) -> None:
        """Write the JSON file, atomically."""
        values = vars(self) | {"command": list(self.command), "tables": [table.to_json() for table in self.tables]}
        write_text(path, json.dumps(values | {"notes": list(self.notes)}, indent=1, ensure_ascii=False) + "\n")


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def spread(values: Sequence[float], digits: int) -> str:
    """The median, with the quartiles in parentheses: 3.18 (3.10–3.25)."""
    low, middle, high = (f"{value:,.{digits}f}" for value in quartiles(values))
    return f"{middle} ({low}–{high})"
