"""float32 arrays in bf16 or fp16, for products with such operands: each array is shortened once.

A kernel also writes its output in the short format if a product reads it next. An optimizer's weights are shortened by a few launches at
the start of a step inside `weights_at_once`, and elsewhere by one launch per block and forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary, ref

from minigrad.backend import Array
from minigrad.backend.gemm import DTYPES, SHORT
from minigrad.backend.layout import address, is_contiguous
from minigrad.backend.precision import gpu_precision
from minigrad.backend.side_stream import current_side_stream
from minigrad.modes import Mode


def shortened(xp: Any, x: Array, precision: str) -> Array:
    """x as products of this precision take it: unchanged in float32, or in bf16 or fp16."""
    if precision not in SHORT:
        return x
    noted = _short_copies.get(id(x))
    if noted is not None and noted[0]() is x and noted[1].dtype == DTYPES[precision]:
        return noted[1]
    weights = _short_weights.get()
    found = None if weights is None or weights.precision != precision else weights.part(x)
    return xp.shortened(xp.ascontiguousarray(x), precision) if found is None else found


# ---------------------------------------------------------------- outputs
_short_copies: dict[int, tuple[ref[Array], Array]] = {}


def register_short(x: Array, short: Array) -> None:
    """Register for `shortened` the short copy of x that a kernel has written, for as long as x lives. Nobody may change x."""
    key = id(x)
    _short_copies[key] = ref(x, lambda _: _short_copies.pop(key, None)), short


def short_outputs(xp: Any, x: Array) -> list[Array | None]:
    """Output arrays for a kernel that writes x, a new array, to write it in the short formats too: for each of `SHORT` an array, registered
    as x's short copy, if products have this precision, else None."""
    precision = gpu_precision()
    if precision in SHORT:
        register_short(x, xp.empty(x.shape, DTYPES[precision]))
    return [_short_copies[id(x)][1] if name == precision else None for name in SHORT]


# ---------------------------------------------------------------- weights
GAP = 1 << 17
"""Up to this many numbers between two weights are shortened along with them: a separate launch would take longer."""

ALIGNMENT = 128
"""A weight shortened along with others begins at a multiple of this many numbers, 256 bytes as for separate arrays. cuBLAS may choose its
algorithm by the operands' alignment, and a captured step must equal the eager one to the last bit."""


class _ShortWeights:
    """Short copies of some stretches of a flat array. stretches: the (start, stop) of each.

    requested: all pieces of the array that have been requested.
    """

    def __init__(self, xp: Any, flat: Array, precision: str, stretches: Iterable[tuple[int, int]]) -> None:
        self.flat, self.precision = flat, precision
        self._memory = flat if flat.base is None else flat.base
        self.requested: set[tuple[int, int]] = set()
        self._parts: list[tuple[int, int, Array]] = []
        self._side = current_side_stream.get()

        def shorten() -> None:
            self._parts += [(start, stop, xp.shortened(flat[start:stop], precision)) for start, stop in stretches]

        if self._side is None:
            shorten()
        else:
            self._side.run(shorten, self, 0)  # size 0: it keeps nothing alive that would not live anyway

    def part(self, x: Array) -> Array | None:
        """The short copy of x; None if x is not a piece of the flat array, or lies in none of its stretches."""
        if x.base is not self._memory or not is_contiguous(x):
            return None
        start = (address(x) - address(self.flat)) // self.flat.itemsize
        stop = start + x.size
        if not 0 <= start <= stop <= self.flat.size:
            return None
        self.requested.add((start, stop))
        if self._side is not None:
            self._side.finish(self)
        for first, last, short in self._parts:
            if first <= start and stop <= last and (start - first) % ALIGNMENT == 0:
                return short[start - first : stop - first].reshape(x.shape)
        return None


_short_weights: ContextVar[_ShortWeights | None] = ContextVar("minigrad_short_weights", default=None)

_requested: WeakKeyDictionary[Any, set[tuple[int, int]]] = WeakKeyDictionary()
"""By arena, the pieces requested the last time."""


@contextmanager
def weights_at_once(arena: Any) -> Iterator[None]:
    """Inside: the weights of an optimizer's arena that were requested the last time are shortened at the start, and nobody may change them.
    For captured steps, whose first trial run finds out which they are."""
    precision = gpu_precision()
    if precision not in SHORT:
        yield
        return
    weights = _ShortWeights(arena.xp, arena.data, precision, stretches(_requested.get(arena, ())))
    with Mode(_short_weights, weights):
        yield
    _requested[arena] = weights.requested


def stretches(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pieces, merged where they are neighbours or nearly so. A weight that would be misaligned (`ALIGNMENT`) starts a new stretch."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(pieces):
        if found and start - found[-1][1] <= GAP and (start - found[-1][0]) % ALIGNMENT == 0:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found
