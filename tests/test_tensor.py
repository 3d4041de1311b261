"""Tensor and Parameter as arrays: construction, devices, mixing with NumPy, indexing, conversions, and messages that help."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from ops.cases import CASES, Sample

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.errors import (
    ArgumentError,
    DTypeError,
    GraphError,
    IndexRangeError,
    MinigradError,
    ShapeError,
)
from minigrad.parameter import Buffer, Parameter
from minigrad.tensor import Tensor


# ---------------------------------------------------------------- construction
@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"), ([1.0, 2.0], "float32"), ([[1, 2]], "int64"), (3, "int64"), (True, "bool"), ([True, False], "bool"),
        ([], "float32"),
        (np.array([1.0]), "float64"), (np.array([1.0], np.float32), "float32"), (np.array([1], np.int32), "int32"),
        (np.float64(2.0), "float64"),
        (np.array([1.0], np.float16), "float16"), (Tensor(np.array([1.0])), "float64"), ([1, 2.5], "float32"), ((1, 2), "int64"),
    ],
    ids=repr,
)  # fmt: skip
def test_dtype_of_data(data: Any, dtype: str) -> None:
    assert Tensor(data).dtype == dtype


def test_dtype_asked_for() -> None:
    assert Tensor([1, 2], dtype="float64").dtype == np.float64
    assert Tensor(np.array([1.7]), dtype=np.int64).tolist() == [1]
    with pytest.raises(ArgumentError, match=r"unknown dtype or device 'floaty'"):
        Tensor([1.0], dtype="floaty")


@pytest.mark.parametrize("data", ["text", None, object(), [[1, 2], [3]], [1j], np.array(["a"]), np.array([1j]), {"a": 1}], ids=repr)
def test_data_that_are_no_numbers(data: Any) -> None:
    with pytest.raises(DTypeError):
        Tensor(data)


@pytest.mark.parametrize("data", [np.array([1j]), np.complex64(1j), np.array(["1"]), np.array(["2026-11-28"], "M8[D]")], ids=repr)
def test_a_dtype_makes_no_numbers_of_other_arrays(data: Any) -> None:
    p = Parameter([1.0])
    for use in (lambda: Tensor(data, dtype="float32"), lambda: p.assign(data)):
        with pytest.raises(DTypeError, match=r"a tensor holds floats \(up to float64\), integers or booleans, not "):
            use()
    assert p.tolist() == [1.0]


def test_masked_numbers_are_refused() -> None:
    """Otherwise the numbers below the mask would count again."""
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    p, buffer = Parameter(np.ones(2)), Buffer(np.ones(2))
    p.grad = np.ones(2)
    with pytest.raises(DTypeError, match=r"filled\(0\)"):
        p[np.ma.array([0, 1], mask=[False, True])]
    uses = (Tensor, lambda x: Tensor([1.0, 1.0]) * x, p.assign, buffer.assign, lambda x: setattr(p, "grad", x))
    for use in uses:
        with pytest.raises(DTypeError, match=r"filled\(0\)"):
            use(masked)
    assert p.tolist() == buffer.tolist() == p.grad.tolist() == [1.0, 1.0]
    for use in uses:
        use(masked.filled(0))
        use(np.ma.array([1.0, 2.0]))
    assert p.tolist() == buffer.tolist() == p.grad.tolist() == [1.0, 2.0]


def test_data_are_copied() -> None:
    source = np.array([1.0, 2.0])
    x = Tensor(source)
    y = Tensor(x)
    source[0] = 99.0
    assert x.tolist() == y.tolist() == [1.0, 2.0]
    assert not np.shares_memory(x.array, y.array)


def test_attributes() -> None:
    x = mg.zeros((2, 3))
    assert (x.shape, x.ndim, x.size, x.device, x.requires_grad, x.grad, len(x)) == ((2, 3), 2, 6, "cpu", False, None, 2)


# ---------------------------------------------------------------- devices
def test_unknown_device() -> None:
    for make in (lambda: Tensor(1.0, device="gpu"), lambda: mg.zeros(2, device="cuda:0")):
        with pytest.raises(ArgumentError, match=r"unknown device.*cpu, cuda, auto"):
            make()
    with pytest.raises(ArgumentError, match='"cpu", "cuda" or "auto"'):
        Tensor(1.0).to("gpu")


@pytest.mark.parametrize(
    "move", [lambda name: Tensor(1.0).to(name), lambda name: mg.nn.Linear(2, 2).to(name), lambda name: mg.zeros(2, device=name)]
)
def test_a_numbered_gpu_is_chosen_by_the_environment(move: Any) -> None:
    with pytest.raises(ArgumentError, match=r"unknown device 'cuda:1'.*CUDA_VISIBLE_DEVICES"):
        move("cuda:1")


def test_moving_to_the_device_it_is_on_is_free() -> None:
    x = Tensor([1.0])
    assert x.to("cpu") is x


# ---------------------------------------------------------------- read-only
def test_data_and_numpy_are_read_only_views() -> None:
    x = Tensor([1.0, 2.0])
    for view in (x.data, x.numpy()):
        assert np.shares_memory(view, x.array)
        with pytest.raises(ValueError, match=r"read-only"):
            view[0] = 5.0


def test_gradients_are_read_only_too() -> None:
    x = Tensor([1.0], requires_grad=True)
    (x * 2.0).sum().backward()
    assert x.grad is not None
    with pytest.raises(ValueError, match=r"read-only"):
        x.grad.numpy()[0] = 0.0


def test_item_assignment_is_refused_with_the_remedy() -> None:
    x = Tensor([1.0, 2.0])
    with pytest.raises(DTypeError, match=r"functional\.where"):
        x[0] = 5.0


def test_augmented_assignment_rebinds() -> None:
    x = Tensor([1.0])
    before = x
    x += 1.0
    x *= 3.0
    assert before.tolist() == [1.0] and x.tolist() == [6.0]


# ---------------------------------------------------------------- NumPy
ARRAY = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    "operation",
    [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, lambda a, b: a**b, lambda a, b: a @ b],
)
@pytest.mark.parametrize(
    "other", [ARRAY * 0.5, np.float64(0.5), np.array([2, 1]), [[0.5, 1.0], [1.0, 2.0]]], ids=["array", "scalar", "ints", "list"]
)
def test_arrays_and_tensors_mix_on_both_sides(operation: Any, other: Any) -> None:
    x = Tensor(ARRAY, requires_grad=True)
    plain = np.asarray(other)
    try:
        expected = operation(plain, ARRAY), operation(ARRAY, plain)
    except ValueError:  # a scalar has no matrix product
        for left, right in ((other, x), (x, other)):
            with pytest.raises(ShapeError, match=r"matmul"):
                operation(left, right)
        return
    for found, value in zip((operation(other, x), operation(x, other)), expected, strict=True):
        assert type(found) is Tensor and found.requires_grad
        np.testing.assert_allclose(found.numpy(), value, rtol=1e-15)


class Shown:
    """An array of another library, as NumPy sees it."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(ARRAY, dtype=dtype)


