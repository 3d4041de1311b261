"""Stochastic gradient descent, with momentum and weight decay as PyTorch defines them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.errors import ArgumentError
from minigrad.op import Kernel
from minigrad.optim.checks import check_flag, check_number
from minigrad.optim.optimizer import Optimizer


@Kernel
def sgd(
    xp: Any, p: Any, g: Any, moments: Any, scratch: Any, *, lr: float, momentum: float, dampening: float, nesterov: bool, first: bool,
    l2: float, decay: float,
) -> None:  # fmt: skip
    """g ← g + l2·p;  b ← μb + (1-τ)g, at first b ← g;  d = g + μb with Nesterov's look-ahead, else b;  p ← decay·p - lr·d.

    Without momentum d = g and b is not kept.
    """
    t, u = scratch
    if l2:
        xp.multiply(p, l2, out=t)
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
    if decay != 1:
        p *= decay
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
        """Raises: ArgumentError for an impossible value, or nesterov without momentum or with dampening."""
        super().check(options)
        check_number("momentum", options["momentum"])
        check_number("dampening", options["dampening"])
        check_flag("nesterov", options["nesterov"])
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ArgumentError("nesterov needs a momentum above 0 and dampening 0")

    def moments_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The buffer, unless there is no momentum."""
        return self.moment_names if options["momentum"] else ()

    def constants(self, options: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The options as the kernel takes them.

        Without momentum, weight decay is the factor 1 - lr·λ: the same as p - lr·(g + λp), but rounded like the rows of a table.
        """
        momentum, lr, weight_decay = options["momentum"], options["lr"], options["weight_decay"]
        return {
            **{name: options[name] for name in ("lr", "momentum", "dampening", "nesterov")},
            "first": step == 1,
            "l2": weight_decay if momentum else 0.0,
            "decay": 1.0 if momentum else 1 - lr * weight_decay,
        }

    def idle_factor(self, options: Mapping[str, Any]) -> float | None:
        """The factor of the decay; None if decay passes through the momentum."""
        if options["momentum"] and options["weight_decay"]:
            return None
        return float(1 - options["lr"] * options["weight_decay"])
