"""CRC-32C (Castagnoli), the checksum of every block and tensor in TensorFlow's files, at the speed of memory.

A checksum in plain Python would take minutes for a BERT, and NumPy has none. But a CRC is only the remainder of the message, read as
a polynomial over GF(2), and its divisor P divides sparse polynomials too:

    x^5685 = x^1362 + x^426 + 1  (mod P)  and, squared k times,  x^(5685 u) = x^(1362 u) + x^(426 u) + 1  with u = 2^k.

With u = 64, a word of 8 bytes may be added (XOR) to three later words and forgotten, which folds a message of any length to its last
5685 words. With u = 8 the same rule folds those to 5685 bytes, a shorter rule with more terms to 563, and a table does the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SPARSE = (5685, 1362, 426, 0)  # x to the first is the sum of x to the others: found by search, checked by the tests
_SHORT = (563, 109, 58, 53, 31, 0)
_REFLECTED_POLYNOMIAL = 0x82F63B78
_START = bytes.fromhex("54641f64")  # four bytes whose remainder is the prescribed start, 0xFFFFFFFF
_WORD = 8
_BLOCK_BYTES = 1 << 18  # stays in the second-level cache


class Crc32c:
    """The checksum of a message that arrives in pieces."""

    def __init__(self) -> None:
        self._work = np.empty((_SPARSE[0] + 1) * _WORD + _BLOCK_BYTES, np.uint8)
        self._kept = len(_START)  # bytes of the message, folded, at the start of `_work`
        self._work[: self._kept] = np.frombuffer(_START, np.uint8)

    def update(self, piece: NDArray[np.uint8]) -> None:
        """Appends the bytes of `piece` to the message."""
        for start in range(0, piece.size, _BLOCK_BYTES):
            block = piece[start : start + _BLOCK_BYTES]
            message = self._work[: self._kept + block.size]
            message[self._kept :] = block
            whole = message.size // _WORD * _WORD
            folded = whole - _WORD * _fold(message[:whole].view(np.uint64), _SPARSE).size
            self._kept = message.size - folded
            if folded:
                self._work[: self._kept] = message[folded:].copy()

    def masked(self) -> int:
        """The checksum as TensorFlow stores it: rotated and offset, so that checksums of data with checksums in it still work."""
        crc = self.value()
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    def value(self) -> int:
        """The checksum of the message so far."""
        crc = 0
        rest = _fold(_fold(self._work[: self._kept].copy(), _SPARSE), _SHORT)
        for byte in rest.tobytes():
            crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
        return crc ^ 0xFFFFFFFF


def masked_crc32c(message: bytes | memoryview) -> int:
    """The checksum of a whole message, as TensorFlow stores it."""
    crc = Crc32c()
    crc.update(np.frombuffer(message, np.uint8))
    return crc.masked()


def _fold(units: NDArray[Any], rule: tuple[int, ...]) -> NDArray[Any]:
    """Fold a message in place to its last units, which keep the remainder of the whole; a unit is 2^k bits of the message."""
    degree = rule[0]
    shifts = [degree - power for power in rule[1:]]  # how many units later a unit is added
    surplus = units.size - degree
    for start in range(0, surplus, shifts[0]):  # in steps of the smallest shift, so that no unit is added within its step
        stop = min(start + shifts[0], surplus)
        for shift in shifts:
            units[start + shift : stop + shift] ^= units[start:stop]
    return units[max(surplus, 0) :]


def _table() -> tuple[int, ...]:
    """The remainder of each byte."""
    remainders = list(range(256))
    for _ in range(8):
        remainders = [r >> 1 ^ (_REFLECTED_POLYNOMIAL if r & 1 else 0) for r in remainders]
    return tuple(remainders)


_TABLE = _table()
