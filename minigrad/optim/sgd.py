"""Stochastic gradient descent, with momentum and weight decay as PyTorch defines them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.errors import ArgumentError
from minigrad.op import Kernel
from minigrad.optim.optimizer import Optimizer, check_number


@Kernel
def sgd(
    xp: Any, p: Any, g: Any, moments: Any, scratch: Any, *, lr: float, momentum: float, dampening: float, weight_decay: float,
    nesterov: bool, first: bool,
) -> None:  # fmt: skip
    """g ← g + λp;  b ← μb + (1-τ)g, at first b ← g;  d = g + μb with Nesterov's look-ahead, else b;  p ← p - lr·d."""
    t, u = scratch
    if weight_decay:
        xp.multiply(p, weight_decay, out=t)
        t += g
        g = t
    if momentum:
        (b,) = moments
        if first:
            b[...] = g
        else:
            b *= momentum
            b += xp.multiply(g, 1 - dampening, out=u)
        if nesterov:
            xp.multiply(b, momentum, out=u)
            u += g
            g = u
        else:
            g = b
    p -= xp.multiply(g, lr, out=u)


class SGD(Optimizer):
    """Stochastic gradient descent.

    momentum: μ; dampening: τ, how much of the gradient the momentum leaves out after the first step; weight_decay: λ, added to the
    gradient as λp (L2); nesterov: step along g + μb (Sutskever et al., "On the importance of initialization and momentum", 2013, in
    PyTorch's form). Raises: ArgumentError, also for nesterov without momentum or with dampening.
    """

    kernel = sgd
    moment_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        check_number("momentum", options["momentum"])
        check_number("dampening", options["dampening"])
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ArgumentError("nesterov needs a momentum above 0 and dampening 0")

    def moments_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return self.moment_names if options["momentum"] else ()

    def constants(self, options: Mapping[str, Any], step: int) -> dict[str, Any]:
        return {name: options[name] for name in ("lr", "momentum", "dampening", "weight_decay", "nesterov")} | {"first": step == 1}

    def idle_factor(self, options: Mapping[str, Any]) -> float | None:
        if options["momentum"] and options["weight_decay"]:
            return None  # decay passes through the momentum
        return float(1 - options["lr"] * options["weight_decay"])
