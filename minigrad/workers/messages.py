"""Messages between a process and its workers: JSON and the bytes of arrays, over a socket pair made before the fork.

Both ends are the same program, but nothing is unpickled, so no received byte can run code. A message is two lengths, a JSON object, and the
bytes of the arrays that the object lists, one after another.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from minigrad import errors
from minigrad.errors import MinigradError
from minigrad.packing import PackedTokens, Packing

Arrays: TypeAlias = dict[str, np.ndarray[Any, Any]]

LENGTHS = struct.Struct("<QQ")

PATIENCE = 1.0
"""Seconds of silence after which a reader checks whether the other side is still alive. Waiting for end of file is not reliable: a process
that was forked at the wrong moment holds a copy of the socket that should have closed."""


def send(link: socket.socket, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Send a message. Raises: OSError if the other side is gone."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    announced = [(name, array.dtype.str, array.shape) for name, array in whole.items()]
    text = json.dumps({"content": content, "arrays": announced}).encode()
    data = b"".join([array.tobytes() for array in whole.values()])
    link.sendall(LENGTHS.pack(len(text), len(data)) + text + data, socket.MSG_NOSIGNAL)


def receive(link: socket.socket, other_lives: Callable[[], bool]) -> tuple[dict[str, Any], Arrays]:
    """The next message. Raises: EOFError if the other side is gone."""
    text_length, data_length = LENGTHS.unpack(_read(link, LENGTHS.size, other_lives))
    message = json.loads(_read(link, text_length, other_lives))
    data, arrays, at = _read(link, data_length, other_lives), {}, 0
    for name, dtype, shape in message["arrays"]:
        array = np.frombuffer(data, dtype, int(np.prod(shape)), at) if data else np.empty(0, dtype)
        arrays[name] = array.reshape(shape)
        at += array.nbytes
    return message["content"], arrays


def _read(link: socket.socket, size: int, other_lives: Callable[[], bool]) -> bytearray:
    """Read exactly `size` bytes. Raises: EOFError."""
    data, poll = bytearray(size), select.poll()
    poll.register(link, select.POLLIN)
    at = 0
    while at < size:
        if not poll.poll(PATIENCE * 1000):
            if not other_lives():
                raise EOFError
            continue
        try:
            count = link.recv_into(memoryview(data)[at:])
        except ConnectionError:
            count = 0
        if not count:
            raise EOFError
        at += count
    return data


# ---------------------------------------------------------------- tokens
def token_arrays(tokens: PackedTokens) -> Arrays:
    """Packed tokens as arrays by name, without fields that are None."""
    packing = tokens.packing
    found = {
        "input_ids": tokens.input_ids,
        "token_type_ids": tokens.token_type_ids,
        "positions": tokens.positions,
        "padded_shape": tokens.padded_shape,
        "lengths": packing.lengths,
        "numbers": packing.numbers,
        "masked_first": packing.masked_first,
    }
    return {name: np.asarray(value) for name, value in found.items() if value is not None}


def tokens_of(arrays: Arrays) -> PackedTokens:
    """The inverse of `token_arrays`."""
    masked, padded = arrays.get("masked_first"), arrays.get("padded_shape")
    packing = Packing(arrays["lengths"], arrays["numbers"], None if masked is None else masked.tolist())
    shape = None if padded is None else (int(padded[0]), int(padded[1]))
    return PackedTokens(arrays["input_ids"], packing, arrays["token_type_ids"], arrays["positions"], shape)


# ---------------------------------------------------------------- errors
def described(error: BaseException) -> dict[str, Any]:
    """An exception as JSON, its traceback as text."""
    known = {key: value for key, value in vars(error).items() if isinstance(value, str | int | None)}
    kind = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
    return {"kind": kind, "message": str(error), "known": known, "trace": "".join(traceback.format_exception(error))}


def rebuilt(description: Mapping[str, Any], where: str) -> MinigradError | MemoryError:
    """The exception of a worker (`where`), rebuilt here: a MinigradError or MemoryError keeps its class, others become MinigradError."""
    kind, message = getattr(errors, description["kind"], None), description["message"]
    error: MinigradError | MemoryError
    if description["kind"] == "MemoryError":
        error = MemoryError(message)
    elif isinstance(kind, type) and issubclass(kind, MinigradError):
        error = errors.with_arguments(kind, (message,))
        vars(error).update(description["known"])
    else:
        error = MinigradError(f"{description['kind']} in {where}: {message}", code="worker")
    error.add_note(f"In {where}:\n{description['trace']}")
    return error
