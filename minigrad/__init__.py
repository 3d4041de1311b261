"""minigrad: deep learning from scratch over NumPy and CuPy, with BERT that loads published weights by name.

import minigrad as mg
x = mg.tensor([1.0, 2.0], requires_grad=True)
(x * x).sum().backward()
x.grad                                    # [2., 4.]
"""

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
    train,
)
from minigrad._version import __version__
from minigrad.autograd import enable_grad, higher_order, no_grad
from minigrad.backend.random import manual_seed
from minigrad.contract import check_op
from minigrad.creation import arange, full, ones, tensor, zeros
from minigrad.derivatives import grad, value_and_grad
from minigrad.gradcheck import gradcheck
from minigrad.op import custom_op
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor

__all__ = [
    "__version__", "Parameter", "Tensor", "arange", "check_op", "custom_op", "data", "enable_grad", "errors", "full", "functional",
    "grad", "gradcheck", "higher_order", "io", "kernels", "manual_seed", "models", "nn", "no_grad", "ones", "optim", "tensor", "train",
    "value_and_grad", "zeros",
]  # fmt: skip
