"""Adagrad (Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization", 2011), as PyTorch
defines it: each element's steps shrink with the root of all its squared gradients, so that rare ones stay large."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.op import Kernel
from minigrad.optim.checks import check_number
from minigrad.optim.optimizer import Optimizer


@Kernel
def adagrad(xp: Any, p: Any, g: Any, moments: Any, scratch: Any, *, size: float, initial: float, eps: float, l2: float) -> None:
    """g ← g + l2·p;  s ← s + g²;  p ← p - size·g / (√(initial + s) + eps)."""
    (s,) = moments
    t, u = scratch
    if l2:
        xp.multiply(p, l2, out=u)
        u += g
        g = u
    s += xp.multiply(g, g, out=t)
    if initial:
        xp.add(s, initial, out=t)
        xp.sqrt(t, out=t)
    else:
        xp.sqrt(s, out=t)
    t += eps
    xp.divide(g, t, out=t)
    t *= size
    p -= t


class Adagrad(Optimizer):
    """Adagrad: at step t, p ← p - lr/(1 + (t-1)·lr_decay) · g / (√(initial_accumulator_value + Σg²) + eps).

    weight_decay is added to the gradient (L2). The state "sum" is Σg²; `initial_accumulator_value`, which tames the first steps, is an
    option and not part of it. Source: Duchi et al., 2011, with PyTorch's eps and lr_decay. Raises: ArgumentError.
    """

    kernel = adagrad
    moment_names = ("sum",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(
            params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value, eps=eps
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an impossible value."""
        super().check(options)
        for name in ("lr_decay", "initial_accumulator_value", "eps"):
            check_number(name, options[name])

    def constants(self, options: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The options as the kernel takes them, with the decayed learning rate of this step in `size`."""
        return {
            "size": options["lr"] / (1 + (step - 1) * options["lr_decay"]),
            "initial": options["initial_accumulator_value"],
            "eps": options["eps"],
            "l2": options["weight_decay"],
        }

    def idle_factor(self, options: Mapping[str, Any]) -> float | None:
        """1; None with weight decay, which gives every row a gradient, and if the step is 0/0 (NaN, as in PyTorch)."""
        divides_by_zero = options["eps"] == 0 and options["initial_accumulator_value"] == 0
        return None if options["weight_decay"] or divides_by_zero else 1.0
