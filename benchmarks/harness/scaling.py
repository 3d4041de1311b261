"""Scaling of the time of a training step with tokens, layers, hidden size and text length, one of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.duel import Duel, Measured
from harness.tables import Lines, Table, quartiles, spread
from harness.work import Size

TOKENS_OF_LENGTHS = 2048
"""Tokens per batch while the text length varies."""


@dataclass(frozen=True)
class Point:
    """The quantity that is `varied`, its `value`, and the duel at that value."""

    varied: str
    value: int
    duel: Duel


def points() -> Iterator[Point]:
    """A few points for each quantity, around a model of 4 layers and hidden size 256."""

    def point(varied: str, value: int, layers: int, hidden: int, texts: int, lengths: str) -> Point:
        size = Size(layers, hidden, hidden // 64, 4 * hidden, texts)
        return Point(varied, value, Duel(f"L{layers} H{hidden}", size, lengths, "sequence", "longest"))

    for texts in (4, 8, 16, 32, 64):
        yield point("texts in a batch", texts, 4, 256, texts, "mixed")
    for layers in (1, 2, 4, 8):
        yield point("layers", layers, layers, 256, 16, "mixed")
    for hidden in (128, 256, 512, 768):
        yield point("hidden size", hidden, 2, hidden, 16, "mixed")
    for length in (16, 32, 64, 128, 256, 512):
        yield point("tokens of each text", length, 4, 256, TOKENS_OF_LENGTHS // length, str(length))


def scaling_tables(found: Sequence[tuple[Point, Measured]]) -> Iterator[Table]:
    """One table per varied quantity. For the number of texts, the chart's x axis is the tokens of a batch."""
    for varied in dict.fromkeys(point.varied for point, _ in found):
        rows, ours, theirs = [], [], []
        for point, m in found:
            if point.varied != varied:
                continue
            mine, opponent = next(name for name in m.seconds if name.startswith("minigrad")), m.opponent
            place = m.tokens if varied == "texts in a batch" else point.value
            ours.append((place, quartiles(m.seconds[mine])[1] * 1e3))
            row = [str(point.value), m.name, f"{m.tokens:,.0f}", spread([s * 1e3 for s in m.seconds[mine]], 1)]
            if opponent is not None:
                theirs.append((place, quartiles(m.seconds[opponent])[1] * 1e3))
                row += [spread([s * 1e3 for s in m.seconds[opponent]], 1), spread(m.ratios(opponent, mine), 2)]
            rows.append(row + ["–"] * (6 - len(row)))
        across = "real tokens of a batch" if varied == "texts in a batch" else varied
        series = {"minigrad": ours, "PyTorch, padded to the longest": theirs}
        header = [varied, "model", "tokens", "minigrad, ms", "PyTorch, ms", "times as fast"]
        yield Table(f"Training step against {varied}", header, rows, Lines(across, "ms", {n: s for n, s in series.items() if s}))