@pytest.mark.parametrize("other", [ARRAY.view(np.matrix), ARRAY.view(np.matrix)[:, ::-1].T, Shown()], ids=["matrix", "turned", "shown"])
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_arrays_of_other_kinds_count_as_plain_ones(other: Any) -> None:
    plain = np.array(other)
    for x in (Tensor(ARRAY), Tensor(ARRAY, requires_grad=True)):
        for found, expected in ((x * other, ARRAY * plain), (other * x, ARRAY * plain), (F.linear(other, x), plain @ ARRAY.T)):
            assert type(found) is Tensor and type(found.array) is np.ndarray
            np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(F.multiply(other, other).numpy(), plain * plain)  # for np.matrix, too, whose `*` is the matrix product


@pytest.mark.parametrize(
    "other",
    [*(np.ones(2, np.int64).astype(kind) for kind in (complex, object, np.longdouble, "U8", "m8[s]")), np.complex64(1), np.longdouble(1)],
    ids=repr,
)
def test_arrays_of_what_no_tensor_holds_are_refused(other: Any) -> None:
    for call in (lambda: Tensor([1.0, 2.0]) * other, lambda: F.exp(other)):
        with pytest.raises(DTypeError, match=r"cannot use|a tensor holds floats \(up to float64\), integers or booleans, not"):
            call()


@pytest.mark.parametrize("compare", ["__lt__", "__le__", "__gt__", "__ge__"])
def test_comparisons_are_elementwise_and_have_no_history(compare: str) -> None:
    x = Tensor(ARRAY, requires_grad=True)
    for other in (2.0, np.array([1.0, 4.0]), Tensor(ARRAY.T)):
        found = getattr(x, compare)(other)
        assert found.dtype == bool and not found.requires_grad
        np.testing.assert_array_equal(found.numpy(), getattr(ARRAY, compare)(other.numpy() if isinstance(other, Tensor) else other))
    assert (np.array([0.0, 9.0]) < x).tolist() == [[True, False], [True, False]]
    tenth = Tensor([0.1])  # in float32, which is not the 0.1 of float64
    assert getattr(tenth, compare)([0.1]).tolist() == [compare in ("__le__", "__ge__")], "a list takes over the tensor's dtype"


