"""WHAT each operation means, as readable bodies over any array namespace. How the hot ones run fast is in `kernels/`.

`@op` marks operations with a pullback of their own, `@composite` functions on tensors that are made of them.
"""

from minigrad.ops.activation import gelu, relu, sigmoid
from minigrad.ops.attention import attention, scaled_dot_product_attention
from minigrad.ops.dense import dense_add_norm, dense_gelu, dropout, linear, linears
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
    sqrt,
    subtract,
    tanh,
    transfer,
    where,
)
from minigrad.ops.index import check_rows, embedding, getitem, put_rows, take_rows, zeros_at
from minigrad.ops.linalg import matmul
from minigrad.ops.losses import cross_entropy, mse_loss
from minigrad.ops.normalisation import layer_norm
from minigrad.ops.reduce import logsumexp, max, mean, min, std, sum, var
from minigrad.ops.shape import broadcast_to, concatenate, expand_dims, reshape, split, stack, swapaxes, transpose
from minigrad.ops.softmax import allowed, log_softmax, softmax

__all__ = [
    "absolute", "add", "allowed", "astype", "attention", "broadcast_to", "check_rows", "concatenate", "cross_entropy", "dense_add_norm",
    "dense_gelu", "divide", "dropout", "embedding", "erf", "erfc", "exp", "expand_dims", "gelu", "getitem", "layer_norm", "linear",
    "linears", "log", "log_softmax", "logsumexp", "matmul", "max", "maximum", "mean", "min", "minimum", "mse_loss", "multiply", "negative",
    "power", "put_rows", "relu", "reshape", "scaled_dot_product_attention", "sigmoid", "softmax", "split", "sqrt", "stack", "std",
    "subtract", "sum", "swapaxes", "take_rows", "tanh", "transfer", "transpose", "var", "where", "zeros_at",
]  # fmt: skip
