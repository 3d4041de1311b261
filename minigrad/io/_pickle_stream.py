"""A safe interpreter, working on symbols only, for the few pickle opcodes that torch.save writes.

A pickle is a program for a small stack machine, and two of its instructions (import this, call that) are how a weight file takes over
a computer. Here the machine runs on symbols: an imported name, or a call of it, is passed to a `Reader` of ours that knows the few
harmless ones and answers with symbols too, and every opcode that no state dict needs is refused by name. Nothing is imported, called
or built, and the symbols are used only after the whole stream has been interpreted.

Source: the opcode table of Python's own pickle documentation (pickletools); protocol 2, which torch.save writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from minigrad.errors import WeightFileError

MAX_STREAM_BYTES = 16 << 20
MAX_OPCODES = 250_000
"""About 9,000 tensors, at some 27 opcodes and 200 bytes each; the largest published models have fewer in a file.

Bounds the time of a refusal to a second, and with it the stack and the memo.
"""
MAX_DEPTH = 64
MAX_TEXT_BYTES = 1 << 16
MAX_INTEGER_BYTES = 9  # a 64-bit number and a sign; a number out of range is refused where it is used, with a better message

_FORBIDDEN = {
    ord("0"): "POP", ord("1"): "POP_MARK", ord("2"): "DUP", ord("F"): "FLOAT", ord("I"): "INT", ord("L"): "LONG", ord("P"): "PERSID",
    ord("S"): "STRING", ord("T"): "BINSTRING", ord("U"): "SHORT_BINSTRING", ord("V"): "UNICODE", ord("d"): "DICT", ord("g"): "GET",
    ord("i"): "INST", ord("l"): "LIST", ord("o"): "OBJ", ord("p"): "PUT", ord("B"): "BINBYTES", ord("C"): "SHORT_BINBYTES",
    0x80: "PROTO", 0x81: "NEWOBJ", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4", 0x8C: "SHORT_BINUNICODE", 0x8D: "BINUNICODE8",
    0x8E: "BINBYTES8", 0x8F: "EMPTY_SET", 0x90: "ADDITEMS", 0x91: "FROZENSET", 0x92: "NEWOBJ_EX", 0x93: "STACK_GLOBAL",
    0x94: "MEMOIZE", 0x95: "FRAME", 0x96: "BYTEARRAY8", 0x97: "NEXT_BUFFER", 0x98: "READONLY_BUFFER",
}  # fmt: skip
_PROTOCOL = b"\x80\x02"
_STOP = ord(".")


@dataclass(slots=True, eq=False, repr=False)  # comparing or printing nested symbols could take for ever
class Tuple:
    """A tuple; `depth` counts the levels of nesting."""

    items: tuple[Any, ...]
    depth: int


@dataclass(slots=True, eq=False, repr=False)
class List:
    """A list. Its items are interpreted but not kept: no tensor depends on one."""

    depth: int = 1


@dataclass(slots=True, eq=False, repr=False)
class Dict:
    """A dictionary, as pairs in the order of the stream: nothing that a file chooses is hashed before it is known to be a string."""

    ordered: bool
    pairs: list[tuple[str | int, Any]] = field(default_factory=list)
    depth: int = 1


_CONTAINERS = (Tuple, List, Dict)


class Reader(Protocol):
    """Gives names, calls, persistent ids and states a meaning: a symbol, or an error. No method may do what the stream says."""

    def name(self, module: bytes, name: bytes) -> Any:
        """The symbol of an imported name, both parts as the stream spells them."""

    def call(self, function: Any, arguments: Any) -> Any:
        """The symbol of what `function` would return; both are any symbols."""

    def persistent(self, identity: Any) -> Any:
        """The symbol of a persistent id, which may be any symbol."""

    def set_state(self, target: Any, state: Any) -> None:
        """The stream sets the state of `target` to `state`; both are any symbols."""


def interpret(path: Path, stream: bytes, reader: Reader) -> Any:
    """Interpret a stream; returns its result: None, a bool, int, float or str, a Tuple, List or Dict, or a symbol of `reader`.

    Raises: WeightFileError.
    """
    return _Machine(path, stream, reader).run()


class _Machine:
    """The pickle machine: its stack, the marks on it, and the memo."""

    def __init__(self, path: Path, data: bytes, reader: Reader) -> None:
        self._path, self._data, self._reader = path, data, reader
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        push = self._stack.append
        self._actions: dict[int, Callable[[], object]] = {
            ord("("): self._mark,
            ord("}"): lambda: push(Dict(ordered=False)),
            ord("]"): lambda: push(List()),
            ord(")"): lambda: self._push_tuple(()),
            ord("t"): lambda: self._push_tuple(self._pop_to_mark()),
            0x85: lambda: self._push_tuple(self._pop(1)),
            0x86: lambda: self._push_tuple(self._pop(2)),
            0x87: lambda: self._push_tuple(self._pop(3)),
            ord("a"): lambda: self._append(self._pop(1)),
            ord("e"): lambda: self._append(self._pop_to_mark()),
            ord("s"): lambda: self._set_items(self._pop(2)),
            ord("u"): lambda: self._set_items(self._pop_to_mark()),
            ord("N"): lambda: push(None),
            0x88: lambda: push(True),
            0x89: lambda: push(False),
            ord("J"): lambda: push(int.from_bytes(self._take(4), "little", signed=True)),
            ord("K"): lambda: push(self._take(1)[0]),
            ord("M"): lambda: push(int.from_bytes(self._take(2), "little")),
            0x8A: self._long1,
            0x8B: lambda: self._fail("pickle-limit", "its pickle holds an integer of more than 64 bits (opcode LONG4)"),
            ord("G"): lambda: push(struct.unpack(">d", self._take(8))[0]),
            ord("X"): self._text,
            ord("q"): lambda: self._put(self._take(1)),
            ord("r"): lambda: self._put(self._take(4)),
            ord("h"): lambda: self._get(self._take(1)),
            ord("j"): lambda: self._get(self._take(4)),
            ord("c"): lambda: push(reader.name(self._line(), self._line())),
            ord("R"): lambda: push(reader.call(*self._pop(2))),
            ord("Q"): lambda: push(reader.persistent(*self._pop(1))),
            ord("b"): self._build,
        }

    def run(self) -> Any:
        data = self._data
        if not data.startswith(_PROTOCOL):
            if data[:1] == _PROTOCOL[:1] and len(data) > 1:
                self._fail("forbidden-opcode", f"its pickle is of protocol {data[1]} (opcode PROTO); torch.save writes protocol 2")
            if _PROTOCOL.startswith(data):
                self._fail_truncated()
            self._fail("corrupt-pickle", "its data.pkl does not begin as a pickle of protocol 2")
        self._at = len(_PROTOCOL)
        for _ in range(MAX_OPCODES):
            if self._at == len(data):
                self._fail_truncated()
            opcode = data[self._at]
            self._at += 1
            if opcode == _STOP:
                return self._result()
            action = self._actions.get(opcode)
            if action is None:
                self._refuse(opcode)
            action()
        self._fail("pickle-limit", f"its pickle has more than {MAX_OPCODES} opcodes")

    def _result(self) -> Any:
        if self._at != len(self._data):
            self._fail("trailing-pickle", f"{len(self._data) - self._at} bytes follow the end of its pickle")
        if self._marks or len(self._stack) != 1:
            self._fail("corrupt-pickle", f"its pickle ends with {len(self._stack)} values on the stack, not one")
        return self._stack[0]

    def _refuse(self, opcode: int) -> NoReturn:
        name = _FORBIDDEN.get(opcode)
        if name is None:
            self._fail("corrupt-pickle", f"byte {self._at - 1} of its pickle is {opcode:#04x}, which is no opcode")
        self._fail("forbidden-opcode", f"its pickle uses the opcode {name}, which no state dict needs; nothing was run")

    # ---- the bytes of the stream

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            self._fail_truncated()
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            self._fail_truncated()
        line = self._data[self._at : end]
        self._at = end + 1
        return line

    def _long1(self) -> None:
        count = self._take(1)[0]
        if count > MAX_INTEGER_BYTES:
            self._fail("pickle-limit", f"its pickle holds an integer of {8 * count} bits; sizes and offsets have 64 at most")
        self._stack.append(int.from_bytes(self._take(count), "little", signed=True))

    def _text(self) -> None:
        count = int.from_bytes(self._take(4), "little")
        if count > len(self._data) - self._at:
            self._fail_truncated()
        if count > MAX_TEXT_BYTES:
            self._fail("pickle-limit", f"its pickle holds a text of {count} bytes; names have {MAX_TEXT_BYTES} at most")
        try:
            self._stack.append(self._take(count).decode("utf-8"))
        except UnicodeDecodeError:
            self._fail("corrupt-pickle", f"the text that ends at byte {self._at} of its pickle is not UTF-8")

    # ---- stack and memo

    def _pop(self, count: int) -> tuple[Any, ...]:
        """Pop the last `count` values, none of them below a mark: those belong to an outer container."""
        if len(self._stack) - (self._marks[-1] if self._marks else 0) < count:
            self._fail("corrupt-pickle", f"the opcode at byte {self._at - 1} of its pickle needs values that are not there")
        taken = tuple(self._stack[-count:])
        del self._stack[-count:]
        return taken

    def _mark(self) -> None:
        if len(self._marks) == MAX_DEPTH:
            self._fail("pickle-limit", f"its pickle is nested more than {MAX_DEPTH} levels deep")
        self._marks.append(len(self._stack))

    def _pop_to_mark(self) -> tuple[Any, ...]:
        if not self._marks:
            self._fail("corrupt-pickle", f"the opcode at byte {self._at - 1} of its pickle needs a MARK that is not there")
        start = self._marks.pop()
        taken = tuple(self._stack[start:])
        del self._stack[start:]
        return taken

    def _put(self, index: bytes) -> None:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            self._fail("corrupt-pickle", f"the opcode at byte {self._at - 1} of its pickle needs a value that is not there")
        self._memo[int.from_bytes(index, "little")] = self._stack[-1]

    def _get(self, index: bytes) -> None:
        try:
            self._stack.append(self._memo[int.from_bytes(index, "little")])
        except KeyError:
            self._fail("corrupt-pickle", f"byte {self._at - 1} of its pickle fetches a value that was never remembered")

    # ---- containers

    def _push_tuple(self, items: tuple[Any, ...]) -> None:
        self._stack.append(Tuple(items, self._depth_around(items)))

    def _append(self, items: tuple[Any, ...]) -> None:
        (target,) = self._pop(1)
        if type(target) is not List:
            self._fail("bad-setitem-target", "its pickle appends to what is no list")
        target.depth = max(target.depth, self._depth_around(items))
        self._stack.append(target)

    def _set_items(self, items: tuple[Any, ...]) -> None:
        (target,) = self._pop(1)
        if type(target) is not Dict:
            self._fail("bad-setitem-target", "its pickle sets items of what is no dictionary")
        if len(items) % 2:
            self._fail("corrupt-pickle", f"the opcode at byte {self._at - 1} of its pickle has a key without a value")
        for key in items[::2]:
            if type(key) is not str and type(key) is not int:
                self._fail("bad-key", "its pickle has a dictionary key that is neither a string nor an integer")
        target.pairs.extend(zip(items[::2], items[1::2], strict=True))
        target.depth = max(target.depth, self._depth_around(items[1::2]))
        self._stack.append(target)

    def _depth_around(self, items: tuple[Any, ...]) -> int:
        depth = 1
        for item in items:
            if type(item) in _CONTAINERS and item.depth >= depth:
                depth = item.depth + 1
        if depth > MAX_DEPTH:
            self._fail("pickle-limit", f"its pickle is nested more than {MAX_DEPTH} levels deep")
        return depth

    def _build(self) -> None:
        target, state = self._pop(2)
        self._reader.set_state(target, state)
        self._stack.append(target)

    def _fail_truncated(self) -> NoReturn:
        self._fail("truncated-pickle", "its pickle ends in the middle; fetch the file again")

    def _fail(self, code: str, message: str) -> NoReturn:
        raise WeightFileError(self._path, message, code=code)