def test_asarray_refuses_to_lose_a_gradient() -> None:
    x = Tensor([1.0], requires_grad=True)
    for tensor in (x, x * 2.0):
        with pytest.raises(GraphError, match=r"\.detach\(\)\.numpy\(\)") as error:
            np.asarray(tensor)
        assert error.value.code == "graph-detach"
    assert np.asarray(x.detach()).tolist() == [1.0]
    with mg.no_grad():
        assert np.asarray(x).tolist() == [1.0]


def test_asarray_of_a_plain_tensor() -> None:
    x = Tensor([1.0, 2.0])
    assert np.asarray(x).dtype == np.float32
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    changed = np.array(x)
    changed[0] = 9.0
    assert x.tolist() == [1.0, 2.0]
    with pytest.raises(TypeError):
        np.exp(x)  # NumPy's functions refuse Tensors, because the derivative would be lost silently


# ---------------------------------------------------------------- array protocol
def test_len_and_iteration() -> None:
    x = Tensor(ARRAY, requires_grad=True)
    assert len(x) == 2
    rows = list(x)
    assert [r.tolist() for r in rows] == ARRAY.tolist()
    (rows[1] * 2.0).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0.0, 0.0], [2.0, 2.0]]
    for nothing in (len, list):
        with pytest.raises(DTypeError, match=r"0-dimensional"):
            nothing(Tensor(1.0))


def test_bool_float_int_index() -> None:
    assert bool(Tensor([[1.0]])) and not bool(Tensor(0))
    assert float(Tensor([1.5])) == 1.5 and int(Tensor(7)) == 7 and int(Tensor([2.7])) == 2
    assert [10, 20, 30][Tensor(1)] == 20 and list(range(Tensor(3))) == [0, 1, 2]
    with pytest.raises(ArgumentError, match=r"shape \(2,\) is ambiguous"):
        bool(Tensor([1.0, 2.0]))
    with pytest.raises(ArgumentError, match=r"shape \(0,\)"):
        bool(Tensor([]))
    for convert in (float, int):
        with pytest.raises(ShapeError, match=r"exactly one element"):
            convert(Tensor([1.0, 2.0]))
    with pytest.raises(DTypeError, match=r"float32 tensor is no index"):
        range(Tensor(3.0))


def test_item() -> None:
    assert type(Tensor(1.5).item()) is float and type(Tensor([[3]]).item()) is int and type(Tensor(True).item()) is bool
    with pytest.raises(ShapeError, match=r"exactly one element.*\(2, 2\)"):
        Tensor(ARRAY).item()


def test_equality_is_identity_and_tensors_are_hashable() -> None:
    x, y = Tensor([1.0]), Tensor([1.0])
    assert x == x and x != y and not (x == 1.0)  # noqa: SIM201 - `!=` is another method
    assert len({x, y, x}) == 2 and x in [x] and y not in [x]


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (Tensor([1.0, 2.5]), "Tensor([1. , 2.5], dtype=float32)"),
        (Tensor(3), "Tensor(3, dtype=int64)"),
        (Tensor([1.0], requires_grad=True), "Tensor([1.], dtype=float32, requires_grad=True)"),
        (Parameter(np.ones(1)), "Parameter([1.], dtype=float64, requires_grad=True)"),
        (Tensor([]), "Tensor([], dtype=float32)"),
    ],
)
def test_repr(tensor: Tensor, text: str) -> None:
    assert repr(tensor) == text


def test_formats_are_those_of_the_number() -> None:
    x = Tensor([[0.25]], requires_grad=True)
    assert f"{x:.3f} {Tensor(7):>3d} {Tensor(True)}" == f"0.250   7 {Tensor(True)!r}"
    with pytest.raises(ShapeError, match=r"exactly one element, this tensor has shape \(2,\)"):
        f"{Tensor([1.0, 2.0]):.3f}"


def test_repr_of_a_large_tensor_is_short() -> None:
    assert len(repr(mg.zeros((1000, 1000)))) < 700


