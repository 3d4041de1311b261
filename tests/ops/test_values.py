"""Values: operations with a NumPy name equal NumPy's function, special functions equal SciPy's, and fused operations
equal their parts.
"""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ops.cases import CASES, Sample
from strategies import axes, broadcastable, shapes

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import REGISTRY
from minigrad.packing import Packing

DTYPES = (np.float32, np.float64, np.int64, np.int32, np.bool_)


def numbers(shape: tuple[int, ...], dtype: Any, low: float = -50.0, high: float = 50.0) -> st.SearchStrategy[np.ndarray]:
    """Arrays of integers and fractions within a range where no operation overflows."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return hnp.arrays(dtype, shape)
    if kind == "i":
        return hnp.arrays(dtype, shape, elements=st.integers(int(np.ceil(low)), int(high)))
    return hnp.arrays(dtype, shape, elements=st.floats(low, high, width=32, allow_subnormal=False))


def same(found: mg.Tensor, expected: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Equal shape and dtype; values equal, or within a tolerance where the order of additions differs."""
    array = np.asarray(expected)
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    np.testing.assert_allclose(found.numpy(), array, rtol=rtol, atol=atol)


# ---------------------------------------------------------------- NumPy's names
def promoted(name: str, *arrays: np.ndarray) -> list[np.ndarray]:
    """The documented rule: all are converted to the first floating dtype; without one, "float" operations convert to float32."""
    floating = [a.dtype for a in arrays if a.dtype.kind == "f"]
    if not floating and REGISTRY[name].promotes == "mixed":
        return list(arrays)
    return [a if a.dtype.kind == "f" else a.astype(floating[0] if floating else np.float32) for a in arrays]


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum"])
@given(data=st.data())
def test_two_arrays(name: str, data: st.DataObject) -> None:
    kinds = DTYPES[:-1] if name in ("subtract", "power") else DTYPES  # NumPy cannot subtract booleans
    low, high = {"divide": (1.0, 50.0), "power": (0.5, 4.0)}.get(name, (-50.0, 50.0))
    x, y = (data.draw(numbers(s, data.draw(st.sampled_from(kinds)), low, high)) for s in data.draw(broadcastable(2, max_dims=3)))
    if name == "divide":
        y = np.where(y == 0, np.ones_like(y), y)
    # Up to NumPy 2.2 the operator has another dtype than np.power for some exponents without axes.
    of_numpy = operator.pow if name == "power" else getattr(np, name)
    same(getattr(ops, name)(x, mg.Tensor(y)), of_numpy(*promoted(name, x, y)))


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "negative", "absolute"])
@given(data=st.data())
def test_one_array(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES[:-1]))
    x = data.draw(numbers(data.draw(shapes()), dtype, 0.5 if name in ("log", "sqrt") else -20.0, 20.0))
    same(getattr(ops, name)(x), getattr(np, name)(*promoted(name, x) if REGISTRY[name].promotes else (x,)))


