"""Operations: WHAT each computes, as readable bodies over any array namespace. HOW the hot ones run fast is in `kernels/`.

`@op` marks operations with a pullback of their own, `@composite` functions on tensors that are composed of operations.
"""

from minigrad.ops.activation import gelu, relu, sigmoid, silu, softplus
from minigrad.ops.attention import attention, scaled_dot_product_attention
from minigrad.ops.blocks import attention_block, feed_forward
from minigrad.ops.conv import conv, conv1d, conv2d
from minigrad.ops.dense import dense_add_norm, dense_gelu, dense_tanh, dropout, linear, linears
from minigrad.ops.discrete import (
    NON_DIFFERENTIABLE,
    argmax,
    argmin,
    argsort,
    ceil,
    equal,
    floor,
    greater,
    greater_equal,
    isfinite,
    isnan,
    less,
    less_equal,
    not_equal,
    one_hot,
    round,
    sign,
    without_gradient,
)
from minigrad.ops.einsum import einsum
from minigrad.ops.elementwise import (
    absolute,
    add,
    astype,
    clip,
    cos,
    divide,
    erf,
    erfc,
    exp,
    expm1,
    ldexp,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    rsqrt,
    sin,
    sqrt,
    square,
    subtract,
    tanh,
    transfer,
    where,
)
from minigrad.ops.embeddings import embed_norm
from minigrad.ops.index import check_rows, embedding, getitem, placed_rows, put_rows, scatter_add, take_along_axis, take_rows, zeros_at
from minigrad.ops.linalg import matmul, outer
from minigrad.ops.loss_arguments import class_weights, label_ids
from minigrad.ops.losses import (
    bce_with_logits,
    cosine_similarity,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
    soft_cross_entropy,
)
from minigrad.ops.normalisation import batch_norm, group_norm, layer_norm, rms_norm, standardise
from minigrad.ops.padding import pad
from minigrad.ops.pool import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d
from minigrad.ops.recurrent import gru, lstm, rnn
from minigrad.ops.reduce import cumsum, logsumexp, max, mean, min, norm, prod, std, sum, var
from minigrad.ops.segments import segment_max, segment_mean
from minigrad.ops.shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    masked_fill,
    moveaxis,
    repeat,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    tile,
    transpose,
    tril,
    triu,
)
from minigrad.ops.softmax import allowed, log_softmax, softmax
from minigrad.ops.sorting import sort, topk
from minigrad.ops.windows import fold, unfold

__all__ = [
    "NON_DIFFERENTIABLE", "absolute", "add", "allowed", "argmax", "argmin", "argsort", "astype", "attention", "attention_block",
    "avg_pool1d", "avg_pool2d", "batch_norm", "bce_with_logits", "broadcast_to", "ceil", "check_rows", "class_weights", "clip",
    "concatenate", "conv", "conv1d", "conv2d", "cos", "cosine_similarity", "cross_entropy", "cumsum", "dense_add_norm", "dense_gelu",
    "dense_tanh", "divide", "dropout", "einsum", "embed_norm", "embedding", "equal", "erf", "erfc", "exp", "expand_dims", "expm1",
    "feed_forward", "flip", "floor", "fold", "gelu", "getitem", "greater", "greater_equal", "group_norm", "gru", "huber_loss", "isfinite",
    "isnan", "kl_div", "l1_loss", "label_ids", "layer_norm", "ldexp", "less", "less_equal", "linear", "linears", "log", "log1p",
    "log_softmax", "logsumexp", "lstm", "masked_fill", "matmul", "max", "max_pool1d", "max_pool2d", "maximum", "mean", "min", "minimum",
    "moveaxis", "mse_loss", "multiply", "negative", "nll_loss", "norm", "not_equal", "one_hot", "outer", "pad", "placed_rows", "power",
    "prod", "put_rows", "relu", "repeat", "reshape", "rms_norm", "rnn", "round", "rsqrt", "scaled_dot_product_attention", "scatter_add",
    "segment_max", "segment_mean", "sigmoid", "sign", "silu", "sin", "smooth_l1_loss", "soft_cross_entropy", "softmax", "softplus", "sort",
    "split", "sqrt", "square", "squeeze", "stack", "standardise", "std", "subtract", "sum", "swapaxes", "take_along_axis", "take_rows",
    "tanh", "tile", "topk", "transfer", "transpose", "tril", "triu", "unfold", "var", "where", "without_gradient", "zeros_at",
]  # fmt: skip
