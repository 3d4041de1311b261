"""Adapters for what moves elements about: shapes, joining and cutting, repetition, triangles, padding."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from oracle.op_db.driver import Book
from oracle.op_db.vocabulary import Adapter, F, NotCompared, axes, flat

from minigrad.tensor import Tensor


def reshape(x: Tensor, *shape: Any) -> Tensor:
    return x.reshape(flat(shape))


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    if x.ndim == 0:
        return x.reshape((1,))
    first, last = start_dim % x.ndim, end_dim % x.ndim
    if x.size == 0:
        raise NotCompared("-1 in the shape of an empty tensor")
    return x.reshape((*x.shape[:first], -1, *x.shape[last + 1 :]))


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    if x.ndim == 0:
        raise NotCompared("an axis of a 0-dimensional tensor: it has none, as in NumPy")
    return x.swapaxes(dim0, dim1)


def t(x: Tensor) -> Tensor:
    return x.T


def expand(x: Tensor, shape: Any) -> Tensor:
    if -1 in shape:
        raise NotCompared("-1 in expand means the length as it is; broadcast_to names all lengths, as in NumPy")
    return F.broadcast_to(x, shape)  # type: ignore[no-any-return]


def squeeze(x: Tensor, dim: Any = None) -> Tensor:
    axis = axes(x, dim)
    if axis is not None and any(x.shape[a] != 1 for a in (axis if isinstance(axis, tuple) else (axis,))):
        raise NotCompared("squeeze of an axis longer than 1: PyTorch leaves it, minigrad refuses it as NumPy does")
    if dim == ():
        raise NotCompared("squeeze of no axes")
    return F.squeeze(x, axis)  # type: ignore[no-any-return]


def concatenate(tensors: Any, dim: int = 0) -> Tensor:
    if len({x.ndim for x in tensors if isinstance(x, Tensor)}) > 1 and any(x.shape == (0,) for x in tensors):
        raise NotCompared("PyTorch skips a tensor of shape (0,) among others (a legacy of its own)")
    return F.concatenate(tensors, axis=dim)  # type: ignore[no-any-return]


def chunk(x: Tensor, chunks: int, dim: int = 0) -> Any:
    """At most `chunks` parts of equal length, the last of which may be shorter."""
    size = -(-x.shape[dim] // chunks)
    return F.split(x, list(range(size, x.shape[dim], size)), axis=dim)


def split(x: Tensor, sizes: Any, dim: int = 0) -> Any:
    if isinstance(sizes, int):
        return F.split(x, list(range(sizes, x.shape[dim], sizes)), axis=dim)
    return F.split(x, list(accumulate(sizes))[:-1], axis=dim)


def tensor_split(x: Tensor, sections: Any, dim: int = 0) -> Any:
    if isinstance(sections, Tensor):
        raise NotCompared("places to cut given as a tensor")
    if isinstance(sections, int) and x.shape[dim] % sections:
        raise NotCompared("unequal parts: minigrad's split divides evenly or is given the places")
    return F.split(x, sections if isinstance(sections, int) else list(sections), axis=dim)


def repeat(x: Tensor, *reps: Any) -> Tensor:
    return F.tile(x, flat(reps))  # type: ignore[no-any-return]


def repeat_interleave(x: Tensor, repeats: Any, dim: Any = None, *, output_size: Any = None) -> Tensor:
    """output_size follows from the repeats; PyTorch takes it to save a look at the GPU."""
    if isinstance(repeats, Tensor):
        repeats = repeats.tolist()
    return F.repeat(x, repeats, axis=axes(x, dim))  # type: ignore[no-any-return]


def triangle(name: str) -> Adapter:
    return lambda x, diagonal=0: getattr(F, name)(x, diagonal)


MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(x: Tensor, widths: Any, mode: str = "constant", value: Any = None) -> Tensor:
    """PyTorch names the pairs from the last axis backwards, NumPy from the first."""
    if any(w < 0 for w in widths):
        raise NotCompared("negative padding, which cuts")
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    pad_width = [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]
    values = {} if value is None else {"constant_values": value}
    return F.pad(x, pad_width, MODES[mode], **values)  # type: ignore[no-any-return]


BOOK = Book(
    {
        "reshape": reshape,
        "view": reshape,
        "reshape_as": lambda x, other: x.reshape(other.shape),
        "view_as": lambda x, other: x.reshape(other.shape),
        "ravel": lambda x: x.reshape((x.size,)),
        "flatten": flatten,
        "transpose": transpose,
        "permute": lambda x, dims: x.transpose(*dims) if dims else x.transpose(),
        "T": t,
        "t": t,
        "mT": lambda x: x.swapaxes(-1, -2),
        "movedim": lambda x, source, destination: F.moveaxis(x, source, destination),
        "unsqueeze": lambda x, dim: F.expand_dims(x, dim),
        "squeeze": squeeze,
        "squeeze:multiple": squeeze,
        "expand": expand,
        "expand_as": lambda x, other: F.broadcast_to(x, other.shape),
        "broadcast_to": expand,
        "cat": concatenate,
        "stack": lambda tensors, dim=0: F.stack(tensors, axis=dim),
        "chunk": chunk,
        "split": split,
        "split:list_args": split,
        "split_with_sizes": split,
        "tensor_split": tensor_split,
        "flip": lambda x, dims: F.flip(x, tuple(dims)),
        "fliplr": lambda x: F.flip(x, 1),
        "flipud": lambda x: F.flip(x, 0),
        "tile": repeat,
        "repeat": repeat,
        "repeat_interleave": repeat_interleave,
        "tril": triangle("tril"),
        "triu": triangle("triu"),
        "nn.functional.pad:constant": pad,
        "constant_pad_nd": lambda x, widths, value=0: pad(x, widths, "constant", value),
        "nn.functional.pad:reflect": pad,
        "nn.functional.pad:replicate": pad,
        "nn.functional.pad:circular": pad,
    },
    accepted={"t": {"expects a tensor with <= 2": "T reverses any number of axes, as in NumPy"}},
)
