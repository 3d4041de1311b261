"""`audit`: check a whole model's gradients by comparing them with changes of the real loss when each parameter is moved.

A model can be wrong although every operation is right: an embedding may be detached, a layer not registered and so unknown to the
optimizer, a custom operation faulty. `audit` checks the gradients that training will use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.audit_report import Audit, AuditError, AuditRow
from minigrad.autograd import reachable
from minigrad.backend import random
from minigrad.backend.gradients import dense
from minigrad.derivatives import grad
from minigrad.errors import ArgumentError, GraphError
from minigrad.nn import Embedding, Module
from minigrad.parameter import Parameter
from minigrad.tape import Leaf, Node, no_grad
from minigrad.tensor import Tensor

STEPS = (1e-2, 1e-3, 1e-4, 1e-5)
"""How far a parameter is moved along a direction of length 1. Long steps limit the influence of rounding, short ones that of curvature and
kinks. A right gradient agrees at one of them, a wrong one at none."""

SHORT_STEPS = (1e-6, 1e-7)
"""Shorter steps, tried last if the gradient is large enough for them: of thousands of ReLU units, some are so close to their kink that a
longer step crosses it."""

RTOL = 1e-6
"""Allowed difference, relative to the norm of the gradient."""

RESOLVED = 1e-4
"""A gradient counts as measured if the uncertainty of the difference quotient is at most this fraction of its norm."""

KINK_DIRECTIONS = 4
"""How many directions are tried in search of a kink: along a single direction the kinks of several units can cancel."""

KINK_DISTANCE = 0.1
"""How far from a kink the gradient is compared again: far enough that hardly any unit is near its kink there."""

NOISE = 1e-14
"""Rounding error of a loss of order 1 in float64; divided by the step it is the uncertainty of a difference quotient."""

ZERO = 1e-10
"""A gradient whose norm is below this fraction of the model's largest is rounding (as for key biases: a constant added to a whole row does
not change the softmax)."""


def audit(
    model: Module,
    batch: Any,
    loss: Callable[[Any, Any], Tensor] | None = None,
    *,
    seed: int = 0,
    progress: Callable[[list[tuple[str, Parameter]]], Iterable[tuple[str, Parameter]]] = iter,
) -> Audit:
    """Compare the gradient of the real loss with the change of the loss along a direction in each parameter tensor, in float64.

    A copy of the model is converted and audited; the model itself, its gradients and its random numbers are not changed. Dropout is on
    if the model is in training mode, and drops the same units every time. The direction is the gradient's own plus a random one; the row
    `padding_idx` of an Embedding, which is left untrained on purpose, is not moved. Hooks on parameters are not copied.
    A relative error ε in one of n numbers is detected if ε > 1e-6 · n or so. Other gradients that were changed on purpose (by a detached
    target, a straight-through estimator) are "wrong" or "missing", because they are not derivatives of the loss.

    batch: the data for the loss; floating arrays in it (also inside dicts, lists and tuples) are converted to float64.
    loss: `loss(model, batch)`, a Tensor with one element. By default the model is called with the batch (a mapping as keyword arguments, a
    list or tuple as positional ones), and returns the loss or an object that has it as `.loss`.
    seed: for directions and dropout. progress: wraps the list of parameters while they are checked (`tqdm.tqdm`, for example).

    Raises: AuditError, with the table, if a trainable parameter gets a wrong gradient or none, or if the loss depends on a parameter that
    is not registered in the model; StateDictError for layers in a set, which have no names; ArgumentError for a loss that is not a single
    number or not reproducible, a model that cannot be copied or has nothing to train, or a loss that uses the model instead of its copy.
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"audit: the model must be a Module, got {type(model).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise ArgumentError(f"audit: seed must be an integer from 0 to 2**63 - 1, got {seed!r:.80}")
    originals = {p.leaf for p in model.parameters()}
    with np.errstate(all="ignore"):  # a moved parameter may leave the domain of a logarithm: that step is not used
        found = _Auditor(_float64_copy(model), _in_float64(batch), loss or _default_loss, int(seed), originals).run(progress)
    if not found:
        raise AuditError(found)
    return found


def _float64_copy(model: Module) -> Module:
    try:
        return copy.deepcopy(model).to("float64")
    except (GraphError, TypeError) as error:
        raise ArgumentError(
            f"audit: it works on a copy of the model, which cannot be copied: {error}; if an attribute holds a result of the last forward "
            "pass, audit the model before it or remove the attribute"
        ) from error