# ---------------------------------------------------------------- indexing
KEYS: dict[str, Any] = {
    "int": 1, "negative int": -1, "slice": slice(None, None, -1), "ellipsis": ..., "none": None, "tuple": (0, slice(1, None)),
    "list": [0, 0, 1],
    "nested list": [[0, 1], [1, 1]], "empty list": [], "mask": ARRAY > 1.5, "bool list": [True, False], "row mask": np.array([False, True]),
    "mixed": (..., [0, 0], None), "integer array": np.array([1, 0]), "pairs": ([0, 1], [1, 1]), "empty tuple": (),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(KEYS))
def test_indexing_as_in_numpy(name: str) -> None:
    key = KEYS[name]
    x = Tensor(ARRAY, requires_grad=True)
    plain = np.zeros(0, np.int64) if name == "empty list" else key
    found = x[key]
    np.testing.assert_array_equal(found.numpy(), ARRAY[plain])
    assert found.shape == ARRAY[plain].shape
    assert mg.gradcheck(lambda x: x[key], x, order=2)


@given(CASES["getitem"])
def test_indexing_with_any_key(sample: Sample) -> None:
    (x,), key = sample.args, sample.constants["key"]
    np.testing.assert_array_equal(Tensor(x)[key].numpy(), x[key])


def test_indexing_with_tensors() -> None:
    x = Tensor(ARRAY, requires_grad=True)
    np.testing.assert_array_equal(x[Tensor([1, 1])].numpy(), ARRAY[[1, 1]])
    np.testing.assert_array_equal(x[Tensor([0, 1]), Tensor([1, 0])].numpy(), ARRAY[[0, 1], [1, 0]])
    np.testing.assert_array_equal(x[x > 1.5].numpy(), ARRAY[ARRAY > 1.5])


@pytest.mark.parametrize("key", [2, -3, [0, 5], (0, 0, 0), Tensor([9])], ids=repr)
def test_an_index_outside_names_the_operation(key: Any) -> None:
    with pytest.raises(IndexRangeError, match=r"getitem\(float64\[2, 2\]"):
        Tensor(ARRAY)[key]


@pytest.mark.parametrize("key", [1.0, "a", Tensor([0.5])], ids=repr)
def test_an_index_that_is_no_index(key: Any) -> None:
    with pytest.raises(MinigradError, match=r"getitem"):
        Tensor(ARRAY)[key]


# ---------------------------------------------------------------- conversion
def test_to_converts_and_converts_the_gradient_back() -> None:
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    y = x.to("float64")
    assert y.dtype == np.float64 and x.to(np.float32) is x and x.astype("float32") is x
    (y * 3.0).sum().backward()
    assert x.grad is not None and x.grad.dtype == np.float32 and x.grad.tolist() == [3.0, 3.0]


def test_conversion_to_integers_carries_no_gradient() -> None:
    x = Tensor([1.7], requires_grad=True).to("int64")
    assert x.tolist() == [1] and not x.requires_grad
    assert Tensor([0.0, 2.0]).to(bool).tolist() == [False, True]
    assert Tensor([1, 2]).to("float64").dtype == np.float64


def test_detach_shares_the_numbers_without_history() -> None:
    x = Tensor([1.0], requires_grad=True)
    d = (x * 2.0).detach()
    assert not d.requires_grad and d.tolist() == [2.0]


# ---------------------------------------------------------------- requires_grad
def test_requires_grad_belongs_to_leaves() -> None:
    x = Tensor([1.0])
    assert x.requires_grad_() is x and x.requires_grad and not x.requires_grad_(False).requires_grad
    y = x.requires_grad_() * 2.0
    for wish in (True, False):
        with pytest.raises(GraphError, match=r"\.detach\(\)") as error:
            y.requires_grad_(wish)
        assert error.value.code == "graph-detach"


def test_setting_requires_grad_freezes_and_unfreezes() -> None:
    p, x = Parameter([1.0, 2.0]), Tensor([1.0, 2.0])
    p.requires_grad, x.requires_grad = False, True
    loss = (p * x).sum()
    loss.backward()
    assert p.grad is None and x.grad is not None and x.grad.tolist() == [1.0, 2.0]
    p.requires_grad = True
    (p * 3.0).sum().backward()
    assert p.grad is not None
    with pytest.raises(GraphError, match=r"\.detach\(\)"):
        loss.requires_grad = False


