"""The result of an audit: the verdicts, the table, and the error that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from minigrad.errors import GradientCheckError

FAILED = ("wrong", "not finite", "missing", "unused", "unregistered")

MEANINGS = {
    "ok": "agrees with the change of the loss",
    "zero": "gradient and change of the loss are both at rounding level",
    "kink": "the loss has a corner exactly here; a step beside it the gradient agrees",
    "too small": "the gradient is too small for its effect on the loss to be measured",
    "frozen": "requires no gradient",
    "wrong": "the loss changes otherwise than the gradient says",
    "not finite": "the gradient holds NaN or infinity",
    "missing": "the loss changes, but no gradient arrived: something on the way is detached",
    "unused": "the loss does not depend on it: freeze it, or use it",
    "unregistered": "the loss depends on it, but the model does not know it, so no optimizer would train it and no file would hold it",
}
"""Every verdict with its explanation. Those in FAILED make an audit fail."""


@dataclass(frozen=True)
class AuditRow:
    """The result for one parameter. `relative_error` is |difference| / |gradient|, NaN where nothing was compared."""

    name: str
    shape: tuple[int, ...]
    gradient_norm: float
    relative_error: float
    verdict: str


@dataclass(frozen=True)
class Audit:
    """The results for all parameters. Its truth value says whether all passed; `str` gives the table."""

    loss: float
    rows: tuple[AuditRow, ...]
    COLUMNS: ClassVar[tuple[str, ...]] = ("parameter", "shape", "|gradient|", "relative error", "verdict")

    @property
    def failures(self) -> list[AuditRow]:
        return [row for row in self.rows if row.verdict in FAILED]

    def __bool__(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        lines = [self.COLUMNS, *[
            (row.name, "×".join(map(str, row.shape)) or "number", f"{row.gradient_norm:.3e}", f"{row.relative_error:.1e}", row.verdict)
            for row in self.rows
        ]]  # fmt: skip
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.COLUMNS))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        counts = {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in MEANINGS}
        table += [f"{count} {verdict}: {MEANINGS[verdict]}" for verdict, count in counts.items() if count]
        return "\n".join(table)


class AuditError(GradientCheckError):
    """A model's gradient is wrong, or does not reach a trainable parameter. `audit` holds the whole table."""

    code = "audit"

    def __init__(self, audit: Audit) -> None:
        super().__init__(f"{len(audit.failures)} of {len(audit.rows)} parameters failed:\n{audit}")
        self.audit = audit
