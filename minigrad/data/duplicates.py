"""Finds near-duplicate texts without comparing every text with every other.

A test set measures nothing if its texts are also in the training set, and copies are rarely exact: an extra full stop, another number,
another sign-off. Two texts are near-duplicates if the sets of their character 5-grams, after case folding and collapsing white space, have
a Jaccard similarity of at least a threshold. Candidates come from MinHash and banding, and every one is verified on the sets themselves:
nothing below the threshold is reported, and a pair at the threshold is missed with a probability of at most one in a billion
(`MISS_PROBABILITY`), a closer pair with less.

One exception keeps the time linear: a text that shares a band with more than `NEIGHBOURS` others is compared with only that many of them,
the likeliest ones. That happens with thousands of texts made from one template.

Source: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman and Ullman, "Mining of massive datasets",
chapter 3, for banding; Sandes et al. 2017, "Bitmap filter: speeding up exact set similarity joins", for the bound by bitmaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minigrad.data.records import Record
from minigrad.errors import ArgumentError
from minigrad.files import quoted
from minigrad.packing import IntArray

GRAM = 5
"""Characters of a gram. A shorter text is one gram."""
MISS_PROBABILITY = 1e-9
HASHES = 512
"""Maximum number of hash functions, to bound the time. More rows per band mean fewer candidates, but more bands are needed to miss none."""
NEIGHBOURS = 100
SKETCH_BITS = 1024
CHUNK_CHARS, CHUNK_PAIRS = 2**18, 2**16
LOWEST_THRESHOLD = 0.5

UInt32Array = np.ndarray[Any, np.dtype[np.uint32]]
UInt64Array = np.ndarray[Any, np.dtype[np.uint64]]


def folded(text: str) -> str:
    """`text` normalised for comparison: case folded, runs of white space collapsed to one space, none at the ends."""
    return " ".join(text.casefold().split())


def folded_text(record: Record) -> str:
    """The folded text of a record; for a pair, of both texts joined by a space."""
    return folded(record.text if record.text_b is None else f"{record.text} {record.text_b}")


def similarity(first: str, second: str) -> float:
    """The Jaccard similarity of the 5-grams of two folded texts: |A ∩ B| / |A ∪ B|."""
    a, b = _grams(first), _grams(second)
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def _grams(text: str) -> set[str]:
    return {text[i : i + GRAM] for i in range(max(len(text) - GRAM + 1, 1))}


def checked_threshold(threshold: Any) -> float:
    """`threshold` as a float. Raises: ArgumentError unless banding supports it."""
    if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not LOWEST_THRESHOLD <= threshold <= 1:
        raise ArgumentError(f"the threshold of near-duplicates must be a number from {LOWEST_THRESHOLD} to 1, got {quoted(threshold)}")
    return float(threshold)


class Components:
    """The connected components of n things (union-find), each alone at first."""

    def __init__(self, n: int) -> None:
        self._parents = list(range(n))
        self._numbers: IntArray | None = None

    def find(self, thing: int) -> int:
        """The representative of the component of `thing`: its first member."""
        parents = self._parents
        while parents[thing] != thing:
            parents[thing] = thing = parents[parents[thing]]  # path halving
        return thing

    def join(self, first: int, second: int) -> None:
        first, second = self.find(first), self.find(second)
        self._parents[max(first, second)] = min(first, second)
        self._numbers = None

    def numbers(self) -> IntArray:
        """`find` of every thing. Shapes: (n,)."""
        if self._numbers is None:
            numbers = np.array(self._parents, np.int64)
            while np.any(numbers != (further := numbers[numbers])):
                numbers = further
            self._numbers = numbers
        return self._numbers


def near_duplicate_groups(texts: Sequence[str], threshold: float = 0.8) -> IntArray:
    """For each folded text, the place of the first text of its group; groups are the connected components of near-duplicate pairs.

    A group may hold two texts that are less similar than `threshold` but connected through others. The result is the same on every machine.
    Memory: about 600 bytes per text in addition to the texts.

    Shapes: (len(texts),)

    Raises:
        ArgumentError: `threshold` is not a number from 0.5 to 1.
    """
    rows, bands = _banding(checked_threshold(threshold))
    first_of: dict[str, int] = {}
    copies = [first_of.setdefault(text, place) for place, text in enumerate(texts)]
    places, distinct = np.array(list(first_of.values()), np.int64), list(first_of)
    components = Components(len(distinct))
    if len(distinct) > 1:
        keys, sketches, sizes = _signatures(distinct, rows, bands)
        for band in range(bands):
            for pairs in _candidates(keys[band], keys[(band + 1) % bands]):
                _join_verified(pairs, distinct, components, sketches, sizes, threshold)
    groups = np.empty(len(texts), np.int64)
    groups[places] = places[components.numbers()]
    return groups[copies] if copies else groups


def _banding(threshold: float) -> tuple[int, int]:
    """(rows, bands) with as many rows as HASHES allows, where 1 - (1 - threshold^rows)^bands is at least 1 - MISS_PROBABILITY."""
    found = (1, 1)
    for rows in range(1, 17):
        chance = threshold**rows
        bands = 1 if chance == 1 else math.ceil(math.log(MISS_PROBABILITY) / math.log1p(-chance))
        if rows * bands <= HASHES:
            found = rows, bands
    return found


# ---- signatures


def _signatures(texts: Sequence[str], rows: int, bands: int) -> tuple[UInt32Array, UInt64Array, IntArray]:
    """Keys (bands, n), bitmaps (n, SKETCH_BITS / 64) and numbers of grams, repeated ones included (n,), of the texts."""
    constants = np.random.Philox(key=[GRAM, SKETCH_BITS]).random_raw(rows * bands + rows + GRAM + 1) | np.uint64(1)
    multipliers, constants = constants[: rows * bands].astype(np.uint32) | np.uint32(1), constants[rows * bands :]
    keys = np.empty((bands, len(texts)), np.uint32)
    sketches = np.empty((len(texts), SKETCH_BITS // 64), np.uint64)
    sizes = np.array([max(len(text) - GRAM + 1, 1) for text in texts], np.int64)
    for start, stop in _chunks(sizes):
        grams = _gram_hashes(texts[start:stop], constants[rows:])
        begins = np.concatenate([[0], np.cumsum(sizes[start : stop - 1])])
        bits = np.zeros((stop - start, SKETCH_BITS), bool)
        bits[np.repeat(np.arange(stop - start), sizes[start:stop]), grams % SKETCH_BITS] = True
        sketches[start:stop] = np.packbits(bits, axis=1).view(np.uint64)
        for band in range(bands):
            key = np.zeros(stop - start, np.uint64)
            for row in range(rows):
                least = np.minimum.reduceat(grams * multipliers[band * rows + row], begins)
                key += least * constants[row]
            keys[band, start:stop] = key >> np.uint64(32)
    return keys, sketches, sizes


def _chunks(sizes: IntArray) -> Iterator[tuple[int, int]]:
    """Runs of texts of about CHUNK_CHARS characters in total, so that intermediate results stay in the cache."""
    start = chars = 0
    for place, size in enumerate(sizes.tolist()):
        if place > start and chars + size > CHUNK_CHARS:
            yield start, place
            start, chars = place, 0
        chars += size
    yield start, len(sizes)


def _gram_hashes(texts: Sequence[str], constants: UInt64Array) -> UInt32Array:
    """A 32-bit hash of every gram of every text, one text after another. Collisions do no harm: candidates are verified later."""
    padded = [text.ljust(GRAM, "\0") for text in texts]
    chars = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    count = len(chars) - GRAM + 1
    mixed = np.zeros(count, np.uint64)
    for offset in range(GRAM):
        mixed += chars[offset : offset + count] * constants[offset]
    mixed ^= mixed >> np.uint64(29)
    mixed *= constants[GRAM]
    inside = np.ones(count, bool)
    ends = np.cumsum([len(text) for text in padded[:-1]], dtype=np.int64)
    for offset in range(1, GRAM):
        inside[ends - offset] = False  # grams that reach into the next text
    return (mixed[inside] >> np.uint64(32)).astype(np.uint32)


# ---- candidates and their verification


def _candidates(keys: UInt32Array, next_keys: UInt32Array) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs of texts with the same key, up to NEIGHBOURS apart when sorted by it and then by the next band's key."""
    order = np.lexsort((next_keys, keys))
    ordered = keys[order]
    for distance in range(1, min(NEIGHBOURS + 1, len(order))):
        same = np.flatnonzero(ordered[distance:] == ordered[:-distance])
        if not len(same):
            return
        for start in range(0, len(same), CHUNK_PAIRS):
            part = same[start : start + CHUNK_PAIRS]
            yield order[part], order[part + distance]


def _join_verified(
    pairs: tuple[IntArray, IntArray], texts: Sequence[str], components: Components, sketches: UInt64Array, sizes: IntArray, threshold: float
) -> None:
    """Join the pairs that are at least as similar as `threshold`.

    Most others are rejected by their bitmaps: each bit that differs is a gram that only one text has, and with a similarity of t these can
    be at most (1 - t) / (1 + t) of all grams of both.
    """
    numbers = components.numbers()
    first, second = pairs
    apart = numbers[first] != numbers[second]
    first, second = first[apart], second[apart]
    allowed = (1 - threshold) / (1 + threshold) * (sizes[first] + sizes[second]) + 1e-6  # for the rounding of the product
    close = np.bitwise_count(sketches[first] ^ sketches[second]).sum(axis=1) <= allowed
    for a, b in zip(first[close].tolist(), second[close].tolist(), strict=True):
        if components.find(a) != components.find(b) and similarity(texts[a], texts[b]) >= threshold:
            components.join(a, b)
