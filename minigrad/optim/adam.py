"""Adam (Kingma & Ba, 2015) and AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization", 2019), as PyTorch defines them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any, ClassVar

from minigrad.errors import ArgumentError
from minigrad.op import Kernel
from minigrad.optim.optimizer import Optimizer, check_number


@Kernel
def adam(
    xp: Any, p: Any, g: Any, moments: Any, scratch: Any, *, beta1: float, beta2: float, size: float, eps: float, l2: float, decay: float
) -> None:
    """g ← g + l2·p;  m ← β1·m + (1-β1)g;  v ← β2·v + (1-β2)g²;  p ← decay·p - size·m / (√v + eps).

    With c = √(1-β2ᵗ), size = lr·c/(1-β1ᵗ) and eps = ε·c this is Adam's lr/(1-β1ᵗ) · m / (√v/c + ε), with one pass less.
    """
    m, v = moments
    t, u = scratch
    if l2:
        xp.multiply(p, l2, out=u)
        u += g
        g = u
    m *= beta1
    m += xp.multiply(g, 1 - beta1, out=t)
    xp.multiply(g, g, out=t)
    t *= 1 - beta2
    v *= beta2
    v += t
    xp.sqrt(v, out=t)
    t += eps
    xp.divide(m, t, out=t)
    t *= size
    if decay != 1:
        p *= decay
    p -= t


class Adam(Optimizer):
    """Adam with bias correction; weight_decay is added to the gradient (L2).

    betas: how much of the running means of g and g² stays at each step; eps: added to the root of the second (after its bias
    correction). Raises: ArgumentError.
    """

    kernel = adam
    moment_names = ("exp_avg", "exp_avg_sq")
    decoupled: ClassVar[bool] = False
    """Whether weight decay shrinks the parameter itself, past the moments."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an impossible value, among them a beta of 1 or more."""
        super().check(options)
        check_number("eps", options["eps"])
        betas = options["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ArgumentError(f"betas must be two numbers, got {betas!r}")
        for number, beta in enumerate(betas):
            check_number(f"betas[{number}]", beta, below=1)

    def constants(self, options: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The options as the kernel takes them, with the bias corrections of this step in `size` and `eps`."""
        beta1, beta2 = options["betas"]
        correction = sqrt(1 - beta2**step)
        return {
            "beta1": beta1,
            "beta2": beta2,
            "size": options["lr"] * correction / (1 - beta1**step),
            "eps": options["eps"] * correction,
            "l2": 0.0 if self.decoupled else options["weight_decay"],
            "decay": 1 - options["lr"] * options["weight_decay"] if self.decoupled else 1.0,
        }

    def idle_factor(self, options: Mapping[str, Any]) -> float | None:
        """Decoupled decay shrinks by one factor; None for decay as an L2 term, which gives every row a gradient."""
        if self.decoupled:
            return float(1 - options["lr"] * options["weight_decay"])
        return None if options["weight_decay"] else 1.0


class AdamW(Adam):
    """Adam with decoupled weight decay: each step first shrinks the parameter by the factor 1 - lr·weight_decay. Raises: ArgumentError."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
