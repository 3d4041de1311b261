"""The part of the protocol-buffer encoding that TensorFlow's checkpoint index needs: varints, and messages of known fields.

A message is a sequence of fields, each a varint (field number × 8 + wire type) and its content. Stricter than protocol buffers: a
field that the caller did not name, a field of another wire type and an overlong varint are errors, because the writer makes none.
All errors are ValueErrors whose text completes "the entry is broken: ".

Source: the protocol buffers encoding guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

_MAX_64 = 2**64 - 1


class Wire(IntEnum):
    """How the content of a field is stored."""

    VARINT = 0
    BYTES = 2
    FIXED32 = 5


def varint(data: bytes, at: int, limit: int = _MAX_64) -> tuple[int, int]:
    """The unsigned number at `at`, 7 bits a byte and the lowest first, and where the next item starts.

    Raises: ValueError if it is cut off, longer than it need be, or greater than `limit`.
    """
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
    if value > limit or (byte == 0 and shift):
        raise ValueError("a number is too large" if value > limit else "a number is longer than it need be")
    return value, at


class Message:
    """One decoded message. Fields that it lacks have their default: 0, or no message."""

    def __init__(self, encoded: bytes, schema: Mapping[int, Wire]) -> None:
        self._numbers: dict[int, int] = {}
        self._messages: dict[int, list[bytes]] = {}
        at = 0
        while at < len(encoded):
            tag, at = varint(encoded, at)
            field, wire = tag >> 3, tag & 7
            if schema.get(field) != wire:
                raise ValueError(f"field {field} of wire type {wire} is unknown")
            if wire == Wire.VARINT:
                number, at = varint(encoded, at)
                self._set(field, number)
            elif wire == Wire.FIXED32:
                self._set(field, int.from_bytes(_piece(encoded, at, 4), "little"))
                at += 4
            else:
                length, at = varint(encoded, at)
                self._messages.setdefault(field, []).append(_piece(encoded, at, length))
                at += length

    def unsigned(self, field: int) -> int:
        """A number that cannot be negative, or 0."""
        return self._numbers.get(field, 0)

    def signed(self, field: int) -> int:
        """A number of 64 bits with a sign, or 0."""
        value = self._numbers.get(field, 0)
        return value - 2**64 if value >= 2**63 else value

    def messages(self, field: int) -> list[bytes]:
        """The encoded messages of a field, in order."""
        return self._messages.get(field, [])

    def message(self, field: int) -> bytes:
        """The encoded message of a field that may occur once; empty if it does not occur."""
        found = self.messages(field)
        if len(found) > 1:
            raise ValueError(f"field {field} occurs {len(found)} times")
        return found[0] if found else b""

    def _set(self, field: int, number: int) -> None:
        if field in self._numbers:
            raise ValueError(f"field {field} occurs twice")
        self._numbers[field] = number


def _piece(encoded: bytes, at: int, length: int) -> bytes:
    if length > len(encoded) - at:
        raise ValueError("a field is cut off")
    return encoded[at : at + length]
