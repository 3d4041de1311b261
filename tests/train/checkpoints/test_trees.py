"""State as JSON and arrays: every value comes back as it was, to the last bit, and what would not is refused."""

from __future__ import annotations

import enum
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad import Parameter
from minigrad.errors import ArgumentError, StateDictError
from minigrad.files import MAX_JSON_DEPTH
from minigrad.optim import AdamW
from minigrad.train.checkpoints.trees import MAX_INT_BITS, decode, encode, flatten, unflatten

KEYS = st.text(max_size=5).filter(lambda key: not key.startswith("$"))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63, max_value=2**300)
    | st.floats()
    | st.text(st.characters(), max_size=8)
)
ARRAYS = st.lists(st.integers(-9, 9), max_size=3).map(np.array)


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12)


def same(left: Any, right: Any) -> bool:
    """Equal in value and type, floats to the bit (but any NaN is like any other)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, np.ndarray):
        return left is right
    return bool(left == right)


@given(st.dictionaries(KEYS, trees(LEAVES), max_size=4))
def test_state_comes_back_as_it_was(state: dict[str, Any]) -> None:
    assert same(decode(encode(state).decode("ascii")), state)


@given(trees(LEAVES | ARRAYS))
def test_arrays_are_taken_out_and_put_back(tree: Any) -> None:
    flat, arrays = flatten(tree)
    assert same(unflatten(flat, arrays), tree)
    again = decode(encode({"tree": flat}).decode("ascii"))["tree"]
    assert same(unflatten(again, arrays), tree)


def test_special_values() -> None:
    state = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "zero": -0.0, "least": 5e-324, "philox": 2**128 - 1, "half": "\ud800"}
    assert same(decode(encode(state).decode("ascii")), state)
    assert json.loads(encode({"a": -math.inf})) == {"a": {"$float": "-inf"}}
    assert decode(encode({"bits": 2**MAX_INT_BITS - 1}).decode("ascii")) == {"bits": 2**MAX_INT_BITS - 1}


def test_tuples_and_numpy_numbers_become_lists_and_python_numbers() -> None:
    state = {"betas": (0.9, 0.999), "lr": np.float32(0.1), "step": np.int64(3), "done": np.bool_(True), "bad": np.float32("nan")}
    found = decode(encode(state).decode("ascii"))
    assert same(found, {"betas": [0.9, 0.999], "lr": float(np.float32(0.1)), "step": 3, "done": True, "bad": math.nan})


def test_the_generator_of_numpy_goes_on_where_it_was() -> None:
    rng = np.random.Generator(np.random.Philox(7))
    rng.normal(size=3)
    flat, arrays = flatten({"rng": rng.bit_generator.state})
    other = np.random.Generator(np.random.Philox(1))
    other.bit_generator.state = unflatten(decode(encode(flat).decode("ascii")), arrays)["rng"]
    assert rng.normal(size=5).tolist() == other.normal(size=5).tolist()


def test_the_state_of_an_optimizer_names_its_arrays_by_place() -> None:
    weight = Parameter(np.ones((2, 3), np.float32))
    optimizer = AdamW([weight], lr=0.1, betas=(0.8, 0.9))
    (weight * weight).sum().backward()
    optimizer.step()
    flat, arrays = flatten(optimizer.state_dict())
    assert list(arrays) == ["/state/0/exp_avg", "/state/0/exp_avg_sq"]
    saved = unflatten(decode(encode(flat).decode("ascii")), arrays)
    other = AdamW([Parameter(np.array(weight.data))], lr=9.0)
    other.load_state_dict(saved)
    for name, array in flatten(other.state_dict())[1].items():
        assert array.tobytes() == arrays[name].tobytes()
    assert other.param_groups[0]["betas"] == (0.8, 0.9)


def test_names_of_arrays_cannot_meet() -> None:
    x, y = np.zeros(1), np.ones(1)
    tree = {"a/b": x, "a": {"b": y}, "": x, "~": {"1": x}, "~1": y, "/": x}
    flat, arrays = flatten(tree)
    assert len(arrays) == 6 and same(unflatten(flat, arrays), tree)
    assert flatten(x) == ({"$array": "/"}, {"/": x})


def nested(levels: int) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = [tree]
    return tree


def looped() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    return loop


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": [{"b": np.ones(2)}]}, "holds a ndarray at '/a/0/b'.*`flatten` takes arrays out"),
        ({"a": {1, 2}}, "holds a set at '/a'"),
        ({"a": b"x"}, "holds a bytes"),
        ({"a": 1j}, "holds a complex"),
        ({"a": np.complex64(1)}, "holds a complex"),
        ({"a": Colour.RED}, "holds a Colour"),
        ({1: 2}, "the key 1 at its root; keys must be strings"),
        ({"a": {"$b": 1}}, r"the key '\$b' at '/a'"),
        ({"$float": "nan"}, r"the key '\$float'"),
        ({"a": 1 << MAX_INT_BITS}, "an integer of 14001 bits at '/a'"),
        (looped(), "or holds itself"),
        ({"a": nested(MAX_JSON_DEPTH)}, "nested more than 100 levels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_saved_is_refused_by_its_place(state: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        encode(state)


def test_the_deepest_state_is_read_again() -> None:
    for deepest in (nested(MAX_JSON_DEPTH - 1), nested(MAX_JSON_DEPTH - 2)):
        assert decode(encode({"a": deepest}).decode("ascii")) == {"a": deepest}
    with_wrapper = nested(MAX_JSON_DEPTH - 2)
    innermost = with_wrapper
    while isinstance(innermost[0], list):
        innermost = innermost[0]
    for leaf in (math.inf, {"$array": "/x"}):
        innermost[0] = leaf
        assert decode(encode({"a": with_wrapper}).decode("ascii")) == {"a": with_wrapper}
        with pytest.raises(ArgumentError, match="levels deep"):
            encode({"a": [with_wrapper]})
    with pytest.raises(ArgumentError, match="levels deep"):
        flatten(looped())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "not a JSON object"),
        ('{"$float": "nan"}', "not a JSON object"),
        ('{"a": {"$float": "NaN"}}', "stands with 'NaN'"),
        ('{"a": {"$float": ["nan"]}}', "stands with"),
        ('{"a": {"$float": "nan", "b": 1}}', "stands with"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ("{", "at character 2"),
    ],
)
def test_a_file_that_holds_no_state(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode(text)


def test_references_and_arrays_must_fit() -> None:
    flat, arrays = flatten({"a": np.ones(1), "b": np.ones(1)})
    with pytest.raises(StateDictError, match="refers to the array '/a', which is not among the 1 arrays"):
        unflatten(flat, {"/b": arrays["/b"]})
    with pytest.raises(StateDictError, match="nothing in the saved tree refers to the arrays '/c'"):
        unflatten(flat, {**arrays, "/c": arrays["/a"]})
    with pytest.raises(StateDictError, match="refers to the array"):
        unflatten({"$array": ["/a"]}, arrays)