@pytest.mark.parametrize("data", [[1, 2], [True]])
def test_integers_and_booleans_carry_no_gradient(data: Any) -> None:
    with pytest.raises(DTypeError, match=r"only floating tensors.*\.to\('float32'\)"):
        Tensor(data, requires_grad=True)
    with pytest.raises(DTypeError, match=r"floating"):
        Parameter(np.array(data))


def test_integer_inputs_get_no_gradient_and_float_inputs_do() -> None:
    ids, table = Tensor([1, 1]), Tensor(np.ones((3, 2)), requires_grad=True)
    F.embedding(ids, table).sum().backward()
    assert ids.grad is None and table.grad is not None


# ---------------------------------------------------------------- parameters
def test_assign_writes_in_place_and_checks_the_shape() -> None:
    p = Parameter(np.zeros((2, 2), np.float32))
    before, version = p.array, p.leaf.version
    p.assign(ARRAY)
    assert p.array is before and p.dtype == np.float32 and p.leaf.version == version + 1
    p.assign(Tensor(ARRAY * 2.0))
    p.assign(Shown())
    np.testing.assert_array_equal(p.numpy(), ARRAY)
    p.assign([[1, 2], [3, 4]])
    np.testing.assert_array_equal(p.numpy(), ARRAY)
    with pytest.raises(ShapeError, match=r"\(3,\).*\(2, 2\)"):
        p.assign(np.zeros(3))


def test_a_gradient_in_anothers_place_is_a_copy_and_checked() -> None:
    p, g = Parameter(np.zeros(2, np.float32)), np.array([1.0, 2.0])
    p.grad = g
    g[:] = 0.0
    assert p.grad is not None and p.grad.tolist() == [1.0, 2.0] and p.grad.dtype == np.float32
    with pytest.raises(ShapeError, match=r"\(3,\) to the gradient of a parameter of shape \(2,\)"):
        p.grad = np.zeros(3)
    with pytest.raises(DTypeError):
        p.grad = "steep"  # type: ignore[assignment]
    assert p.grad.tolist() == [1.0, 2.0]


def test_freezing_a_parameter_keeps_its_gradient_slot() -> None:
    p = Parameter(np.ones(2))
    leaf = p.leaf
    assert not p.requires_grad_(False).requires_grad
    assert not (p * 2.0).requires_grad
    assert p.requires_grad_().node is leaf


@pytest.mark.parametrize("data", [np.array(["a", "b"]), [[1.0], [1.0, 2.0]], object()])
def test_assign_refuses_what_is_no_array_of_numbers(data: Any) -> None:
    p = Parameter(np.ones(2))
    with pytest.raises(DTypeError):
        p.assign(data)
    assert p.tolist() == [1.0, 1.0]


def test_converted_storage_invalidates_recorded_graphs() -> None:
    p = Parameter(np.ones(2))
    loss = (p * p).sum()
    p.replace_storage(p.array.copy())  # the same numbers elsewhere, as when an optimizer moves them into its arena
    loss.backward(retain_graph=True)
    assert p.grad is not None and p.grad.tolist() == [2.0, 2.0]
    p.replace_storage(p.array.astype(np.float32))
    with pytest.raises(GraphError) as error:
        loss.backward()
    assert error.value.code == "graph-stale"
    (p * p).sum().backward()
    assert p.grad is not None and p.grad.dtype == np.float32


def test_a_ledger_is_settled_before_anybody_reads() -> None:
    calls: list[Any] = []

    class Ledger:
        def settle(self) -> None:
            calls.append("all")

        def settle_rows(self, ids: Any) -> None:
            calls.append(np.asarray(ids).tolist())

    table = Parameter(np.ones((4, 2)), gathered=True)
    table.ledger = Ledger()
    F.embedding([1, 3], table)
    F.embedding(Tensor([2]), table)
    assert calls == [[1, 3], [2]]
    for read in (lambda: table.numpy(), lambda: table * 1.0, lambda: table.tolist(), lambda: table[0], lambda: repr(table)):
        calls.clear()
        read()
        assert calls and set(calls) == {"all"}


