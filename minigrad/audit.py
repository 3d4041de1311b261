"""Proof of a whole model's gradient: the real loss, moved along each parameter, against the gradient that arrived there.

Checked operations do not make a checked model: an embedding may be detached, a layer may hide from the optimizer, an operation of one's
own may be wrong. `audit` looks at what training will use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minigrad.autograd import Leaf, Node, no_grad
from minigrad.backend import random
from minigrad.backend.gradients import dense
from minigrad.derivatives import grad
from minigrad.errors import ArgumentError, GradientCheckError
from minigrad.nn import Module
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor

STEPS = (1e-2, 1e-3, 1e-4, 1e-5)
"""How far a parameter is moved along a direction of length 1: long steps keep rounding away, short ones curvature and kinks. A right
gradient agrees at one of them; a wrong one at none."""

RTOL = 1e-6
"""Allowed difference, as a part of the gradient's length."""

NOISE = 1e-14
"""Rounding of a loss of order 1 in float64; divided by the step it is the uncertainty of a difference quotient."""

ZERO = 1e-10
"""A gradient shorter than this part of the model's longest is rounding (key biases: softmax does not see a number added to a whole row)."""

FAILED = ("wrong", "missing", "unused", "unregistered")

MEANINGS = {
    "ok": "agrees with the change of the loss",
    "zero": "gradient and change of the loss are both at rounding level",
    "kink": "the loss has a corner here, and the gradient lies between its two slopes",
    "too small": "the gradient is too small for its effect on the loss to be measured",
    "frozen": "requires no gradient",
    "wrong": "the loss changes otherwise than the gradient says",
    "missing": "the loss changes, but no gradient arrived: something on the way is detached",
    "unused": "the loss does not depend on it: freeze it, or use it",
    "unregistered": "the loss depends on it, but the model does not know it, so no optimizer would train it and no file would hold it",
}
"""Every verdict. Those of FAILED make an audit fail."""


@dataclass(frozen=True)
class AuditRow:
    """What was found about one parameter. `relative_error` is |difference| / |gradient|, NaN where nothing was compared."""

    name: str
    shape: tuple[int, ...]
    gradient_norm: float
    relative_error: float
    verdict: str


@dataclass(frozen=True)
class Audit:
    """The findings for all parameters. True if nothing failed; printed as a table."""

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
    """A model's gradient is wrong, or does not reach a parameter that is to be trained. `audit` holds the whole table."""

    code = "audit"

    def __init__(self, audit: Audit) -> None:
        super().__init__(f"{len(audit.failures)} of {len(audit.rows)} parameters failed:\n{audit}")
        self.audit = audit


def audit(
    model: Module,
    batch: Any,
    loss: Callable[[Any, Any], Tensor] | None = None,
    *,
    seed: int = 0,
    progress: Callable[[list[tuple[str, Parameter]]], Iterable[tuple[str, Parameter]]] = iter,
) -> Audit:
    """Compare the gradient of the real loss with its change along a direction in each parameter tensor, in float64.

    A copy of the model is converted and audited; the model itself, its gradients and its random numbers stay as they are. Dropout is on
    if the model is in training mode, and drops the same units every time. The direction is the gradient's own plus a random one.

    batch: what the loss is computed from; floating arrays in it (also inside dicts, lists and tuples) become float64.
    loss: `loss(model, batch)`, a Tensor with one element. By default the model is called with the batch (a mapping as keyword arguments, a
    list or tuple as positional ones), and returns the loss or something that has it as `.loss`.
    seed: of the directions and the dropout. progress: wraps the list of parameters while they are checked (`tqdm.tqdm`, for example).

    Raises: AuditError, with the table, if a trainable parameter gets a wrong gradient or none, or if the loss depends on a parameter that
    the model does not know; StateDictError for layers in a set, which have no names; ArgumentError for a loss that is no single number.
    """
    twin = copy.deepcopy(model).to("float64")
    found = _Auditor(twin, _in_float64(batch), loss or _called, seed).run(progress)
    if not found:
        raise AuditError(found)
    return found


def _called(model: Any, batch: Any) -> Any:
    """The loss of a model that computes it itself."""
    result = model(**batch) if isinstance(batch, Mapping) else model(*batch) if isinstance(batch, list | tuple) else model(batch)
    return getattr(result, "loss", result)