def _default_loss(model: Any, batch: Any) -> Any:
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
    """The loss of one model on one batch, as a function of each parameter."""

    def __init__(self, model: Module, batch: Any, loss: Callable[[Any, Any], Any], seed: int, originals: set[Leaf]) -> None:
        self.model, self.batch, self.loss, self.seed, self.originals = model, batch, loss, seed, originals
        self.rng = np.random.default_rng(seed)
        self.base_loss = float("nan")
        """The loss at the current parameters."""
        self.untrained = {
            module.weight: module.padding_idx
            for _, module in model.named_modules()
            if isinstance(module, Embedding) and module.padding_idx is not None
        }
        """The padding row of each embedding table that has one; it receives no gradient on purpose."""

    def value(self) -> Tensor:
        with random.at(self.seed, 0):
            result = self.loss(self.model, self.batch)
        if not isinstance(result, Tensor) or result.size != 1:
            what = f"a Tensor of shape {result.shape}" if isinstance(result, Tensor) else f"{type(result).__name__}"
            raise ArgumentError(
                f"audit: the loss must be a Tensor with one element, got {what}; pass loss=, a function of the model and the batch"
            )
        return result

    def checked_loss(self) -> Tensor:
        """The loss at the current parameters, after checking that it is finite and reproducible."""
        loss = self.value()
        self.base_loss = loss.item()
        if not np.isfinite(self.base_loss):
            raise ArgumentError(f"audit: the loss is {self.base_loss}, which has no gradient to prove")
        with no_grad():
            again = self.value().item()
        if not abs(again - self.base_loss) <= self.noise():
            raise ArgumentError(
                f"audit: the loss is {self.base_loss!r}, and {again!r} the second time; the model must not change while it computes, "
                "nor draw random numbers by other means than minigrad's dropout"
            )
        return loss

    def run(self, progress: Callable[[Any], Iterable[tuple[str, Parameter]]]) -> Audit:
        named = self.model.named_parameters()
        trained = [p for _, p in named if p.requires_grad]
        if not trained:
            raise ArgumentError("audit: no parameter of the model requires a gradient, there is nothing to prove")
        loss = self.checked_loss()
        unregistered = _unregistered(loss.node, {p.leaf for p in trained}, self.batch) if loss.node is not None else []
        if not self.originals.isdisjoint(unregistered):
            raise ArgumentError(
                "audit: the loss uses the model itself instead of its copy, whose parameters are moved: in loss=lambda model, batch: … use "
                "the argument, and let no attribute of the model hold a function that mentions the model"
            )
        found = self.gradients(loss, trained)
        lengths = [float(np.linalg.norm(g)) for g in found.values() if g is not None]
        longest = max((length for length in lengths if np.isfinite(length)), default=0.0)
        rows = [self.judge(name, p, found.get(p), longest) for name, p in progress(named)]
        rows += [AuditRow(leaf.name or "(unnamed)", leaf.shape, float("nan"), float("nan"), "unregistered") for leaf in unregistered]
        return Audit(self.base_loss, tuple(rows))

    def gradients(self, loss: Tensor, parameters: Sequence[Parameter]) -> dict[Parameter, Any]:
        found = grad(loss, parameters) if loss.node is not None else (None,) * len(parameters)
        return {p: None if g is None else dense(g.numpy()) for p, g in zip(parameters, found, strict=True)}

    def judge(self, name: str, p: Parameter, gradient: Any, longest: float) -> AuditRow:
        if not p.requires_grad:
            return AuditRow(name, p.shape, float("nan"), float("nan"), "frozen")
        direction = self.random_direction(p)
        if gradient is None:
            moved = max(abs(self.slope(p, direction, step)) * step for step in STEPS[:2])
            return AuditRow(name, p.shape, 0.0, float("nan"), "missing" if moved > self.noise() else "unused")
        norm = float(np.linalg.norm(gradient))
        if not np.isfinite(norm):
            return AuditRow(name, p.shape, norm, float("nan"), "not finite")
        small = norm <= ZERO * longest
        error, step = self.compare(p, gradient, direction if small else self.towards(direction, gradient))
        if step is None:
            verdict = "kink" if self.is_at_kink(p, direction) else "wrong"
            return AuditRow(name, p.shape, norm, error / norm if norm else float("inf"), verdict)
        if small:
            return AuditRow(name, p.shape, norm, float("nan"), "zero")
        return AuditRow(name, p.shape, norm, error / norm, "ok" if self.resolves(step, norm) else "too small")

    def random_direction(self, p: Parameter) -> Any:
        """A random direction for p, of length 1 (or 0, if nothing of p may be moved)."""
        direction = self.rng.standard_normal(p.shape)
        if p in self.untrained:
            direction[self.untrained[p]] = 0.0
        return direction / max(float(np.linalg.norm(direction)), 1e-300)

    def towards(self, direction: Any, gradient: Any) -> Any:
        """The direction halfway between the gradient and ± `direction`, with the sign for which the two cannot cancel."""
        together = gradient / np.linalg.norm(gradient) + (-direction if (direction * gradient).sum() < 0 else direction)
        return together / np.linalg.norm(together)

    def compare(self, p: Parameter, gradient: Any, direction: Any) -> tuple[float, float | None]:
        """The difference between the gradient and the slope of the loss, and the first step at which it is within tolerance, or None."""
        analytic, norm = float((gradient * direction).sum()), float(np.linalg.norm(gradient))
        least = float("inf")
        for step in STEPS + SHORT_STEPS:
            if step in SHORT_STEPS and not self.resolves(step, norm):
                break
            difference = abs(self.slope(p, direction, step) - analytic)
            if difference <= RTOL * norm + self.noise() / step:
                return difference, step
            least = min(least, difference)
        return least, None

    def resolves(self, step: float, norm: float) -> bool:
        """Whether a gradient of norm `norm` can be measured with this step, in spite of the noise of the loss."""
        return self.noise() / step <= RESOLVED * norm

    def noise(self) -> float:
        return NOISE * max(1.0, abs(self.base_loss))

    def slope(self, p: Parameter, direction: Any, step: float) -> float:
        """The derivative of the loss along `direction`, from four points, with an error of order step⁴."""
        near = self.loss_at(p, direction, step) - self.loss_at(p, direction, -step)
        far = self.loss_at(p, direction, 2.0 * step) - self.loss_at(p, direction, -2.0 * step)
        return (8.0 * near - far) / (12.0 * step)

    def is_at_kink(self, p: Parameter, direction: Any) -> bool:
        """Whether left and right slope of the loss differ along one of a few directions, while the gradient is right nearby."""
        if not any(self.has_two_slopes(p, self.random_direction(p)) for _ in range(KINK_DIRECTIONS)):
            return False
        point = p.numpy().copy()
        try:
            p.assign(point + KINK_DISTANCE * direction)
            gradient = self.gradients(self.value(), [p])[p]
            return gradient is not None and self.compare(p, gradient, self.random_direction(p))[1] is not None
        finally:
            p.assign(point)

    def has_two_slopes(self, p: Parameter, direction: Any) -> bool:
        step, loss = STEPS[-1], self.base_loss
        left, right = (loss - self.loss_at(p, direction, -step)) / step, (self.loss_at(p, direction, step) - loss) / step
        curvature = abs((self.loss_at(p, direction, 2 * step) - loss) / (2 * step) - right)  # how much slopes of a smooth loss differ
        return abs(right - left) > 10 * (curvature + self.noise() / step)

    def loss_at(self, p: Parameter, direction: Any, step: float) -> float:
        """The loss with p moved, NaN outside its domain; p is restored."""
        point = p.numpy().copy()
        try:
            p.assign(point + step * direction)
            with no_grad():
                return float(self.value().item())
        finally:
            p.assign(point)


def _unregistered(root: Node, known: set[Leaf], batch: Any) -> list[Leaf]:
    """The leaves that the loss depends on but that belong neither to the model nor to the batch."""
    known = known | set(_leaves(batch))
    return [node for node in reversed(reachable([root])) if isinstance(node, Leaf) and node not in known]


def _leaves(batch: Any) -> Iterable[Leaf]:
    values: Sequence[Any] = list(batch.values()) if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else [batch]
    for value in values:
        if isinstance(value, Mapping | list | tuple):
            yield from _leaves(value)
        elif isinstance(value, Tensor) and isinstance(value.node, Leaf):
            yield value.node