# ---------------------------------------------------------------- methods are operations
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda x: -x, -ARRAY), (abs, abs(ARRAY)), (lambda x: x.T, ARRAY.T), (lambda x: x.reshape(4), ARRAY.reshape(4)),
        (lambda x: x.reshape((1, -1)), ARRAY.reshape(1, -1)), (lambda x: x.transpose(1, 0), ARRAY.T),
        (lambda x: x.swapaxes(0, -1), ARRAY.T),
        (lambda x: x.reshape(1, 2, 2, 1).squeeze(), ARRAY), (lambda x: x.reshape(1, 2, 2, 1).squeeze(-1), ARRAY[None]),
        (lambda x: x.sum(axis=0), ARRAY.sum(axis=0)), (lambda x: x.mean(keepdims=True), ARRAY.mean(keepdims=True)),
        (lambda x: x.var(ddof=1), ARRAY.var(ddof=1)), (lambda x: x.max(axis=1), ARRAY.max(axis=1)), (lambda x: x.min(), ARRAY.min()),
        (lambda x: x.argmax(), ARRAY.argmax()), (lambda x: x.argmin(axis=0), ARRAY.argmin(axis=0)), (lambda x: x.exp(), np.exp(ARRAY)),
        (lambda x: x.log(), np.log(ARRAY)), (lambda x: x.sqrt(), np.sqrt(ARRAY)), (lambda x: x.tanh(), np.tanh(ARRAY)),
    ],
)  # fmt: skip
def test_methods(found: Any, expected: Any) -> None:
    result = found(Tensor(ARRAY))
    assert result.shape == np.shape(expected) and result.dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-15)


# ---------------------------------------------------------------- messages
@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: Tensor(np.ones(2)) + np.ones(3), ShapeError, [r"add\(", r"float64\[2\]", r"float64\[3\]", r"\*s, \*s -> \*s"]),
        (lambda: mg.ones((2, 3)) @ mg.ones((2, 3)), ShapeError, [r"matmul\(", r"float32\[2, 3\]", r"\*b m k, \*b k n"]),
        (lambda: mg.ones((2, 3)).reshape(4), ShapeError, [r"reshape\(", r"float32\[2, 3\]", r"shape=\(?4"]),
        (lambda: mg.ones((2, 3)).sum(axis=5), ShapeError, [r"sum\(", r"float32\[2, 3\]", "axis=5"]),
        (lambda: F.concatenate([mg.ones((2, 3)), mg.ones((2, 2))]), ShapeError, [r"concatenate\(", r"\[2, 3\]", r"\[2, 2\]"]),
        (lambda: Tensor(1.0).mean(axis=0), ShapeError, [r"mean\(float32\[\]", "axis 0 is out of bounds"]),
        (lambda: F.softmax(mg.ones((2, 3)), axis=2), ShapeError, [r"softmax\(float32\[2, 3\]", "axis=2"]),
        (lambda: F.logsumexp(Tensor(1.0)), ShapeError, [r"logsumexp\(float32\[\]", "axis -1"]),
        (lambda: F.expand_dims(mg.ones((2, 3)), 4), ShapeError, ["axis 4", r"\(2, 3\)"]),
        (lambda: F.split(mg.ones(4), 2, axis=1), ShapeError, ["axis 1", r"\(4,\)"]),
        (lambda: F.split(mg.ones(4), 0), ShapeError, ["0 parts"]),
        (lambda: F.concatenate([Tensor(1.0)]), ShapeError, [r"concatenate\(", "axis 0"]),
        (lambda: F.embedding([0], mg.ones(3)), ShapeError, [r"\(rows, width\)", r"\(3,\)"]),
        (lambda: F.concatenate([]), ArgumentError, ["at least one"]),
        (lambda: F.stack([]), ArgumentError, ["at least one"]),
        (lambda: F.split(mg.ones(5), 2), ShapeError, ["length 5", "2 equal parts"]),
        (lambda: Tensor([1.0]) + "text", DTypeError, ["str", "pass a Tensor"]),
        (lambda: Tensor([1.0]) + None, MinigradError, ["add"]),
        (lambda: ops.add(1.0, 2.0), DTypeError, ["add needs at least one tensor"]),
        (lambda: F.cross_entropy(mg.ones((2, 3)), [0]), ShapeError, [r"\(1,\)", r"\(2, 3\)"]),
        (lambda: F.dropout(mg.ones(2), 1.5), ArgumentError, ["between 0 and 1", "1.5"]),
    ],
)  # fmt: skip
def test_errors_name_the_operation_the_shapes_and_the_rule(call: Any, kind: Any, words: list[str]) -> None:
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert re.search(word, str(error.value)), f"{word!r} not in {error.value}"


def test_copies() -> None:
    x = Tensor([1.0, 2.0])
    assert copy.deepcopy(x).tolist() == [1.0, 2.0]
