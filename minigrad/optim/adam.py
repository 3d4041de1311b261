"""Adam (Kingma & Ba, 2015) and AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization", 2019), as PyTorch defines them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any, ClassVar

from minigrad.kernels import chosen, compiled_passes
from minigrad.op import Kernel
from minigrad.optim.checks import check_betas, check_flag, check_number
from minigrad.optim.optimizer import Optimizer


@Kernel
def adam(
    xp: Any, p: Any, g: Any, moments: Any, scratch: Any, *, beta1: float, beta2: float, size: float, eps: float, l2: float, decay: float,
    factor: float = 1.0,
) -> None:  # fmt: skip
    """g ← factor·g + l2·p;  m ← β1·m + (1-β1)g;  v ← β2·v + (1-β2)g²;  p ← decay·p - size·m / (√v + eps).

    AMSGrad: w ← max(w, v) replaces v under the root.
    With c = √(1-β2ᵗ), size = lr·c/(1-β1ᵗ) and eps = ε·c this is Adam's lr/(1-β1ᵗ) · m / (√v/c + ε), with one pass less.
    """
    m, v, *largest = moments
    t, u = scratch
    if factor != 1:
        g = xp.multiply(g, factor, out=u)
    if l2:
        g = xp.add(xp.multiply(p, l2, out=t), g, out=u)
    m *= beta1
    m += xp.multiply(g, 1 - beta1, out=t)
    xp.multiply(g, g, out=t)
    t *= 1 - beta2
    v *= beta2
    v += t
    for w in largest:  # with AMSGrad one array, the maxima so far; else none
        v = xp.maximum(w, v, out=w)
    xp.sqrt(v, out=t)
    t += eps
    xp.divide(m, t, out=t)
    t *= size
    if decay != 1:
        p *= decay
    p -= t


@adam.on("numpy")
def _in_one_pass(
    xp: Any, p: Any, g: Any, moments: Any, scratch: Any, *, beta1: float, beta2: float, size: float, eps: float, l2: float, decay: float,
    factor: float = 1.0,
) -> Any:  # fmt: skip
    """The same numbers to the last bit, compiled: each element is read and written once."""
    compiled = compiled_passes()
    if compiled is None or p.dtype != "float32" or len(moments) > 2:
        return NotImplemented
    if factor != 1:
        g = xp.multiply(g, factor, out=scratch[0])
    compiled.adam(p, g, *moments, beta1, beta2, size, eps, l2, decay)
    return None


@adam.on("cupy")
def _in_one_launch(xp: Any, p: Any, g: Any, moments: Any, scratch: Any, **constants: float) -> Any:
    """The same numbers from one CUDA kernel. Registered here because `kernels` may not import optimizers, and imported late for users
    without a GPU."""
    if chosen == "off":
        return NotImplemented
    from minigrad.kernels.cuda.optimizer import adam as launched

    return launched(xp, p, g, moments, **constants)


class Adam(Optimizer):
    """Adam with bias correction; weight_decay is added to the gradient (L2).

    betas: the decay rates of the running means of g and g²; eps: added to the root of the second (after its bias correction); amsgrad:
    divide by the largest second mean so far, so that steps never grow again (Reddi, Kale & Kumar, "On the convergence of Adam and
    beyond", 2018). Raises: ArgumentError.
    """

    kernel = adam
    kernel_scales = True
    moment_names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    decoupled: ClassVar[bool] = False
    """Whether weight decay shrinks the parameter directly, without passing through the moments."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an impossible value, among them a beta of 1 or more."""
        super().check(options)
        check_number("eps", options["eps"])
        check_betas(options["betas"])
        check_flag("amsgrad", options["amsgrad"])

    def moments_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The two means, and for AMSGrad the largest second one."""
        return self.moment_names if options["amsgrad"] else self.moment_names[:2]

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
        """The factor of decoupled decay, or 1; None for decay as an L2 term, which gives every row a gradient, and for eps 0, where the
        step is 0/0 (NaN, as in PyTorch)."""
        if options["eps"] == 0:
            return None
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
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)
