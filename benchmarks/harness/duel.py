"""A duel: minigrad and one kind of opponent do the same work in turns; and its measurements."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.floor import flops
from harness.processes import Contender, ContenderFailed, take_turns
from harness.tables import quartiles
from harness.work import LONGEST, Size, Work, make_work

OPPONENTS: dict[str, dict[str, Any] | None] = {
    "longest": {"pad_to": None, "compiled": False},
    "128": {"pad_to": LONGEST, "compiled": False},
    "grouped": {"pad_to": None, "compiled": False},
    "compile": {"pad_to": None, "compiled": True},
    "alone": None,
}
"""PyTorch with batches padded to their longest text, or to 128 tokens; grouped by length and padded to the longest, in which case minigrad
gets the same batches; compiled; or no opponent."""
ATTENTION = ("sdpa", "eager")

OURS: dict[str, tuple[int | str, dict[str, str]]] = {
    "auto": ("auto", {}),
    "1": (1, {}),
    "off": ("auto", {"MINIGRAD_KERNELS": "off"}),
    "numpy": ("auto", {"MINIGRAD_KERNELS": "numpy"}),
}
"""minigrad with a worker per core, with one process, without kernels, or with NumPy's kernels only: (workers, environment)."""

FLOOR = "sgemm"


@dataclass(frozen=True)
class Duel:
    """The work and the opponent. name: that of the size; lengths: as `work.draw_texts` takes them."""

    name: str
    size: Size
    lengths: str
    head: str
    against: str


@dataclass(frozen=True)
class Measured:
    """Measurements of a duel in training or inference. seconds: per batch, of every contender in every round; memory: peak bytes;
    failed: the opponents that failed, and why; tokens, flops: mean per batch."""

    name: str
    batch: int
    lengths: str
    head: str
    against: str
    what: str
    tokens: float
    flops: float
    seconds: Mapping[str, Sequence[float]]
    memory: Mapping[str, int]
    failed: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def opponent(self) -> str | None:
        """The fastest of PyTorch's variants."""
        names = [name for name in self.seconds if name.startswith("torch")]
        return min(names, key=lambda name: quartiles(self.seconds[name])[1], default=None)

    def ratios(self, slower: str, faster: str) -> list[float]:
        """How many times as fast `faster` was, round by round."""
        return [one / other for one, other in zip(self.seconds[slower], self.seconds[faster], strict=True)]


def measure(duel: Duel, whats: Sequence[str], ours: Sequence[str], *, rounds: int, batches: int, model: Path | None) -> Iterator[Measured]:
    """Run a duel. Inference comes first: before any training, neither gradients nor moments are in memory.

    Raises: SystemExit if minigrad fails.
    """
    work = make_work(duel.size, duel.head, duel.lengths, count=batches, grouped=duel.against == "grouped", model=model)
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        processes = {}
        for name, (description, variables) in _descriptions(duel, work, ours).items():
            try:
                processes[name] = stack.enter_context(closing(Contender(description, variables)))
            except ContenderFailed as error:
                _note(failed, name, error)
        for what in sorted(whats):  # infer, train
            memory = {}
            for name in list(processes):
                try:
                    memory[name] = processes[name].warm_up(what)
                except ContenderFailed as error:
                    _note(failed, name, error)
                    del processes[name]
            seconds = take_turns(processes, what, rounds)
            yield Measured(
                duel.name, duel.size.batch, duel.lengths, duel.head, duel.against, what,
                work.tokens, flops(work, what), seconds, memory, dict(failed),
            )  # fmt: skip


def _descriptions(duel: Duel, work: Work, ours: Sequence[str]) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Every contender by name: its description for `harness.contender`, and its environment."""
    shared = {"size": asdict(work.size), "head": work.head, "batches": work.batches}
    found: dict[str, tuple[dict[str, Any], dict[str, str]]] = {FLOOR: (shared | {"kind": "sgemm"}, {})}
    for name in ours:
        workers, variables = OURS[name]
        found[f"minigrad {name}"] = (shared | {"kind": "minigrad", "workers": workers}, variables)
    if (how := OPPONENTS[duel.against]) is not None:
        for attention in ATTENTION:
            found[f"torch {attention}"] = (shared | {"kind": "torch", "attention": attention, **how}, {})
    return found


def _note(failed: dict[str, str], name: str, error: ContenderFailed) -> None:
    """Note why an opponent failed, for the table. If minigrad failed, exit."""
    if not name.startswith("torch"):
        sys.exit(f"error: {name}: {error}")
    failed[name] = str(error).strip().splitlines()[0][:200]
