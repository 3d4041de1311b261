"""Changes inside the blocks of a TensorFlow index, whose checksums would otherwise hide everything behind them."""

from __future__ import annotations

from random import Random

from fuzz.mutations import EDGES, bytewise
from tf_writer import MAGIC, masked, varint


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def _blocks(data: bytes) -> list[tuple[int, int]]:
    """Where the blocks of a table lie: what the footer points to, and what the index block points to."""
    places, at = [], len(data) - 48
    for _ in range(2):
        start, at = _varint(data, at)
        size, at = _varint(data, at)
        places.append((start, size))
    start, size = places[1]
    block = data[start : start + size]
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at = 0
    while at < end:
        _, at = _varint(block, at)
        unshared, at = _varint(block, at)
        _, at = _varint(block, at)
        place, at = _varint(block, at + unshared)
        length, at = _varint(block, at)
        places.append((place, length))
    return places


def sstable(data: bytes, rng: Random) -> bytes:
    """A block's content changed without moving anything, and every checksum made true again; bytewise for one file in four."""
    if rng.random() < 0.25 or not data.endswith(MAGIC):
        return bytewise(data, rng)
    try:
        places = [(start, size) for start, size in _blocks(data) if size > 0 and start + size + 5 <= len(data)]
    except IndexError:
        return bytewise(data, rng)
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        start, size = rng.choice(places or [(0, len(data))])
        at = start + rng.randrange(size)
        match rng.randrange(5):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.choice((0, 1, 2, 4, 8, 16, 0x35, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                number = varint(rng.choice(EDGES) % 2**64)[: start + size - at]
                content[at : at + len(number)] = number
            case 3:
                content[at] = (content[at] + rng.choice((1, -1))) % 256
            case _:
                length = min(rng.choice((2, 4, 12)), start + size - at)
                source = start + rng.randrange(size - length + 1)
                content[at : at + length] = content[source : source + length]
    for start, size in places:
        content[start + size + 1 : start + size + 5] = masked(bytes(content[start : start + size + 1]))
    return bytes(content)
