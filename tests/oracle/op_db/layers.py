"""Adapters for PyTorch's list of layers (`module_db`).

An adapter has the constructor of PyTorch's layer and returns ours, with the names of its parameters where they differ and the call where
its inputs do. What it cannot express it refuses with a written reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from oracle.op_db.vocabulary import F, NotCompared, NotOffered, refuse

from minigrad import nn
from minigrad.tensor import Tensor


@dataclass
class Ours:
    """Our layer; our names of PyTorch's parameters where they differ (several are stacked); how it is called."""

    module: nn.Module
    names: dict[str, list[str]] = field(default_factory=dict)
    call: Callable[..., Any] | None = None


def plain(layer: type[nn.Module]) -> Callable[..., Ours]:
    """A layer with PyTorch's own arguments."""
    return lambda *args, **kwargs: Ours(layer(*args, **kwargs))


def loss(layer: type[nn.Module]) -> Callable[..., Ours]:
    """A loss with PyTorch's keyword arguments; it has the classes on axis 1, we have them on the last."""

    def build(**options: Any) -> Ours:
        ours = layer(**options)

        def call(x: Tensor, target: Tensor) -> Tensor:
            if x.ndim == 0 and options.get("reduction") == "batchmean":
                raise NotCompared("the mean over a batch of a single number, which has no batch axis")
            if x.ndim != 1 and layer in (nn.CrossEntropyLoss, nn.NLLLoss):
                target = F.moveaxis(target, 1, -1) if target.shape == x.shape else target
                x = F.moveaxis(x, 1, -1)
            return ours(x, target)  # type: ignore[no-any-return]

        return Ours(ours, {}, call)

    return build


def reduced(layer: Any) -> Callable[..., Ours]:
    """An activation over an axis, of which a single number has none."""

    def build(dim: int) -> Ours:
        ours = layer(dim)

        def call(x: Tensor) -> Tensor:
            if x.ndim == 0:
                raise NotCompared("an axis of a 0-dimensional tensor: it has none, as in NumPy")
            return ours(x)  # type: ignore[no-any-return]

        return Ours(ours, {}, call)

    return build


def softplus(beta: float = 1.0, threshold: float = 20.0) -> Ours:
    refuse(beta=None if beta == 1.0 else beta, threshold=None if threshold == 20.0 else threshold)
    return Ours(nn.Softplus())


def row_norm(layer: Any) -> Callable[..., Ours]:
    def build(shape: list[int], eps: float, elementwise_affine: bool = True, bias: bool = True) -> Ours:
        if len(shape) > 1:
            raise NotCompared("normalisation over several axes: minigrad's is over the last")
        if layer is nn.LayerNorm:
            refuse(elementwise_affine="False" if not elementwise_affine else None, bias="False" if not bias else None)
            return Ours(layer(shape[0], eps))
        return Ours(layer(shape[0], eps, elementwise_affine))

    return build


def channel_norm(layer: Any) -> Callable[..., Ours]:
    def build(*args: Any, bias: bool = True) -> Ours:
        if not bias:
            raise NotCompared("a scale without a shift")
        ours = layer(*args)

        def call(x: Tensor) -> Tensor:
            if x.shape[0] == 0 and ours.training and layer in (nn.BatchNorm1d, nn.BatchNorm2d):
                raise NotCompared("differs by convention: the statistics of an empty batch are refused")
            return ours(x)  # type: ignore[no-any-return]

        return Ours(ours, {}, call)

    return build


def spatial(layer: Any, axes: int) -> Callable[..., Ours]:
    """Convolution and pooling."""

    def build(*args: Any, return_indices: bool = False, divisor_override: Any = None, **options: Any) -> Ours:
        refuse(divisor_override=divisor_override)
        ours = layer(*args, **options)

        def call(x: Tensor) -> Any:
            if x.ndim != axes + 2:
                raise NotCompared("images without a batch axis")
            return (ours(x), NotOffered("places")) if return_indices else ours(x)

        return Ours(ours, {}, call)

    return build


def in_batches(x: Tensor, batch_first: bool) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """x as (batch, length, d), and the way back: PyTorch also takes (length, d) and (length, batch, d)."""
    if x.ndim == 2:
        return x.reshape((1, *x.shape)), lambda y: y.reshape(y.shape[1:])
    return (x, lambda y: y) if batch_first else (x.swapaxes(0, 1), lambda y: y.swapaxes(0, 1))


