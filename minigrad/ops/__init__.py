"""WHAT each operation means, as readable bodies over any array namespace. How the hot ones run fast is in `kernels/`."""

from minigrad.ops.elementwise import (
    absolute,
    add,
    astype,
    divide,
    erf,
    erfc,
    exp,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    sqrt,
    subtract,
    tanh,
    transfer,
    where,
)
from minigrad.ops.index import check_rows, embedding, getitem, put_rows, take_rows, zeros_at
from minigrad.ops.linalg import linear, linears, matmul
from minigrad.ops.nn import attention, cross_entropy, dense_add_norm, dense_gelu, dropout, gelu, layer_norm, log_softmax, softmax
from minigrad.ops.reduce import logsumexp, max, mean, min, sum, var
from minigrad.ops.shape import broadcast_to, concatenate, reshape, swapaxes, transpose

__all__ = [
    "absolute", "add", "astype", "attention", "broadcast_to", "check_rows", "concatenate", "cross_entropy", "dense_add_norm",
    "dense_gelu", "divide", "dropout", "embedding", "erf", "erfc", "exp", "gelu", "getitem", "layer_norm", "linear", "linears", "log",
    "log_softmax", "logsumexp", "matmul", "max", "maximum", "mean", "min", "minimum", "multiply", "negative", "power", "put_rows",
    "relu", "reshape", "sigmoid", "softmax", "sqrt", "subtract", "sum", "swapaxes", "take_rows", "tanh", "transfer", "transpose", "var",
    "where", "zeros_at",
]  # fmt: skip