@pytest.mark.parametrize(
    ("left", "right", "dtype"),
    [
        (np.int64, 2, "int64"), (np.int64, 2.5, "float32"), (np.float32, 2, "float32"), (np.float32, 2.5, "float32"),
        (np.float64, 2.5, "float64"),
        (np.float32, np.int64, "float32"), (np.int64, np.float64, "float64"), (np.int32, np.int64, "int64"),
        (np.float32, np.float64, "float64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["add", "multiply", "maximum"])
def test_promotion(name: str, left: Any, right: Any, dtype: str) -> None:
    x = mg.Tensor(np.array([1, 2, 3], left))
    y = mg.Tensor(np.array([3, 2, 1], right)) if isinstance(right, type) else right
    assert getattr(ops, name)(x, y).dtype == getattr(ops, name)(y, x).dtype == dtype


@given(data=st.data())
def test_where(data: st.DataObject) -> None:
    c, a, b = data.draw(broadcastable(3, max_dims=3))
    mask, x, y = data.draw(numbers(c, np.bool_)), data.draw(numbers(a, np.float32)), data.draw(numbers(b, np.float32))
    same(F.where(mask, mg.Tensor(x), mg.Tensor(y)), np.where(mask, x, y))
    same(F.where(mask, mg.Tensor(x), 0.0), np.where(mask, x, np.float32(0)))


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "min"])
@given(data=st.data())
def test_reductions(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from((np.float32, np.float64, np.int64)))
    shape = data.draw(shapes(min_side=0 if name == "sum" else 1))
    x, axis, keepdims = data.draw(numbers(shape, dtype)), data.draw(axes(len(shape))), data.draw(st.booleans())
    found = getattr(mg.Tensor(x), name)(axis=axis, keepdims=keepdims)
    source = x.astype(np.float32) if dtype is np.int64 and name in ("mean", "var") else x  # ints are averaged in float32
    exact = getattr(np, name)(source.astype(np.float64) if source.dtype.kind == "f" else source, axis=axis, keepdims=keepdims)
    # 32 numbers up to 50, or their squares, added in another order
    tolerance = {"float32": 32 * 2500 * 1e-7, "float64": 32 * 2500 * 2e-16}.get(source.dtype.name, 0.0)
    same(found, np.asarray(exact).astype(source.dtype), atol=tolerance)


@given(data=st.data())
def test_var_ddof_and_std(data: st.DataObject) -> None:
    x = data.draw(numbers(data.draw(shapes(min_dims=1, min_side=2)), np.float64))
    for ddof in (0, 1):
        same(mg.Tensor(x).var(axis=-1, ddof=ddof), np.var(x, axis=-1, ddof=ddof), rtol=1e-9, atol=1e-9)
        same(F.std(mg.Tensor(x), axis=-1, ddof=ddof), np.std(x, axis=-1, ddof=ddof), rtol=1e-9, atol=1e-7)  # √ of a rounding error


@pytest.mark.parametrize("name", ["reshape", "transpose", "swapaxes", "broadcast_to", "concatenate", "getitem"])
@given(data=st.data())
def test_moving_elements(name: str, data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES[name])
    x, c = sample.args[0], sample.constants
    expected = {
        "reshape": lambda: x.reshape(c["shape"]),
        "transpose": lambda: x.transpose(c["axes"]),
        "swapaxes": lambda: x.swapaxes(c["a"], c["b"]),
        "broadcast_to": lambda: np.broadcast_to(x, c["shape"]),
        "concatenate": lambda: np.concatenate(sample.args, axis=c["axis"]),
        "getitem": lambda: x[c["key"]],
    }[name]()
    same(REGISTRY[name](*sample.args, **c), expected)


@given(CASES["matmul"], st.sampled_from([np.float32, np.float64]))
def test_matmul(sample: Sample, dtype: Any) -> None:
    x, y = (a.astype(dtype) for a in sample.args)
    same(mg.Tensor(x) @ mg.Tensor(y), x @ y)


@given(data=st.data())
def test_stack_split_expand_dims(data: st.DataObject) -> None:
    shape = data.draw(shapes(min_dims=1, max_dims=3))
    parts = [data.draw(numbers(shape, np.float32)) for _ in range(data.draw(st.integers(1, 3)))]
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    stacked = np.stack(parts, axis=axis)
    same(F.stack([mg.Tensor(p) for p in parts], axis=axis), stacked)
    same(F.expand_dims(mg.Tensor(parts[0]), axis), np.expand_dims(parts[0], axis))
    for found, expected in zip(F.split(mg.Tensor(stacked), len(parts), axis=axis), np.split(stacked, len(parts), axis=axis), strict=True):
        same(found, expected)


def test_creation() -> None:
    same(mg.zeros((2, 3)), np.zeros((2, 3), np.float32))
    same(mg.ones(4, dtype="float64"), np.ones(4))
    same(mg.full((1, 2), 3, dtype="int64"), np.full((1, 2), 3))
    same(mg.arange(5), np.arange(5))
    same(mg.arange(1, 2, 0.25), np.arange(1, 2, 0.25, dtype=np.float32))
    assert mg.zeros(2, requires_grad=True).requires_grad
    for made in (lambda: mg.zeros(2, 3), lambda: mg.ones(2, 3), lambda: mg.full(2, 3, 4)):
        with pytest.raises(ArgumentError, match=r"the sides of a shape are given as one tuple, as in zeros\(\(2, 3\)\)"):
            made()


# ---------------------------------------------------------------- SciPy's special functions
SPECIAL = {
    "erf": scipy.special.erf, "erfc": scipy.special.erfc, "sigmoid": scipy.special.expit,
    "log_softmax": lambda x: scipy.special.log_softmax(x, axis=-1), "softmax": lambda x: scipy.special.softmax(x, axis=-1),
    "logsumexp": lambda x: scipy.special.logsumexp(x, axis=-1),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SPECIAL))
