"""Nested state as a checkpoint stores it: arrays separately, the rest as JSON that restores every value exactly.

JSON has no NaN, no infinity and no references to arrays. So an object whose only key starts with "$" has a special meaning:
{"$float": "nan"} (or "inf", "-inf") is that number, and {"$array": NAME} stands for the array of that name. Keys of the
caller that start with "$" are refused. Tuples come back as lists, and a NumPy number as the Python number of the same value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.errors import ArgumentError, StateDictError
from minigrad.files import MAX_JSON_DEPTH, listing, parse_json, quoted

MAX_INT_BITS = 14_000
"""Python reads and writes no more than 4300 digits of an integer."""

_ARRAY = "$array"
_FLOAT = "$float"
_NOT_FINITE = ("nan", "inf", "-inf")


# ---- arrays


def flatten(tree: Any) -> tuple[Any, dict[str, NDArray[Any]]]:
    """The tree of dicts and lists with each NumPy array replaced by a reference, and the arrays by name (not copied).

    A name is the array's place as a JSON pointer (RFC 6901): "/state/0/exp_avg".
    Raises: ArgumentError for a key that is not a string or starts with "$", and for too deep a tree.
    """
    arrays: dict[str, NDArray[Any]] = {}
    return _extract_arrays(tree, "", 0, arrays), arrays


def unflatten(tree: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The inverse of `flatten`: every reference replaced by its array.

    Raises: StateDictError if an array is missing, or nothing refers to one.
    """
    used: set[str] = set()
    whole = _insert_arrays(tree, arrays, used)
    if unused := arrays.keys() - used:
        raise StateDictError(f"nothing in the saved tree refers to the arrays {listing(sorted(unused))}")
    return whole


def _extract_arrays(value: Any, place: str, depth: int, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray):
        name = place or "/"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, Mapping):
        _check_depth(place, depth)
        _check_keys(value, place)
        return {key: _extract_arrays(inner, f"{place}/{_escaped(key)}", depth + 1, arrays) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        _check_depth(place, depth)
        return [_extract_arrays(inner, f"{place}/{i}", depth + 1, arrays) for i, inner in enumerate(value)]
    return value


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _insert_arrays(value: Any, arrays: Mapping[str, NDArray[Any]], used: set[str]) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {_ARRAY}:
            name = value[_ARRAY]
            if not isinstance(name, str) or name not in arrays:
                raise StateDictError(f"the saved tree refers to the array {quoted(name)}, which is not among the {len(arrays)} arrays")
            used.add(name)
            return arrays[name]
        return {key: _insert_arrays(inner, arrays, used) for key, inner in value.items()}
    return [_insert_arrays(inner, arrays, used) for inner in value] if isinstance(value, list) else value


# ---- JSON


def encode(state: Mapping[str, Any]) -> bytes:
    """The content of a JSON file that `decode` reads back to equal values: large integers, and floats to the last bit.

    Raises: ArgumentError, naming the place, for what JSON cannot hold: other types, arrays (see `flatten`), keys that are not strings or
    start with "$", an integer beyond MAX_INT_BITS, more than MAX_JSON_DEPTH levels.
    """
    return f"{json.dumps(_encoded(state, '', 0), indent=1, allow_nan=False)}\n".encode("ascii")


def decode(text: str) -> dict[str, Any]:
    """The inverse of `encode`. Raises: ValueError, whose message completes "not a saved state: "."""
    state = _decoded(parse_json(text))
    if not isinstance(state, dict):
        raise ValueError("it is not a JSON object")
    return state


def _encoded(value: Any, place: str, depth: int) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise ArgumentError(f"the state holds an integer of {value.bit_length()} bits at {_shown(place)}; {MAX_INT_BITS} are possible")
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        _check_depth(place, depth)
        return {_FLOAT: str(float(value))}
    if isinstance(value, Mapping):
        _check_depth(place, depth)
        if value.keys() != {_ARRAY}:
            _check_keys(value, place)
        return {key: _encoded(inner, f"{place}/{key}", depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        _check_depth(place, depth)
        return [_encoded(inner, f"{place}/{i}", depth + 1) for i, inner in enumerate(value)]
    hint = "; `flatten` takes arrays out" if isinstance(value, np.ndarray) else ""
    raise ArgumentError(f"the state holds a {type(value).__name__} at {_shown(place)}, which JSON cannot hold{hint}")


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if _FLOAT in value:
            word = value[_FLOAT]
            if len(value) != 1 or word not in _NOT_FINITE:
                raise ValueError(f'"{_FLOAT}" stands with {quoted(word)}, which is none of {", ".join(_NOT_FINITE)}')
            return float(word)
        return {key: _decoded(inner) for key, inner in value.items()}
    return [_decoded(inner) for inner in value] if isinstance(value, list) else value


# ---- checks


def _check_keys(value: Mapping[Any, Any], place: str) -> None:
    for key in value:
        if not isinstance(key, str):
            raise ArgumentError(f"the state has the key {quoted(key)} at {_shown(place)}; keys must be strings")
        if key.startswith("$"):
            raise ArgumentError(f'the state has the key {quoted(key)} at {_shown(place)}; keys that start with "$" have a meaning here')


def _check_depth(place: str, depth: int) -> None:
    if depth == MAX_JSON_DEPTH:
        raise ArgumentError(f"the state is nested more than {MAX_JSON_DEPTH} levels deep at {_shown(place)}, or holds itself")


def _shown(place: str) -> str:
    return quoted(place) if place else "its root"
