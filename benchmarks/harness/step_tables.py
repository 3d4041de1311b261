"""The tables of `bert_step.py`: ratios with a column per opponent; times; closeness to the floor; memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.duel import FLOOR, Measured
from harness.tables import Bars, Table, quartiles, spread

WHATS = {"train": "Training step", "infer": "Inference"}
NOTHING = "–"


def step_tables(measured: Sequence[Measured]) -> Iterator[Table]:
    """Four tables for each of training and inference, and each head."""
    for what, words in WHATS.items():
        for head in dict.fromkeys(m.head for m in measured):
            if chosen := [m for m in measured if (m.what, m.head) == (what, head)]:
                title = f"{words}, {head} head"
                yield from (_ratios(title, chosen), _times(title, chosen), _closeness(title, chosen), _memory(title, chosen))


def _ratios(title: str, measured: Sequence[Measured]) -> Table:
    columns = list(dict.fromkeys(m.against for m in measured))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    values = {}
    for m in measured:
        for ours in _ours(m):
            cell = NOTHING
            if m.opponent is not None:
                ratios = m.ratios(m.opponent, ours)
                values[_label(m, ours)] = quartiles(ratios)[1]
                cell = spread(ratios, 2)
            elif m.failed:
                cell = "fails: " + "; ".join(dict.fromkeys(m.failed.values())).replace("|", "/")
            cells.setdefault((*_work(m), _variant(ours)), {})[m.against] = cell
    rows = [[*row, *(found.get(column, NOTHING) for column in columns)] for row, found in cells.items()]
    chart = Bars("times as fast as PyTorch (above 1: minigrad is faster)", values)
    return Table(f"{title}: times as fast as PyTorch", ["size", "lengths", "minigrad", *columns], rows, chart)


def _times(title: str, measured: Sequence[Measured]) -> Table:
    rows, values = [], {}
    for m in measured:
        for ours in _ours(m):
            row = [*_work(m), m.against, _variant(ours), spread([s * 1e3 for s in m.seconds[ours]], 1), NOTHING]
            values[_label(m, ours)] = rate = _rate(m, ours)
            rates = [f"{rate:,}", NOTHING]
            if m.opponent is not None:
                row[-1] = f"{spread([s * 1e3 for s in m.seconds[m.opponent]], 1)} {m.opponent.removeprefix('torch ')}"
                values[_label(m, m.opponent)] = rate = _rate(m, m.opponent)
                rates[-1] = f"{rate:,}"
            rows.append([*row, f"{m.tokens:,.0f}", *rates])
    header = ["size", "lengths", "against", "minigrad", "minigrad, ms", "PyTorch, ms", "tokens", "minigrad, tokens/s", "PyTorch, tokens/s"]
    return Table(f"{title}: times", header, rows, Bars("real tokens per second", values))


def _closeness(title: str, measured: Sequence[Measured]) -> Table:
    rows, values = [], {}
    for m in measured:
        floor = quartiles(m.seconds[FLOOR])[1]
        for ours in _ours(m):
            shares = []
            for contender in (ours, m.opponent):
                if contender is None:
                    shares.append(NOTHING)
                    continue
                percents = [100 * share for share in m.ratios(FLOOR, contender)]
                values[_label(m, contender)] = quartiles(percents)[1]
                shares.append(spread(percents, 0))
            figures = [f"{m.flops / 1e9:,.2f}", f"{m.flops / floor / 1e9:,.0f}", f"{floor * 1e3:,.1f}"]
            rows.append([*_work(m), m.against, _variant(ours), *figures, *shares])
    header = ["size", "lengths", "against", "minigrad", "GFLOP", "sgemm, GFLOP/s", "floor, ms", "minigrad, % of it", "PyTorch, % of it"]
    return Table(f"{title}: how close to the floor", header, rows, Bars("percent: floor / time", values))


def _memory(title: str, measured: Sequence[Measured]) -> Table:
    rows, values = [], {}
    for m in measured:
        for ours in _ours(m):
            values[_label(m, ours)] = mine = round(m.memory[ours] / 2**20)
            row = [f"{mine:,}", NOTHING, NOTHING]
            if m.opponent is not None:
                values[_label(m, m.opponent)] = theirs = round(m.memory[m.opponent] / 2**20)
                row[1:] = [f"{theirs:,}", f"{theirs / mine:.2f}"]
            rows.append([*_work(m), m.against, _variant(ours), *row])
    header = ["size", "lengths", "against", "minigrad", "minigrad, MiB", "PyTorch, MiB", "PyTorch / minigrad"]
    return Table(f"{title}: peak memory", header, rows, Bars("MiB, all processes together", values))


def _ours(m: Measured) -> list[str]:
    return [name for name in m.seconds if name.startswith("minigrad")]


def _work(m: Measured) -> tuple[str, str]:
    return f"{m.name} b{m.batch}", Path(m.lengths).name


def _label(m: Measured, contender: str) -> str:
    """The label of a bar, which has room for some thirty letters."""
    who = "torch" if contender == m.opponent else _variant(contender).replace("auto", "ours")
    return f"{m.name} {Path(m.lengths).stem[:10]} {m.against}: {who}"


def _variant(ours: str) -> str:
    """How minigrad ran: the rest of the contender's name."""
    return ours.removeprefix("minigrad ")


def _rate(m: Measured, contender: str) -> int:
    """Real tokens per second."""
    return round(m.tokens / quartiles(m.seconds[contender])[1])