@given(data=st.data())
def test_special_functions(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from((np.float32, np.float64)))
    x = data.draw(numbers(data.draw(shapes(min_dims=1, min_side=1)), dtype))
    arguments = (mg.Tensor(x), None) if name == "softmax" else (mg.Tensor(x),)
    expected = np.asarray(SPECIAL[name](x.astype(np.float64))).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    # Sums and differences of numbers up to 50 (log_softmax, logsumexp); e⁻⁵⁰ of a rounded argument (the others).
    same(REGISTRY[name](*arguments), expected, rtol=100 * eps, atol=100 * eps if name.startswith("log") else float(np.finfo(dtype).tiny))


@given(data=st.data())
def test_masked_softmax_is_softmax_of_the_entries_that_take_part(data: st.DataObject) -> None:
    shape = data.draw(shapes(min_dims=1, max_dims=3, min_side=1))
    x, mask = data.draw(numbers(shape, np.float64)), data.draw(numbers(shape, np.bool_))
    found = F.softmax(mg.Tensor(x), mask=mask).numpy()
    assert (found[~mask] == 0).all()
    for place in np.ndindex(shape[:-1]):
        if mask[place].any():
            np.testing.assert_allclose(found[place][mask[place]], scipy.special.softmax(x[place][mask[place]]), rtol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@given(data=st.data())
def test_cross_entropy_is_the_mean_of_negative_log_probabilities(smoothing: float, data: st.DataObject) -> None:
    n, classes = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    logits = data.draw(numbers((n, classes), np.float64))
    labels = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    log_p = scipy.special.log_softmax(logits, axis=-1)
    expected = (1 - smoothing) * -log_p[np.arange(n), labels].mean() + smoothing * -log_p.mean()
    assert F.cross_entropy(mg.Tensor(logits), labels, label_smoothing=smoothing).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_mse_loss_broadcasts_nothing() -> None:
    assert F.mse_loss(mg.Tensor([1.0, 3.0]), [0.0, 0.0]).item() == 5.0
    with pytest.raises(ShapeError, match="must be equal"):
        F.mse_loss(mg.zeros((2, 1)), np.zeros(2))


# ---------------------------------------------------------------- fused operations are their parts
@given(CASES["dense_add_norm"])
def test_dense_add_norm_is_its_parts(sample: Sample) -> None:
    x, weight, bias, residual, gamma, beta = (mg.Tensor(a) for a in sample.args)
    y, draw = F.linear(x, weight, bias), sample.constants["draw"]
    expected = F.layer_norm((y if draw is None else ops.dropout(y, draw=draw)) + residual, gamma, beta, eps=sample.constants["eps"])
    same(ops.dense_add_norm(*sample.args, **sample.constants), expected.numpy(), rtol=1e-12, atol=1e-12)


@given(CASES["dense_gelu"])
def test_dense_gelu_is_its_parts(sample: Sample) -> None:
    expected = F.gelu(F.linear(*(mg.Tensor(a) for a in sample.args)), **sample.constants)
    same(ops.dense_gelu(*sample.args, **sample.constants), expected.numpy(), rtol=1e-12, atol=1e-12)


@given(CASES["dense_tanh"])
def test_dense_tanh_is_its_parts(sample: Sample) -> None:
    expected = F.tanh(F.linear(*(mg.Tensor(a) for a in sample.args)))
    same(ops.dense_tanh(*sample.args), expected.numpy(), rtol=0, atol=0)


@given(CASES["linears"])
def test_linears_is_linear_side_by_side(sample: Sample) -> None:
    x, *rest = sample.args
    layers = zip(rest[: len(rest) // 2], rest[len(rest) // 2 :], strict=True)
    same(ops.linears(*sample.args), np.concatenate([x @ w.T + b for w, b in layers], axis=1), rtol=1e-12, atol=1e-12)


@given(CASES["attention"])
def test_attention_is_softmax_of_scores_sequence_by_sequence(sample: Sample) -> None:
    q, kv = sample.args
    c = sample.constants
    packing, heads, recipe = c["packing"], c["heads"], c["draw"]
    asking = c["queries"] or packing
    d = kv.shape[1] // heads // (3 if q is None else 2)
    if q is None:
        q, kv = kv[:, : heads * d], kv[:, heads * d :]
    expected = np.zeros((asking.rows, heads * d))
    for i in range(len(packing)):
        rows = slice(*asking.spans[i])
        keys = slice(packing.offsets[i] + bool(packing.masked_first and packing.masked_first[i]), packing.offsets[i + 1])
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            scores = q[rows, part] @ kv[keys, part].T / np.sqrt(d)
            seen = np.tri(*scores.shape, scores.shape[1] - scores.shape[0], dtype=bool) | (not c["causal"])
            blind = ~seen.any(axis=1, keepdims=True)  # a query without any key: zeros
            weights = scipy.special.softmax(np.where(seen | blind, scores, -np.inf), axis=-1) * ~blind
            if recipe is not None:
                weights = weights * recipe.pairs(i)[h] * recipe.scale
            expected[rows, part] = weights @ kv[keys, heads * d :][:, part]
    same(ops.attention(*sample.args, **c), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["mean", "max"])
@given(data=st.data())
def test_segments_are_reduced_as_each_would_be_alone(name: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[f"segment_{name}"])
    (x,), packing = sample.args, sample.constants["packing"]
    for dtype in (np.float64, np.float32):
        rows = mg.Tensor(x, dtype=dtype)
        expected = [getattr(rows[first:last], name)(axis=0).numpy() for first, last in packing.spans]
        np.testing.assert_array_equal(REGISTRY[f"segment_{name}"](rows, **sample.constants).numpy(), expected)


def test_equal_maxima_of_a_segment_share_the_gradient() -> None:
    x = mg.Tensor([[1.0, 5.0], [3.0, 5.0], [3.0, 5.0], [2.0, 0.0]], requires_grad=True)
    F.segment_max(x, packing=Packing([3, 1])).backward(np.array([[6.0, 6.0], [1.0, 2.0]], np.float32))
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 2], [3, 2], [3, 2], [1, 2]])


@pytest.mark.parametrize("name", ["mean", "max"])
@pytest.mark.parametrize("shape", [(3, 2), (4,), (2, 2, 2)])
def test_segments_are_of_all_rows(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"rows of shape .* do not fit Packing\(2 sequences, 4 rows, longest 3\)"):
        REGISTRY[f"segment_{name}"](np.zeros(shape, np.float32), packing=Packing([3, 1]))


@given(CASES["dropout"])
def test_dropout_zeroes_or_scales(sample: Sample) -> None:
    (x,), recipe = sample.args, sample.constants["draw"]
    same(ops.dropout(x, draw=recipe), x * (recipe.mask() * recipe.scale).reshape(x.shape))
    assert recipe.mask().size == prod(x.shape)
