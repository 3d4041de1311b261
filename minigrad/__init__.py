"""minigrad: deep learning from scratch over NumPy and CuPy, with BERT that loads published weights by name.

import minigrad as mg
x = mg.tensor([1.0, 2.0], requires_grad=True)
(x * x).sum().backward()
x.grad                                    # [2., 4.]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minigrad import (
    data,
    errors,
    functional,
    interpreter,  # noqa: F401 - it teaches the backend about Tensors, for second derivatives
    io,
    kernels,
    models,
    nn,
    optim,
)
from minigrad._version import __version__
from minigrad.anomaly import detect_anomaly
from minigrad.audit import audit
from minigrad.autograd import enable_grad, higher_order, no_grad
from minigrad.backend.random import manual_seed
from minigrad.contract import check_op
from minigrad.creation import arange, eye, full, ones, rand, randn, tensor, zeros
from minigrad.derivatives import grad, hessian, hvp, jacobian, value_and_grad, vjp
from minigrad.gradcheck import gradcheck
from minigrad.op import custom_op
from minigrad.parameter import Parameter
from minigrad.pipeline import pipeline
from minigrad.recompute import recompute
from minigrad.tensor import Tensor

if TYPE_CHECKING:
    from minigrad import train

__all__ = [
    "Parameter", "Tensor", "__version__", "arange", "audit", "check_op", "custom_op", "data", "detect_anomaly", "enable_grad", "errors",
    "eye", "full", "functional", "grad", "gradcheck", "hessian", "higher_order", "hvp", "io", "jacobian", "kernels", "manual_seed",
    "models", "nn", "no_grad", "ones", "optim", "pipeline", "rand", "randn", "recompute", "tensor", "train", "value_and_grad", "vjp",
    "zeros",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """`minigrad.train` is loaded when it is first asked for: a fifth of the time of importing the rest, and no model in use needs it."""
    if name == "train":
        return import_module("minigrad.train")
    raise AttributeError(f"module 'minigrad' has no attribute {name!r}")
