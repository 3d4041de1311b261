"""Activation functions: as modules, and by the names that configurations use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from minigrad import functional as F
from minigrad.errors import ArgumentError
from minigrad.nn.checks import check_number
from minigrad.nn.module import Module
from minigrad.tensor import Tensor

GELU_FORMS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""The published names of gelu, and which of its two forms each one means."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: partial(F.gelu, approximate=form) for name, form in GELU_FORMS.items()},
    "relu": F.relu,
    "tanh": F.tanh,
    "sigmoid": F.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
}


def activation(which: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function that configurations call `which`; a function or layer is returned as it is.

    Raises: ArgumentError naming the known ones.
    """
    if callable(which):
        return which
    if not isinstance(which, str) or which not in ACTIVATIONS:
        raise ArgumentError(f"unknown activation {which!r:.80}: known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[which]


class GELU(Module):
    """x · Φ(x). approximate: "none" (exact, by erf) or "tanh". Raises: ArgumentError for another form."""

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ArgumentError(f'GELU: approximate is "none" or "tanh", not {approximate!r}')
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate=self.approximate)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope · x. Maas et al., ICML 2013."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        check_number("LeakyReLU", "negative_slope", negative_slope)
        self.negative_slope = float(negative_slope)  # NumPy's float64 would turn float32 into float64

    def forward(self, x: Tensor) -> Tensor:
        x = F.as_tensor(x)
        return F.where(x > 0.0, x, x * self.negative_slope)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class SiLU(Module):
    """x / (1 + e⁻ˣ), also called swish."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class Softplus(Module):
    """log(1 + eˣ)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


class Softmax(Module):
    """eˣ / Σ eˣ along an axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, self.axis)


class LogSoftmax(Module):
    """x - log Σ eˣ along an axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(x, self.axis)
