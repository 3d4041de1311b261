"""Adapters for what acts on each element by itself: arithmetic, elementary functions, comparisons, logic, activations."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

from oracle.op_db.driver import Book
from oracle.op_db.vocabulary import Adapter, F, NotCompared, axes, operators_need_tensors, refuse

from minigrad import nn
from minigrad.tensor import Tensor


def operation(function: Callable[[Any, Any], Any]) -> Adapter:
    """An operator of two operands, of which one at least is a tensor."""

    def adapter(x: Any, y: Any) -> Any:
        operators_need_tensors(x, y)
        return function(x, y)

    return adapter


def reflected(function: Callable[[Any, Any], Any]) -> Adapter:
    """The operator with its operands exchanged: PyTorch's __radd__ and its like."""
    return operation(lambda x, y: function(y, x))


def scaled(function: Callable[[Any, Any], Any]) -> Adapter:
    def adapter(x: Any, y: Any, *, alpha: Any = 1) -> Any:
        refuse(alpha=None if alpha == 1 else alpha)
        return operation(function)(x, y)

    return adapter


def divide(x: Any, y: Any, *, rounding_mode: Any = None) -> Tensor:
    refuse(rounding_mode=rounding_mode)
    return operation(operator.truediv)(x, y)  # type: ignore[no-any-return]


def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    if mask.ndim > x.ndim:
        raise NotCompared("a mask larger than x: the mask broadcasts to x, not x to the mask")
    return F.masked_fill(x, mask, value)  # type: ignore[no-any-return]


def rounded(x: Tensor, *, decimals: int = 0) -> Tensor:
    refuse(decimals=None if decimals == 0 else decimals)
    return F.round(x)  # type: ignore[no-any-return]


A_NUMBER = "a number in the place of a tensor: minigrad's operations take numbers"

UNARY = {
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt", "rsqrt": "rsqrt", "square": "square", "sin": "sin",
    "cos": "cos", "tanh": "tanh", "sigmoid": "sigmoid", "erf": "erf", "erfc": "erfc", "sign": "sign", "nn.functional.relu": "relu",
    "nn.functional.silu": "silu", "floor": "floor", "ceil": "ceil", "isnan": "isnan", "isfinite": "isfinite",
}  # fmt: skip

CONVERSIONS = {
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "bool": "bool",
}

BOOK = Book(
    {
        **{name: partial(lambda ours, x: getattr(F, ours)(x), ours) for name, ours in UNARY.items()},
        "abs": abs,
        "neg": operator.neg,
        "reciprocal": lambda x: 1.0 / x,
        "add": scaled(operator.add),
        "sub": scaled(operator.sub),
        "rsub": scaled(lambda x, y: y - x),
        "mul": operation(operator.mul),
        "div:no_rounding_mode": divide,
        "true_divide": divide,
        "pow": operation(operator.pow),
        "__radd__": reflected(operator.add),
        "__rsub__": reflected(operator.sub),
        "__rmul__": reflected(operator.mul),
        "__rdiv__": reflected(operator.truediv),
        "__rpow__": reflected(operator.pow),
        "maximum": lambda x, y: F.maximum(x, y),
        "max:binary": lambda x, y: F.maximum(x, y),
        "minimum": lambda x, y: F.minimum(x, y),
        "min:binary": lambda x, y: F.minimum(x, y),
        "clamp_min": lambda x, least: F.maximum(x, least),
        "clamp_max": lambda x, most: F.minimum(x, most),
        "nn.functional.hardtanh": lambda x, min_val=-1.0, max_val=1.0: F.clip(x, min_val, max_val),
        "nn.functional.relu6": lambda x: F.clip(x, 0.0, 6.0),
        "nn.functional.leaky_relu": lambda x, negative_slope=0.01: nn.LeakyReLU(negative_slope)(x),
        "where": lambda x, condition, other: F.where(condition, x, other),
        "masked_fill": masked_fill,
        "eq": lambda x, y: F.equal(x, y),
        "ne": lambda x, y: F.not_equal(x, y),
        "lt": operation(operator.lt),
        "le": operation(operator.le),
        "gt": operation(operator.gt),
        "ge": operation(operator.ge),
        "logical_and": operation(operator.and_),
        "logical_or": operation(operator.or_),
        "logical_xor": operation(operator.xor),
        "logical_not": operator.invert,
        "bitwise_and": operation(operator.and_),
        "bitwise_or": operation(operator.or_),
        "bitwise_xor": operation(operator.xor),
        "bitwise_not": operator.invert,
        "__rand__": reflected(operator.and_),
        "__ror__": reflected(operator.or_),
        "__rxor__": reflected(operator.xor),
        "nn.functional.gelu": lambda x, *, approximate="none": F.gelu(x, approximate),
        "round": rounded,
        "round:decimals_0": rounded,
        "softmax": lambda x, dim: F.softmax(x, axis=axes(x, dim)),
        "softmax:with_dtype": lambda x, dim: F.softmax(x, axis=axes(x, dim)),
        "log_softmax": lambda x, dim: F.log_softmax(x, axis=axes(x, dim)),
        "log_softmax:with_dtype": lambda x, dim: F.log_softmax(x, axis=axes(x, dim)),
        **{name: partial(lambda dtype, x: x.to(dtype), dtype) for name, dtype in CONVERSIONS.items()},
    },
    accepted={
        **{f"__{name}__": {"": A_NUMBER} for name in ("radd", "rdiv", "rmul", "rand", "ror", "rxor")},
        **{name: {"": A_NUMBER} for name in ("rsub", "eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum", "max:binary", "min:binary")},
        **{name: {"": A_NUMBER} for name in ("clamp_min", "clamp_max")},
        **{name: {"": A_NUMBER} for name in ("logical_and", "logical_or", "logical_xor")},
        "nn.functional.hardtanh": {"min_val cannot be greater": "bounds the wrong way round: the upper one wins, as in NumPy"},
        "masked_fill": {"0-dimensional value tensor": "a value of one element broadcasts"},
    },
    dtypes={f"logical_{name}": ("bool",) for name in ("and", "or", "xor", "not")},  # & | ^ ~ are bitwise on integers
    float32={
        "pow": (1e-5, 1e-5),  # 3e-6: the gradient of a broadcast exponent is a sum whose terms cancel
    },
)
