"""Lion (Chen et al., "Symbolic discovery of optimization algorithms", 2023, arXiv 2302.06675): every element moves by the same amount, in
the direction of a sign, and there is only one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minigrad.op import Kernel
from minigrad.optim.checks import check_betas
from minigrad.optim.optimizer import Optimizer


@Kernel
def lion(xp: Any, p: Any, g: Any, moments: Any, scratch: Any, *, lr: float, beta1: float, beta2: float, decay: float) -> None:
    """p ← decay·p - lr·sign(β1·m + (1-β1)g);  m ← β2·m + (1-β2)g."""
    (m,) = moments
    t, u = scratch
    xp.multiply(m, beta1, out=t)
    t += xp.multiply(g, 1 - beta1, out=u)
    xp.sign(t, out=t)
    t *= lr
    if decay != 1:
        p *= decay
    p -= t
    m *= beta2
    m += xp.multiply(g, 1 - beta2, out=u)


class Lion(Optimizer):
    """Lion (EvoLved Sign Momentum), with decoupled weight decay: Algorithm 2 of Chen et al., 2023.

    betas: the momentum's weight in the interpolation whose sign is the step, and the decay rate of the momentum. A step moves every
    element by lr, so lr should be 3 to 10 times less than AdamW's and weight_decay as many times more (section 5 of the paper).
    Raises: ArgumentError.
    """

    kernel = lion
    moment_names = ("exp_avg",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an impossible value, among them a beta of 1 or more."""
        super().check(options)
        check_betas(options["betas"])

    def constants(self, options: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The options as the kernel takes them."""
        beta1, beta2 = options["betas"]
        return {"lr": options["lr"], "beta1": beta1, "beta2": beta2, "decay": 1 - options["lr"] * options["weight_decay"]}

    def idle_factor(self, options: Mapping[str, Any]) -> float | None:
        """The factor of the decay alone, since the sign of 0 is 0."""
        return float(1 - options["lr"] * options["weight_decay"])
