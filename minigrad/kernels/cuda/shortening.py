"""float32 arrays in two bytes a number, for products whose operands are bf16 or fp16: each is shortened once.

A kernel leaves its output short to whoever multiplies it next. The weights of an optimizer are shortened by few launches where a step
begins, inside of `weights_at_once`, and elsewhere by one for each block in each forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary, ref

from minigrad.backend import Array
from minigrad.backend.branch import branch
from minigrad.backend.gemm import DTYPES, SHORT
from minigrad.backend.layout import address, is_contiguous
from minigrad.backend.precision import gpu_precision
from minigrad.modes import Mode


def shortened(xp: Any, x: Array, precision: str) -> Array:
    """x as products of this precision take it: float32 as it is, or in two bytes a number."""
    if precision not in SHORT:
        return x
    noted = _shorts.get(id(x))
    if noted is not None and noted[0]() is x and noted[1].dtype == DTYPES[precision]:
        return noted[1]
    image = _image.get()
    found = None if image is None or image.precision != precision else image.part(x)
    return xp.shortened(xp.ascontiguousarray(x), precision) if found is None else found


# ---------------------------------------------------------------- outputs
_shorts: dict[int, tuple[ref[Array], Array]] = {}


def note_short(x: Array, short: Array) -> None:
    """Have `shortened` find what a kernel has written in two bytes a number beside x, for as long as x lives. Nobody may change x."""
    key = id(x)
    _shorts[key] = ref(x, lambda _: _shorts.pop(key, None)), short


def noted_short(xp: Any, x: Array) -> list[Array | None]:
    """Where a kernel that writes x, which is new, is to leave it short: an array for the precision of products, noted as x's, in the place
    that it has in `SHORT`; None for the others."""
    precision = gpu_precision()
    if precision in SHORT:
        note_short(x, xp.empty(x.shape, DTYPES[precision]))
    return [_shorts[id(x)][1] if name == precision else None for name in SHORT]


# ---------------------------------------------------------------- weights
GAP = 1 << 17
"""So many numbers between two weights are shortened along with them: a launch of its own would take longer."""

ALIGNED = 128
"""Numbers to a multiple of which a weight begins in what is shortened with others: 256 bytes, as arrays of their own do. cuBLAS may choose
its algorithm by where operands begin, and a recorded step is to be the plain one to the last bit."""


class _Image:
    """Stretches of a flat array, shortened. stretches: from where to where.

    asked: all pieces of it that have been asked for.
    """

    def __init__(self, xp: Any, flat: Array, precision: str, stretches: Iterable[tuple[int, int]]) -> None:
        self.flat, self.precision = flat, precision
        self._memory = flat if flat.base is None else flat.base
        self.asked: set[tuple[int, int]] = set()
        self._parts: list[tuple[int, int, Array]] = []
        self._beside = branch.get()

        def shorten() -> None:
            self._parts += [(start, stop, xp.shortened(flat[start:stop], precision)) for start, stop in stretches]

        if self._beside is None:
            shorten()
        else:
            self._beside.run(shorten, self, 0)  # nothing that would not stay without it

    def part(self, x: Array) -> Array | None:
        """What x is, shortened. None if x is no piece of the flat array, or of none of its stretches."""
        if x.base is not self._memory or not is_contiguous(x):
            return None
        start = (address(x) - address(self.flat)) // self.flat.itemsize
        stop = start + x.size
        if not 0 <= start <= stop <= self.flat.size:
            return None
        self.asked.add((start, stop))
        if self._beside is not None:
            self._beside.finish(self)
        for first, last, short in self._parts:
            if first <= start and stop <= last and (start - first) % ALIGNED == 0:
                return short[start - first : stop - first].reshape(x.shape)
        return None


_image: ContextVar[_Image | None] = ContextVar("minigrad_short_weights", default=None)

_asked: WeakKeyDictionary[Any, set[tuple[int, int]]] = WeakKeyDictionary()
"""By arena, the pieces that were asked for the last time."""


@contextmanager
def weights_at_once(arena: Any) -> Iterator[None]:
    """Inside, the weights of an optimizer's arena are shortened at the beginning, as many as were asked for the last time, and nobody may
    change them: for steps that are recorded, whose first run finds out which they are."""
    precision = gpu_precision()
    if precision not in SHORT:
        yield
        return
    image = _Image(arena.xp, arena.data, precision, stretches(_asked.get(arena, ())))
    with Mode(_image, image):
        yield
    _asked[arena] = image.asked


def stretches(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pieces, those joined that are neighbours or nearly so. Where a weight would not begin as `ALIGNED` says, another stretch does."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(pieces):
        if found and start - found[-1][1] <= GAP and (start - found[-1][0]) % ALIGNED == 0:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found
