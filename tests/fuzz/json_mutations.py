"""Changes to JSON documents and safetensors headers that keep them JSON: values, keys and members, one to three at a time."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

from fuzz.mutations import EDGES, MAX_BYTES, TEXTS, bytewise


class Member(list[Any]):
    """A key and a value of a JSON object."""


class Members(list[Member]):
    """A JSON object as its members, so that a key can stand twice."""


class Verbatim(str):
    """JSON text that is written as it is."""


DEEP = [Verbatim("[" * depth + "]" * depth) for depth in (90, 120, 3000)] + [Verbatim('{"a":' * 50_000 + "1" + "}" * 50_000)]
VERBATIM = [
    Verbatim(word) for word in ("NaN", "-Infinity", "1e400", "-0.0", "1e-400", "0." + "1" * 400, "9" * 5000, "01", "", "'a'", "tru")
]


def _read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=lambda pairs: Members(map(Member, pairs)))


def _written(value: Any) -> str:
    if isinstance(value, Verbatim):
        return str(value)
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(str(key))}:{_written(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)


Slot = tuple[list[Any], int]


def _parts(document: list[Any]) -> tuple[list[Members], list[list[Any]], list[Slot]]:
    """The objects of a document, its arrays, and every place of a key or value."""
    objects: list[Members] = []
    arrays: list[list[Any]] = []
    slots: list[Slot] = []
    queue: list[list[Any]] = [document]
    while queue:
        holder = queue.pop()
        if isinstance(holder, Members):
            objects.append(holder)
        else:
            slots.extend((holder, at) for at in range(len(holder)))
            if not isinstance(holder, Member) and holder is not document:
                arrays.append(holder)
        queue.extend(inner for inner in holder if isinstance(inner, list))
    return objects, arrays, slots


def _other_value(value: Any, rng: Random) -> Any:
    kind = rng.randrange(8)
    if isinstance(value, bool) and kind < 4:
        return not value
    if isinstance(value, int | float) and kind < 6:
        near = [value + 1, value - 1, -value, value * 2, float(value) if abs(value) < 1e300 else 0.5, str(value), bool(value)]
        return rng.choice(near) if kind < 4 else rng.choice(EDGES) * rng.choice((1, 1, -1))
    if isinstance(value, str) and kind < 6:
        at, word = rng.randrange(len(value) + 1), rng.choice(TEXTS)
        return rng.choice((value[:at] + word + value[at:], value[:at], word, value.upper(), value * 2, value + "_", value[::-1]))
    if kind == 6:
        return rng.choice(DEEP if rng.random() < 0.1 else VERBATIM)
    plain = [None, True, False, 0, 1, -1, 0.5, "", "a", [], [1], Members(), Members([Member(["a", 1])]), [value]]
    return rng.choice([*plain, rng.choice(EDGES), rng.choice(TEXTS)])


def _change(document: list[Any], rng: Random) -> None:
    objects, arrays, slots = _parts(document)
    kind = rng.randrange(12)
    if kind < 3 and objects:
        members = rng.choice(objects)
        at = rng.randrange(len(members) + 1)
        if kind == 0:
            del members[at : at + 1]
        elif kind == 1:
            members[at:at] = [copy.deepcopy(member) for member in members[at : at + 1]]
        else:
            keys = [str(member[0]) for other in objects for member in other]
            holder, place = rng.choice(slots)
            members.insert(
                at, Member([rng.choice([rng.choice(TEXTS), *keys]), _other_value(copy.deepcopy(holder[place]), rng)])
            )  # a copy: nothing may hold itself
    elif kind == 3 and arrays:
        array = rng.choice(arrays)
        at = rng.randrange(len(array) + 1)
        array[at : at + rng.choice((0, 1))] = copy.deepcopy(array[at : at + 1]) * rng.choice((0, 1, 2, 70))
    elif kind == 4:
        (first, one), (second, two) = rng.choice(slots), rng.choice(slots)
        if not isinstance(first[one], list) and not isinstance(second[two], list):  # else an array could come to hold itself
            first[one], second[two] = second[two], first[one]
    else:
        holder, at = rng.choice(slots)
        holder[at] = _other_value(holder[at], rng)


def json_text(data: bytes, rng: Random) -> bytes:
    """A document with one to three of its values, keys or members changed; bytewise where it is none."""
    try:
        document = [_read_json(data.decode("utf-8"))]
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change(document, rng)
        return _written(document[0]).encode("utf-8", "surrogatepass")[:MAX_BYTES]
    except (ValueError, OverflowError, RecursionError):  # no JSON, or numbers that Python does not write
        return bytewise(data, rng)


def safetensors(data: bytes, rng: Random) -> bytes:
    """The header as JSON, with a true length more often than not; the rest bytewise."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.2 or length > len(data):
        return bytewise(data, rng)
    header, content = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.9:
        header = json_text(header, rng) + b" " * rng.choice((0, 0, 1, 8))
    if rng.random() < 0.2:
        content = bytewise(content, rng)
    said = len(header) if rng.random() < 0.95 else rng.choice((len(header) - 1, len(header) + 1, rng.choice(EDGES)))
    return (said % 2**64).to_bytes(8, "little") + header + content
