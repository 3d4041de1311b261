"""Checks the character map of SentencePiece: no lookup may leave its arrays or blow up a text.

The map is a double-array trie over bytes, followed by the replacements, NUL-terminated UTF-8. It comes as a binary blob inside
tokenizer.json. In the library, an offset past the end is a panic, which `except Exception` does not catch.

Source: the trie's layout is that of darts-clone; SentencePiece's `precompiled_charsmap` puts four bytes with the trie's size before it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

# The map of XLM-R has 240 kB, and its longest replacement 33 bytes.
MAX_BASE64_CHARS = 4 * 2**20
MAX_REPLACEMENT_BYTES = 128


def charsmap_fault(encoded: Any) -> str:
    """What is wrong with a base64-encoded map; "" if nothing is."""
    if not isinstance(encoded, str) or len(encoded) > MAX_BASE64_CHARS:
        return "no string of sensible length"
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return "not base64"
    if base64.b64encode(content).decode("ascii") != encoded:  # Python accepts more endings than the library, which would panic
        return "not base64"
    size = int.from_bytes(content[:4], "little")
    if len(content) < 8 or size == 0 or size % 4 or size > len(content) - 4:
        return "the trie's size is wrong"
    replacements = content[4 + size :]
    try:
        replacements.decode("utf-8")
    except UnicodeDecodeError:
        return "the replacements are not UTF-8"
    return _trie_fault(np.frombuffer(content, "<u4", size // 4, 4).astype(np.int64), replacements)


def _trie_fault(units: np.ndarray[Any, np.dtype[np.int64]], replacements: bytes) -> str:
    """Check that every step from every unit stays inside, and that every value is the start of a short replacement.

    A unit holds a label (low byte), a flag "a word ends here" (bit 8) and the distance to its children (upper bits, times 256 if bit 9 is
    set); with bit 31 it is a value. The children of the unit at p lie at p ^ distance ^ byte.
    """
    position = np.arange(len(units))
    inner = units < 2**31
    children = position ^ ((units >> 10) << ((units & 512) >> 6))
    if np.any((children[inner] | 255) >= len(units)):
        return "a unit of the trie points outside"
    values = units[children[inner & (units & 256 != 0)]] & (2**31 - 1)
    text = np.frombuffer(replacements, np.uint8)
    if np.any(values >= len(text)):
        return "a value points behind the replacements"
    if np.any(text[values] & 0xC0 == 0x80):
        return "a value points into a character"
    ends = np.flatnonzero(np.concatenate([text, [0]]) == 0)
    if np.any(np.diff(ends, prepend=-1) > MAX_REPLACEMENT_BYTES + 1):
        return "a replacement is too long"
    return ""
