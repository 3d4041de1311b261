"""Counter-based random numbers: a draw depends on names (seed, step, place), never on what was drawn before.

The source is NumPy's Philox 4x64 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) used as a pure
function: key = (seed, purpose), counter = (block, sequence number within the step, site, step). So the same units are dropped whether a
batch is padded or packed, whole or in micro-batches, in one process or in several, and no mask needs to be stored: `Draw` is a recipe that
can be evaluated again in the backward pass.

(seed, step) belong to the context (thread, task). An optimizer advances the step.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np

from minigrad.errors import ArgumentError
from minigrad.packing import IntArray, Packing

DROPOUT, INIT, SHUFFLE = 1, 2, 3
"""Purposes: the second word of the key."""

UNITS = 16
"""Dropout units per Philox block: four 64-bit words, read as sixteen 16-bit numbers."""

_local = threading.local()


class Stream:
    """The position of one context in its random numbers."""

    def __init__(self, seed: int = 0, step: int = 0) -> None:
        self.seed, self.step = seed, step
        self.ordinals: dict[str, IntArray] = {}
        self.init = np.random.Generator(np.random.Philox(key=[seed, INIT]))

    def take_site(self, path: str, numbers: IntArray) -> int:
        """The site of the next draw at `path` for the sequences `numbers`.

        A site is a hash of the path and of how many draws these sequences have had there within this step. Counting by sequence lets a step
        be computed in micro-batches: each part is the first draw for its own sequences.
        """
        counts = self.ordinals.get(path)
        top = int(numbers.max()) + 1
        if counts is None or len(counts) < top:
            grown = np.zeros(top, np.int64)
            if counts is not None:
                grown[: len(counts)] = counts
            counts = self.ordinals[path] = grown
        ordinal = int(counts[numbers].max())
        counts[numbers] = ordinal + 1
        return site_of(path, ordinal)

    def copy(self) -> Stream:
        """An independent stream at the same position."""
        copy = Stream(self.seed, self.step)
        copy.ordinals = {path: counts.copy() for path, counts in self.ordinals.items()}
        copy.init.bit_generator.state = self.init.bit_generator.state
        return copy

    def advance(self) -> None:
        """Begin the next step."""
        self.step += 1
        self.ordinals.clear()


_stream: ContextVar[Stream] = ContextVar("minigrad_stream")


def current() -> Stream:
    """The context's stream; a context that never called `manual_seed` starts at seed 0, step 0."""
    stream = _stream.get(None)
    if stream is None:
        stream = Stream()
        _stream.set(stream)
    return stream


def manual_seed(seed: int) -> None:
    """Restart this thread's random numbers: initialisation and dropout follow `seed` (0 to 2**63 - 1).

    A thread that never calls this draws from seed 0. Asynchronous tasks share the stream of the context they were started from.
    """
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= int(seed) < 2**63:
        raise ArgumentError(f"seed must be an integer from 0 to 2**63 - 1, got {seed!r}")
    _stream.set(Stream(int(seed)))


@contextmanager
def at(seed: int, step: int) -> Iterator[None]:
    """Inside: the random numbers of (seed, step), as if nothing had been drawn yet. Restored on leaving."""
    token = _stream.set(Stream(seed, step))
    try:
        yield
    finally:
        _stream.reset(token)


@contextmanager
def replay(start: Stream | None = None) -> Iterator[None]:
    """Inside: the draws that would come next from `start` (default: the context's stream), without advancing it or the context's stream.

    Finite differences need this: a function with dropout must be the same function each time. So does recomputation, which starts from a
    copy made earlier.
    """
    token = _stream.set((current() if start is None else start).copy())
    try:
        yield
    finally:
        _stream.reset(token)


def shuffled(n: int, seed: int, epoch: int) -> IntArray:
    """A permutation of range(n), the same for the same (seed, epoch) on every machine."""
    return np.random.Generator(np.random.Philox(key=[seed, SHUFFLE], counter=[0, 0, 0, epoch])).permutation(n)