def recurrent(layer: Any) -> Callable[..., Ours]:
    def build(proj_size: int = 0, batch_first: bool = False, **options: Any) -> Ours:
        refuse(proj_size=proj_size or None)
        ours = layer(**options)

        def call(x: Tensor, state: Any = None) -> Any:
            sequences, back = in_batches(x, batch_first)
            if state is not None and x.ndim == 2:  # a state has an axis of sequences too
                state = tuple(F.expand_dims(s, 1) for s in state) if isinstance(state, tuple) else F.expand_dims(state, 1)
            y, last = ours(sequences, state=state)
            states = last if isinstance(last, tuple) else (last,)
            return back(y), [F.squeeze(s, 1) if x.ndim == 2 else s for s in states]

        return Ours(ours, {}, call)

    return build


ENCODER = {
    **{f"self_attn.in_proj_{kind}": [f"attention.{part}.{kind}" for part in ("query", "key", "value")] for kind in ("weight", "bias")},
    **{f"self_attn.out_proj.{kind}": [f"attention.output.{kind}"] for kind in ("weight", "bias")},
}


def encoder_call(ours: nn.Module, batch_first: bool) -> Callable[..., Any]:
    def call(x: Tensor, mask: Any = None, src_mask: Any = None, src_key_padding_mask: Any = None) -> Tensor:
        if src_key_padding_mask is not None:
            raise NotCompared("differs by convention: outputs at padding are zeros here (test_nn_oracle compares the others)")
        if mask is not None or src_mask is not None:
            raise NotCompared("a mask of query-key pairs: minigrad's layers know padding and causal=True")
        rows, back = in_batches(x, batch_first)
        return back(ours(rows))

    return call


def encoder_layer(
    d_model: int,
    nhead: int,
    dim_feedforward: int,
    dropout: float,
    activation: Any = "relu",
    batch_first: bool = False,
    norm_first: bool = False,
    bias: bool = True,
) -> Ours:
    refuse(bias="False" if not bias else None)
    name = activation if isinstance(activation, str) else activation.__name__
    ours = nn.TransformerEncoderLayer(d_model, nhead, dim_feedforward, dropout, name, norm_first)
    return Ours(ours, ENCODER, encoder_call(ours, batch_first))


def encoder(layer: Any, num_layers: int) -> Ours:
    """PyTorch's stack copies a layer."""
    if layer.norm_first:
        raise NotCompared("a pre-norm stack: minigrad's ends with a layer norm, PyTorch's does not by default")
    refuse(bias="False" if layer.linear1.bias is None else None)
    sizes = (layer.self_attn.embed_dim, layer.self_attn.num_heads, layer.linear1.out_features)
    ours = nn.TransformerEncoder(num_layers, *sizes, layer.dropout.p, layer.activation.__name__)
    names = {
        f"layers.{i}.{theirs}": [f"layers.{i}.{part}" for part in parts] for i in range(num_layers) for theirs, parts in ENCODER.items()
    }
    return Ours(ours, names, encoder_call(ours, layer.self_attn.batch_first))


def embedding(num_embeddings: int, embedding_dim: int) -> Ours:
    return Ours(nn.Embedding(num_embeddings, embedding_dim))


ADAPTERS: dict[str, Callable[..., Ours]] = {
    "Linear": plain(nn.Linear),
    "Embedding": embedding,
    **{name: plain(getattr(nn, name)) for name in ("ReLU", "LeakyReLU", "Sigmoid", "SiLU", "Tanh", "GELU")},
    "Softplus": softplus,
    "Softmax": reduced(nn.Softmax),
    "LogSoftmax": reduced(nn.LogSoftmax),
    "LayerNorm": row_norm(nn.LayerNorm),
    "RMSNorm": row_norm(nn.RMSNorm),
    **{name: channel_norm(getattr(nn, name)) for name in ("GroupNorm", "BatchNorm1d", "BatchNorm2d")},
    **{f"{kind}{axes}d": spatial(getattr(nn, f"{kind}{axes}d"), axes) for kind, axes in product(("Conv", "MaxPool", "AvgPool"), (1, 2))},
    **{name: recurrent(getattr(nn, name)) for name in ("RNN", "GRU", "LSTM")},
    "TransformerEncoderLayer": encoder_layer,
    "TransformerEncoder": encoder,
    **{
        f"{name}Loss": loss(getattr(nn, f"{name}Loss"))
        for name in ("CrossEntropy", "NLL", "BCEWithLogits", "MSE", "L1", "SmoothL1", "Huber", "KLDiv")
    },
}
