"""RMSprop (Tieleman & Hinton, "Lecture 6.5", Coursera 2012), centered as in Graves, "Generating sequences with recurrent neural networks",
2013, and with momentum: as PyTorch defines it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.op import Kernel
from minigrad.optim.checks import check_flag, check_number
from minigrad.optim.optimizer import Optimizer


@Kernel
def rmsprop(
    xp: Any, p: Any, g: Any, moments: Any, scratch: Any, *, lr: float, alpha: float, eps: float, momentum: float, centered: bool, l2: float
) -> None:
    """g ← g + l2·p;  v ← αv + (1-α)g²;  d = g / (√v + eps);  b ← μb + d with momentum, else b = d;  p ← p - lr·b.

    Centered: also a ← αa + (1-α)g, and v - a² replaces v under the root. That is a variance, which counts as 0 if rounding makes it
    negative.
    """
    v, *others = moments
    t, u = scratch
    if l2:
        xp.multiply(p, l2, out=u)
        u += g
        g = u
    xp.multiply(g, g, out=t)
    t *= 1 - alpha
    v *= alpha
    v += t
    if centered:
        a = others[-1]
        a *= alpha
        a += xp.multiply(g, 1 - alpha, out=t)
        xp.multiply(a, a, out=t)
        xp.subtract(v, t, out=t)
        xp.maximum(t, 0, out=t)
        xp.sqrt(t, out=t)
    else:
        xp.sqrt(v, out=t)
    t += eps
    xp.divide(g, t, out=t)
    if momentum:
        b = others[0]
        b *= momentum
        b += t
        xp.multiply(b, lr, out=t)
    else:
        t *= lr
    p -= t


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by the root of a running mean of its squares.

    alpha: the decay rate of the running means; eps: added to the root; momentum: μ, of a running sum of the divided gradients; centered:
    divide by the running standard deviation instead (mean square minus squared mean); weight_decay is added to the gradient (L2). If
    rounding makes that variance negative it counts as 0, where PyTorch gives NaN. Raises: ArgumentError.
    """

    kernel = rmsprop
    moment_names = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an impossible value, among them an alpha of 1 or more."""
        super().check(options)
        check_number("alpha", options["alpha"], below=1)
        check_number("eps", options["eps"])
        check_number("momentum", options["momentum"])
        check_flag("centered", options["centered"])

    def moments_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The mean square; the buffer with momentum, the mean if centered."""
        wanted = {"square_avg": True, "momentum_buffer": options["momentum"], "grad_avg": options["centered"]}
        return tuple(name for name in self.moment_names if wanted[name])

    def constants(self, options: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The options as the kernel takes them."""
        return {**{name: options[name] for name in ("lr", "alpha", "eps", "momentum", "centered")}, "l2": options["weight_decay"]}

    def idle_factor(self, options: Mapping[str, Any]) -> float | None:
        """1; None with weight decay, which gives every row a gradient, and for eps 0, where the step is 0/0 (NaN, as in PyTorch)."""
        return None if options["weight_decay"] or options["eps"] == 0 else 1.0
