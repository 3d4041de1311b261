"""Sums over rows on a GPU, as in the gradients of vectors, always added in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigrad.backend import Array
from minigrad.backend.gradients import RowSum
from minigrad.backend.side_stream import current_side_stream
from minigrad.kernels.cuda.launch import launch
from minigrad.kernels.cuda.table import ROWS, ceil_div

AT_ONCE = 256
"""Up to this many rows are added by one launch: a second one would take longer."""


class Sums:
    """Column sums of several arrays, side by side. With a side stream open, the launches for these sums alone are deferred until somebody
    needs the sums, and then run there. Otherwise they run at once, since deferring would keep their operands alive.

    rows: of the longest array. zeroed: whether other arrays have fewer, so that `partial` must be zeroed. `partial` holds the sums of each
    block of a kernel. Shapes: partial (blocks, width) float32.
    """

    def __init__(self, xp: Any, rows: int, width: int, zeroed: bool = False) -> None:
        self.partial, self._xp, self._zeroed = _partial(xp, rows, width), xp, zeroed
        self._kernels: list[tuple[str, Sequence[Any], int]] = []

    def add(self, kernel: str, arrays: Sequence[Array | None], place: int) -> None:
        """Have a kernel sum these arrays, which nobody may change before it runs; its first sum is column `place`."""
        self._kernels.append((kernel, arrays, place))
        if current_side_stream.get() is None:
            self._launch()

    def parts(self, *sizes: int) -> list[RowSum]:
        """The sums, split into parts."""
        read = [x for _, arrays, _ in self._kernels for x in arrays if x is not None]
        return summed(self._xp, self.partial, self._launch, read).parts(*sizes)

    def _launch(self) -> None:
        """Run the deferred launches."""
        if self._zeroed:
            self.partial.fill(0)
        kernels, self._kernels, self._zeroed = self._kernels, [], False
        for kernel, arrays, place in kernels:
            shape = arrays[0].shape
            launch(kernel, shape, *arrays, self.partial.reshape(-1)[place:], *shape, self.partial.shape[1])


def summed(xp: Any, x: Array, begin: Callable[[], None] = lambda: None, others: Sequence[Array] = ()) -> RowSum:
    """The sum of the rows of x, which nobody may change before it is computed. begin: writes x, from `others`."""

    def total(x: Array, out: Array | None) -> Array:
        begin()
        rows, width = x.shape
        while rows > AT_ONCE:
            fewer = _partial(xp, rows, width)
            launch("column_sums_float32", x.shape, x, fewer, rows, width, width)
            x, rows = fewer, len(fewer)
        out = xp.empty(width, "float32") if out is None else out
        launch("total_rows", (width,), x, out, rows, width)
        return out

    return RowSum(x, total, others)


def _partial(xp: Any, rows: int, width: int) -> Array:
    return xp.empty((ceil_div(rows, ROWS), width), "float32")
