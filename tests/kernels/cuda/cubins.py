"""Reads the names, parameters and block sizes of the kernels in a machine code file from its ELF sections."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod

PARAMETER = 0x17
"""EIATTR_KPARAM_INFO: index, ordinal, offset, and the size in the last word from bit 18 on."""

THREADS = 0x05
"""EIATTR_MAX_THREADS: along x, y and z."""

INFO = ".nv.info."


def is_whole(cubin: bytes) -> bool:
    """Whether the file contains its ELF tables to the last byte. Drivers load a file that lacks one byte, disassemblers do not."""
    starts, sizes = struct.unpack_from("<QQ", cubin, 0x20), struct.unpack_from("<HHHH", cubin, 0x36)
    return all(start + size * count <= len(cubin) for start, size, count in zip(starts, sizes[::2], sizes[1::2], strict=True))


def sections(cubin: bytes) -> dict[str, bytes]:
    """The content of each section of a 64-bit little-endian ELF file."""
    assert cubin[:6] == b"\x7fELF\x02\x01"
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    names = headers[names_at][4]
    found = {}
    for name, kind, _, _, offset, length in headers:
        end = cubin.index(b"\0", names + name)
        found[cubin[names + name : end].decode()] = b"" if kind == 8 else cubin[offset : offset + length]  # 8: no content in the file
    return found


def parameter_sizes(cubin: bytes) -> dict[str, list[int]]:
    """Bytes of each parameter of each kernel, in order."""
    kernels = {}
    for kernel, attributes in _attributes(cubin):
        sizes: dict[int, int] = {}
        for attribute, content in attributes:
            if attribute == PARAMETER:
                _, ordinal, _, packed = struct.unpack("<IHHI", content)
                sizes[ordinal] = packed >> 18
        kernels[kernel] = [sizes[i] for i in range(len(sizes))]
    return kernels


def most_threads(cubin: bytes) -> dict[str, int]:
    """The most threads per block that each kernel can be launched with, for which its registers are allocated."""
    return {
        kernel: prod(struct.unpack("<III", content))
        for kernel, attributes in _attributes(cubin)
        for attribute, content in attributes
        if attribute == THREADS
    }


def _attributes(cubin: bytes) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """For each kernel, its attributes that have contents, with these."""
    for name, content in sections(cubin).items():
        if name.startswith(INFO):
            found, at = [], 0
            while at < len(content):
                form, attribute, value = struct.unpack_from("<BBH", content, at)
                at += 4
                if form == 4:  # `value` bytes follow; in the other forms it is the value itself
                    found.append((attribute, content[at : at + value]))
                    at += value
            yield name.removeprefix(INFO), found
