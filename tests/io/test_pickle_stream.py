"""The symbolic pickle machine: it knows every opcode by name, and what it follows it understands as Python's own pickle does."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_writer import PROTO, integer, text

from minigrad.errors import WeightFileError
from minigrad.io._pickle_stream import _FORBIDDEN, MAX_DEPTH, MAX_OPCODES, Dict, List, Tuple, _Machine, interpret

PATH = Path("data.pkl")
USED = {
    "MARK", "STOP", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM",
    "SETITEMS", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "BINPUT",
    "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE", "BINPERSID", "BUILD",
}  # fmt: skip
"""What torch.save writes, and LONG4, which is refused as too long a number."""


class Refusing:
    """A reader that knows nothing, and says what it was asked for."""

    def name(self, module: bytes, name: bytes) -> Any:
        raise WeightFileError(PATH, "name", code="asked-name")

    def call(self, function: Any, arguments: Any) -> Any:
        raise WeightFileError(PATH, "call", code="asked-call")

    def persistent(self, identity: Any) -> Any:
        raise WeightFileError(PATH, "persistent", code="asked-persistent")

    def set_state(self, target: Any, state: Any) -> None:
        raise WeightFileError(PATH, "state", code="asked-state")


def refusal(stream: bytes) -> str:
    with pytest.raises(WeightFileError) as caught:
        interpret(PATH, stream, Refusing())
    return caught.value.code


def test_every_opcode_is_used_or_refused_by_its_own_name() -> None:
    known = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    used = set(_Machine(PATH, b"", Refusing())._actions) | {ord(".")}
    assert {known[byte] for byte in used} == USED
    assert {byte: name for byte, name in known.items() if byte not in used} == _FORBIDDEN


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_as_an_opcode(byte: int) -> None:
    code = refusal(PROTO + b"((" + text("a") + bytes([byte]) + bytes(20))
    if byte in _FORBIDDEN:
        assert code == "forbidden-opcode"
    elif byte not in _Machine(PATH, b"", Refusing())._actions and byte != ord("."):
        assert code == "corrupt-pickle"


def meaning(value: Any) -> Any:
    """A symbol as (kind, ...), comparable with `same_of`; lists keep no items."""
    if type(value) is Tuple:
        return "tuple", tuple(meaning(item) for item in value.items)
    if type(value) is Dict:
        return "dict", [(key, meaning(item)) for key, item in value.pairs]
    return ("list",) if type(value) is List else (type(value).__name__, value)


def same_of(value: Any) -> Any:
    """What `meaning` must give for a Python value."""
    if type(value) is tuple:
        return "tuple", tuple(same_of(item) for item in value)
    if type(value) is dict:
        return "dict", [(key, same_of(item)) for key, item in value.items()]
    return ("list",) if type(value) is list else (type(value).__name__, value)


_LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=300)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(-(2**63), 2**63 - 1), inner, max_size=5)
    ),
)


@given(_VALUES)
def test_plain_values_mean_what_pickle_means(value: Any) -> None:
    assert meaning(interpret(PATH, pickle.dumps(value, protocol=2), Refusing())) == same_of(value)


def test_long_containers_and_the_long_memo() -> None:
    value = {f"name {number}": (number, str(number)) for number in range(3000)}
    assert meaning(interpret(PATH, pickle.dumps(value, protocol=2), Refusing())) == same_of(value)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_symbol_or_the_one_error(stream: bytes) -> None:
    for content in (stream, PROTO + stream, PROTO + stream + b"."):
        try:
            interpret(PATH, content, Refusing())
        except WeightFileError as error:
            assert error.code not in ("weight-file", "file")


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_depth(levels: int) -> None:
    nested: Any = ()
    for _ in range(levels - 1):
        nested = (nested,)
    by_marks = PROTO + b"(" * levels + b"t" * levels + b"."
    for stream in (pickle.dumps(nested, protocol=2), by_marks):
        if levels <= MAX_DEPTH:
            interpret(PATH, stream, Refusing())
        else:
            assert refusal(stream) == "pickle-limit"


def test_the_number_of_opcodes() -> None:
    longest = PROTO + b"]" + b"Na" * ((MAX_OPCODES - 2) // 2) + b"."
    assert type(interpret(PATH, longest, Refusing())) is List
    assert refusal(PROTO + b"]" + b"Na" * (MAX_OPCODES // 2) + b".") == "pickle-limit"


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**63, 255, 256, -1, 0])
def test_integers(value: int) -> None:
    assert interpret(PATH, PROTO + integer(value) + b".", Refusing()) == value


def test_printing_a_nest_of_references_takes_no_time() -> None:
    """A symbol's repr does not walk into it: this one holds 2**60 references."""
    doubled = PROTO + b")" + b"q\x01h\x01\x86" * 60 + b"."
    assert len(repr(interpret(PATH, doubled, Refusing()))) < 100