@lru_cache(maxsize=4096)
def site_of(path: str, ordinal: int) -> int:
    """64 bits that identify draw number `ordinal` at `path`."""
    from hashlib import blake2b  # here, because it also loads OpenSSL, which `import minigrad` does not need

    return int.from_bytes(blake2b(f"{path}#{ordinal}".encode(), digest_size=8).digest(), "little")


def words(seed: int, purpose: int, sequence: int, site: int, step: int, blocks: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The first `blocks` Philox blocks of a (sequence, site, step) as 16-bit numbers. Shapes: (16 * blocks,).

    NumPy's generator increments the counter before it emits, so its first block is counter 1, not 0; a kernel that computes the same words
    must start at 1 too.
    """
    philox = getattr(_local, "philox", None)
    if philox is None:
        philox = _local.philox = np.random.Philox(key=[0, 0])
        _local.state = philox.state
    state = _local.state
    state["state"]["key"][:] = (seed, purpose)
    state["state"]["counter"][:] = (0, sequence, site, step)
    philox.state = state
    return np.asarray(philox.random_raw(4 * blocks)).view(np.uint16)


class Draw:
    """Which units a dropout drops: a recipe that gives the same result however often it is evaluated.

    A unit survives if its 16-bit word is at least round(rate * 65536), so rates have steps of 1/65536; survivors are scaled by `scale`, the
    inverse of the exact survival probability (0 if nothing survives).
    """

    __slots__ = ("keys", "packing", "scale", "seed", "site", "step", "threshold", "width")

    def __init__(self, path: str, rate: float, packing: Packing, width: int, keys: Packing | None = None) -> None:
        """If `keys` is None: units (rows of packing, width). Else attention weights: `width` heads, queries in `packing`, keys in
        `keys`."""
        if not 0.0 <= rate <= 1.0:
            raise ArgumentError(f"a dropout rate lies between 0 and 1, got {rate}")
        stream = current()
        self.seed, self.step = stream.seed, stream.step
        self.site = stream.take_site(path, packing.numbers)
        self.threshold = round(rate * 65536)
        self.scale = 0.0 if self.threshold == 65536 else 65536 / (65536 - self.threshold)
        self.packing, self.width, self.keys = packing, width, keys

    def _rows(self, i: int, row_blocks: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
        rows = int(self.packing.lengths[i])
        drawn = words(self.seed, DROPOUT, int(self.packing.numbers[i]), self.site, self.step, rows * row_blocks)
        return drawn.reshape(rows, row_blocks * UNITS)

    def _mark(self, drawn: np.ndarray[Any, np.dtype[np.uint16]], out: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        """Write to `out` which of the words survive."""
        if self.threshold < 65536:
            np.greater_equal(drawn, self.threshold, out=out)
        else:  # no word survives; NumPy below 2.2.2 crashes when it compares a slice with a number outside its dtype
            out[...] = False

    def mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """True where a unit survives. Every row has whole blocks of its own, so its units do not depend on other rows.

        Shapes: (rows, width).
        """
        out = np.empty((self.packing.rows, self.width), bool)
        blocks = -(-self.width // UNITS)
        for i, (a, b) in enumerate(self.packing.spans):
            self._mark(self._rows(i, blocks)[:, : self.width], out[a:b])
        return out

    def pairs(self, i: int, count: int = 1) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """True where an attention weight survives, for `count` sequences from number i on, all with as many queries and keys as i.

        Drawn in the order query, head, key. Shapes: (count · heads, queries, keys).
        """
        if self.keys is None:
            raise ArgumentError("this draw is for rows, not for attention weights")
        a, b = self.keys.key_spans[i]
        blocks = -(-(b - a) // UNITS)
        out = np.empty((count, self.width, int(self.packing.lengths[i]), b - a), bool)
        for sequence, survives in enumerate(out, i):
            drawn = self._rows(sequence, self.width * blocks).reshape(survives.shape[1], self.width, blocks * UNITS)
            self._mark(drawn[:, :, : b - a], survives.swapaxes(0, 1))
        return out.reshape(count * self.width, *out.shape[2:])
