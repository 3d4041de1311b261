"""minigrad: deep learning from scratch over NumPy and CuPy, with BERT that loads published weights by name.

import minigrad as mg
x = mg.tensor([1.0, 2.0], requires_grad=True)
(x * x).sum().backward()
x.grad                                    # [2., 4.]

Importing it loads tensors, operations and derivatives only. The subpackages built on them are loaded on first use, so that a small script
or a short command does not wait for models that it never touches.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from minigrad import (
    errors,
    functional,
    interpreter,  # noqa: F401 - it teaches the backend about Tensors, for second derivatives
    kernels,
)
from minigrad._version import __version__
from minigrad.anomaly import detect_anomaly
from minigrad.backend.precision import precision
from minigrad.backend.random import manual_seed
from minigrad.creation import arange, eye, full, ones, rand, randn, tensor, zeros
from minigrad.derivatives import grad, hessian, hvp, jacobian, value_and_grad, vjp
from minigrad.op import custom_op
from minigrad.parameter import Parameter
from minigrad.recompute import recompute
from minigrad.tape import enable_grad, higher_order, no_grad
from minigrad.tensor import Tensor

if TYPE_CHECKING:
    from minigrad import data, io, models, nn, optim, train, workers
    from minigrad.audit import audit
    from minigrad.contract import check_op
    from minigrad.gradcheck import gradcheck
    from minigrad.pipeline import pipeline

__all__ = [
    "Parameter", "Tensor", "__version__", "arange", "audit", "check_op", "custom_op", "data", "detect_anomaly", "enable_grad", "errors",
    "eye", "full", "functional", "grad", "gradcheck", "hessian", "higher_order", "hvp", "io", "jacobian", "kernels", "manual_seed",
    "models", "nn", "no_grad", "ones", "optim", "pipeline", "precision", "rand", "randn", "recompute", "tensor", "train", "value_and_grad",
    "vjp", "workers", "zeros",
]  # fmt: skip

_SUBPACKAGES = ("data", "io", "models", "nn", "optim", "train", "workers")
"""Subpackages that are imported on first use."""

_LAZY_FUNCTIONS = {
    "audit": "minigrad.audit",
    "check_op": "minigrad.contract",
    "gradcheck": "minigrad.gradcheck",
    "pipeline": "minigrad.pipeline",
}
"""Functions whose module is imported on first use, each with that module."""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # type checkers see the imports above; with __getattr__ they would accept every misspelt name

    def __getattr__(name: str) -> Any:
        if name in _SUBPACKAGES:
            return import_module(f"minigrad.{name}")
        if name in _LAZY_FUNCTIONS:
            return getattr(import_module(_LAZY_FUNCTIONS[name]), name)
        raise AttributeError(f"module 'minigrad' has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps `audit`, `gradcheck` and `pipeline` functions, although importing a submodule sets the attribute of its name to the module."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, getattr(value, name) if name in _LAZY_FUNCTIONS and isinstance(value, ModuleType) else value)


sys.modules[__name__].__class__ = _Package