def _in_float64(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return {key: _in_float64(value) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(_in_float64(value) for value in batch)
    if isinstance(batch, Tensor | np.ndarray) and batch.dtype.kind == "f":
        return batch.astype(np.float64)
    return batch


class _Auditor:
    """One model, one batch: the loss as a function of each parameter."""

    def __init__(self, model: Module, batch: Any, loss: Callable[[Any, Any], Any], seed: int) -> None:
        self.model, self.batch, self.loss, self.seed = model, batch, loss, seed
        self.rng = np.random.default_rng(seed)
        self.here = float("nan")
        """The loss where the parameters are."""

    def value(self) -> Tensor:
        with random.at(self.seed, 0):
            result = self.loss(self.model, self.batch)
        if not isinstance(result, Tensor) or result.size != 1:
            what = f"a Tensor of shape {result.shape}" if isinstance(result, Tensor) else f"{type(result).__name__}"
            raise ArgumentError(
                f"audit: the loss must be a Tensor with one element, got {what}; pass loss=, a function of the model and the batch"
            )
        if not np.isfinite(result.item()):
            raise ArgumentError(f"audit: the loss is {result.item()}, which has no gradient to prove")
        return result

    def run(self, progress: Callable[[Any], Iterable[tuple[str, Parameter]]]) -> Audit:
        named = self.model.named_parameters()
        loss = self.value()
        self.here = loss.item()
        trained = [p for _, p in named if p.requires_grad]
        strangers = _strangers(loss.node, {p.leaf for p in trained}, self.batch) if loss.node is not None else []
        found = grad(loss, trained) if loss.node is not None and trained else (None,) * len(trained)
        gradients = {p: None if g is None else dense(g.numpy()) for p, g in zip(trained, found, strict=True)}
        longest = max((float(np.linalg.norm(g)) for g in gradients.values() if g is not None), default=0.0)
        rows = [self.judged(name, p, gradients.get(p), longest) for name, p in progress(named)]
        rows += [AuditRow(leaf.name or "(unnamed)", leaf.shape, float("nan"), float("nan"), "unregistered") for leaf in strangers]
        return Audit(self.here, tuple(rows))

    def judged(self, name: str, p: Parameter, gradient: Any, longest: float) -> AuditRow:
        if not p.requires_grad:
            return AuditRow(name, p.shape, float("nan"), float("nan"), "frozen")
        random_direction = self.rng.standard_normal(p.shape)
        direction = random_direction / max(float(np.linalg.norm(random_direction)), 1e-300)
        if gradient is None:
            moved = max(abs(self.slope(p, direction, step)) * step for step in STEPS[:2])
            return AuditRow(name, p.shape, 0.0, float("nan"), "missing" if moved > self.noise() else "unused")
        norm = float(np.linalg.norm(gradient))
        if norm > ZERO * longest:
            direction = direction + gradient / norm
            direction /= np.linalg.norm(direction)
        analytic = float((gradient * direction).sum())
        error = float("inf")
        for step in STEPS:
            difference = abs(self.slope(p, direction, step) - analytic)
            if difference <= RTOL * norm + self.noise() / step:
                if norm <= ZERO * longest:
                    return AuditRow(name, p.shape, norm, float("nan"), "zero")
                verdict = "ok" if self.noise() / step <= 1e-2 * norm else "too small"
                return AuditRow(name, p.shape, norm, difference / norm, verdict)
            error = min(error, difference)
        verdict = "kink" if self.between_slopes(p, direction, analytic) else "wrong"
        return AuditRow(name, p.shape, norm, error / max(norm, 1e-300), verdict)

    def noise(self) -> float:
        return NOISE * max(1.0, abs(self.here))

    def slope(self, p: Parameter, direction: Any, step: float) -> float:
        """The derivative of the loss along `direction`, from four points: its error is of order step⁴."""
        near = self.moved(p, direction, step) - self.moved(p, direction, -step)
        far = self.moved(p, direction, 2.0 * step) - self.moved(p, direction, -2.0 * step)
        return (8.0 * near - far) / (12.0 * step)

    def between_slopes(self, p: Parameter, direction: Any, analytic: float) -> bool:
        """Whether the slopes on both sides differ, and the gradient lies between them."""
        step = STEPS[-1]
        left, right = (self.here - self.moved(p, direction, -step)) / step, (self.moved(p, direction, step) - self.here) / step
        curvature = abs((self.moved(p, direction, 2 * step) - self.here) / (2 * step) - right)  # what two slopes of a smooth loss differ by
        return abs(right - left) > 10 * (curvature + self.noise() / step) and min(left, right) <= analytic <= max(left, right)

    def moved(self, p: Parameter, direction: Any, step: float) -> float:
        """The loss with p moved; p is put back."""
        point = p.numpy().copy()
        try:
            p.assign(point + step * direction)
            with no_grad():
                return float(self.value().item())
        finally:
            p.assign(point)


def _strangers(root: Node, known: set[Leaf], batch: Any) -> list[Leaf]:
    """The leaves that the loss depends on but that are neither the model's nor the batch's."""
    known = known | set(_leaves(batch))
    seen: set[Node] = {root}
    stack: list[Node] = [root]
    found = []
    while stack:
        node = stack.pop()
        if isinstance(node, Leaf) and node not in known:
            found.append(node)
        for parent in node.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return found


def _leaves(batch: Any) -> Iterable[Leaf]:
    values: Sequence[Any] = list(batch.values()) if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else [batch]
    for value in values:
        if isinstance(value, Mapping | list | tuple):
            yield from _leaves(value)
        elif isinstance(value, Tensor) and isinstance(value.node, Leaf):
            yield value.node
