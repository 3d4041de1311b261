"""Windows, convolution and pooling against NumPy loops, their conventions, and invalid arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import inf, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.cases import CASES, PUBLIC, Sample
from support import absolute_error, grad_of, leaf

import minigrad as mg
from minigrad import functional as F
from minigrad import ops
from minigrad.errors import ArgumentError, ShapeError

EXACT = 1e-13
"""float64 rounding of the same few sums in another order."""

rng = np.random.default_rng(0)


# ---------------------------------------------------------------- the definitions, as loops
def each(value: Any, ndim: int) -> tuple[int, ...]:
    return (value,) * ndim if isinstance(value, int) else tuple(value)


def windows_of(x: np.ndarray, kernel: Any, stride: Any, padding: Any, dilation: Any, fill: float) -> Iterator[tuple[Any, np.ndarray]]:
    """(position, window) for every window of a padded input, positions in row-major order. Shapes: window (n, c, *kernel)."""
    ndim = x.ndim - 2
    kernel, stride, dilation = each(kernel, ndim), each(stride, ndim), each(dilation, ndim)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    around = [((r - 1) // 2, r // 2) for r in reach] if padding == "same" else [(p, p) for p in each(padding, ndim)]
    padded = np.pad(x, [(0, 0), (0, 0), *around], constant_values=fill)
    counts = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, stride, strict=True)]
    for position in product(*map(range, counts)):
        cut = [slice(p * s, p * s + r, d) for p, s, r, d in zip(position, stride, reach, dilation, strict=True)]
        yield position, padded[(slice(None), slice(None), *cut)]


def gathered(found: list[tuple[Any, np.ndarray]]) -> np.ndarray:
    """(position, numbers (n, c)) for every position → (n, c, *positions)."""
    counts = [n + 1 for n in found[-1][0]]
    return np.stack([numbers for _, numbers in found], axis=-1).reshape((*found[0][1].shape, *counts))


def numpy_conv(
    x: np.ndarray, weight: np.ndarray, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    found = []
    inputs, outputs = x.shape[1] // groups, weight.shape[0] // groups
    for position, window in windows_of(x, weight.shape[2:], stride, padding, dilation, 0.0):
        sums = np.empty((len(x), len(weight)))
        for o in range(len(weight)):
            group = o // outputs
            part = window[:, group * inputs : (group + 1) * inputs]
            sums[:, o] = (part * weight[o]).sum(axis=tuple(range(1, part.ndim))) + (0.0 if bias is None else bias[o])
        found.append((position, sums))
    return gathered(found)


def numpy_pool(
    x: np.ndarray, reduce: Callable[[np.ndarray], np.ndarray], fill: float, kernel: Any, stride: Any, padding: Any, dilation: Any = 1
) -> Any:
    windows = windows_of(x, kernel, kernel if stride is None else stride, padding, dilation, fill)
    return gathered([(position, reduce(window.reshape((*window.shape[:2], prod(window.shape[2:]))))) for position, window in windows])


def numpy_max_pool(x: np.ndarray, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Any:
    return numpy_pool(x, lambda w: w.max(axis=2), -inf, kernel_size, stride, padding, dilation)


def numpy_avg_pool(x: np.ndarray, kernel_size: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True) -> Any:
    if count_include_pad:
        return numpy_pool(x, lambda w: w.mean(axis=2), 0.0, kernel_size, stride, padding)
    return numpy_pool(x, lambda w: np.nanmean(w, axis=2), np.nan, kernel_size, stride, padding)


def numpy_unfold(x: np.ndarray, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Any:
    windows = windows_of(x, kernel_size, stride, padding, dilation, 0.0)
    return np.stack([window.reshape((len(x), x.shape[1] * prod(window.shape[2:]))) for _, window in windows], axis=2)


REFERENCES: dict[str, Callable[..., Any]] = {
    "unfold": numpy_unfold,
    "conv": numpy_conv,
    "conv1d": numpy_conv,
    "conv2d": numpy_conv,
    "max_pool1d": numpy_max_pool,
    "max_pool2d": numpy_max_pool,
    "avg_pool1d": numpy_avg_pool,
    "avg_pool2d": numpy_avg_pool,
}


@pytest.mark.parametrize("name", REFERENCES)
@given(data=st.data())
def test_value_equals_the_loops(name: str, data: st.DataObject) -> None:
    sample: Sample = data.draw(CASES[name])
    expected = sample.call(REFERENCES[name], sample.args)
    assert absolute_error(sample.call(PUBLIC[name], [a if a is None else mg.Tensor(a) for a in sample.args]).numpy(), expected) < EXACT


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), ((1, 3), (2, 0), (2, 1)), (1, "same", (2, 3))])
def test_conv2d_of_a_larger_input(stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    x, weight, bias = rng.standard_normal((2, 4, 9, 10)), rng.standard_normal((6, 4 // groups, 3, 2)), rng.standard_normal(6)
    found = F.conv2d(x, weight, bias, stride, padding, dilation, groups).numpy()
    assert absolute_error(found, numpy_conv(x, weight, bias, stride, padding, dilation, groups)) < EXACT


def test_three_spatial_axes() -> None:
    x, weight = rng.standard_normal((2, 2, 4, 3, 5)), rng.standard_normal((3, 2, 2, 3, 2))
    options: dict[str, Any] = {"stride": (2, 1, 1), "padding": (0, 1, 0)}
    assert absolute_error(ops.conv(x, weight, None, **options).numpy(), numpy_conv(x, weight, None, **options)) < EXACT


@given(data=st.data())
def test_fold_is_the_transpose_of_unfold(data: st.DataObject) -> None:
    """⟨unfold(x), y⟩ = ⟨x, fold(y)⟩ for every y."""
    x, options = (sample := data.draw(CASES["unfold"])).args[0], sample.constants
    columns = F.unfold(x, **options).numpy()
    y = rng.standard_normal(columns.shape)
    folded = F.fold(y, x.shape[2:], **options).numpy()
    assert folded.shape == x.shape
    assert abs((columns * y).sum() - (x * folded).sum()) < 1e-12  # two sums of at most some hundred products


def test_same_padding_puts_the_odd_zero_at_the_end() -> None:
    np.testing.assert_array_equal(F.conv1d([[[1.0, 2.0, 3.0]]], [[[1.0, 10.0]]], padding="same").numpy(), [[[21.0, 32.0, 3.0]]])
    np.testing.assert_array_equal(F.conv1d([[[1.0, 2.0, 3.0]]], [[[1.0, 10.0]]], padding="valid").numpy(), [[[21.0, 32.0]]])


# ---------------------------------------------------------------- conventions
def test_equal_maxima_of_a_window_share_the_gradient() -> None:
    x = leaf([[[2.0, 2.0, 1.0, 3.0, 3.0, 3.0]]])
    np.testing.assert_allclose(grad_of(F.max_pool1d(x, 3), x), [[[0.5, 0.5, 0.0, 1 / 3, 1 / 3, 1 / 3]]], rtol=1e-15)


def test_padding_is_never_the_maximum() -> None:
    x = leaf([[[[-3.0, -2.0], [-5.0, -4.0]]]])
    y = F.max_pool2d(x, 2, stride=1, padding=1)
    np.testing.assert_array_equal(y.numpy(), [[[[-3.0, -2.0, -2.0], [-3.0, -2.0, -2.0], [-5.0, -4.0, -4.0]]]])
    np.testing.assert_array_equal(grad_of(y, x), [[[[2.0, 4.0], [1.0, 2.0]]]])


def test_a_window_that_sees_only_padding_has_the_maximum_minus_infinity_without_a_gradient() -> None:
    x = leaf([[[1.0, 2.0]]])
    y = F.max_pool1d(x, 2, stride=1, padding=1, dilation=3)
    assert y.tolist() == [[[-inf]]]
    np.testing.assert_array_equal(grad_of(y, x), [[[0.0, 0.0]]])


def test_zero_padding_counts_in_a_mean_unless_told_otherwise() -> None:
    np.testing.assert_allclose(F.avg_pool1d([[[2.0, 4.0, 5.0]]], 3, 2, 1).numpy(), [[[2.0, 3.0]]], rtol=1e-6)  # float32
    np.testing.assert_array_equal(F.avg_pool1d([[[2.0, 4.0, 5.0]]], 3, 2, 1, count_include_pad=False).numpy(), [[[3.0, 4.5]]])


def test_an_incomplete_window_at_the_end_is_left_out() -> None:
    assert F.max_pool1d([[[1.0, 2.0, 9.0]]], 2).tolist() == [[[2.0]]]
    assert F.avg_pool2d(np.ones((1, 1, 5, 3)), 2).shape == (1, 1, 2, 1)


def test_an_empty_batch() -> None:
    x, weight, bias = leaf(np.zeros((0, 3, 5, 5))), leaf(np.ones((2, 3, 3, 3))), leaf(np.ones(2))
    y = F.conv2d(x, weight, bias)
    assert y.shape == (0, 2, 3, 3)
    assert [g.numpy().any() for g in mg.grad(y.sum(), [weight, bias])] == [False, False]
    assert grad_of(F.conv2d(x, weight, bias), x).shape == x.shape
    for pool in (F.max_pool2d, F.avg_pool2d):
        assert grad_of(pool(x, 2), x).shape == x.shape
    assert F.unfold(x, 3).shape == (0, 27, 9)


def test_axes_of_length_1() -> None:
    x, weight = leaf(np.full((1, 1, 1, 1), 3.0)), leaf(np.full((1, 1, 1, 1), 2.0))
    assert F.conv2d(x, weight).item() == 6.0
    assert grad_of(F.conv2d(x, weight), x).item() == 2.0
    assert grad_of(F.conv2d(x, weight), weight).item() == 3.0
    assert F.max_pool2d(x, 1).item() == F.avg_pool2d(x, 1).item() == 3.0


def test_nothing_is_computed_for_an_input_without_a_gradient() -> None:
    """The first layer of a network: the gradient of its input, half of the work, is not computed."""
    weight = leaf(np.ones((2, 1, 2)))
    y = F.conv1d(np.ones((1, 1, 4)), weight)
    assert [f is None for f in y.node.pullback] == [True, False, True]  # type: ignore[union-attr]


# ---------------------------------------------------------------- errors
X1, X2, W1, W2 = np.zeros((2, 4, 5)), np.zeros((2, 4, 5, 6)), np.zeros((6, 4, 3)), np.zeros((6, 4, 3, 3))

INVALID: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "kernel": (
        lambda: F.conv1d(X1, np.zeros((1, 4, 6))),
        ShapeError,
        "a kernel of (6,) (dilation (1,)) does not fit into the spatial axes (5,)",
    ),
    "dilated kernel": (lambda: F.conv2d(X2, W2, dilation=(3, 1)), ShapeError, "(dilation (3, 1)) does not fit"),
    "kernel of a pool": (lambda: F.max_pool2d(X2, (6, 1)), ShapeError, "max_pool2d: a kernel of (6, 1)"),
    "no length": (lambda: F.avg_pool1d(np.zeros((2, 3, 0)), 1), ShapeError, "does not fit into the spatial axes (0,)"),
    "axes of x": (lambda: F.conv1d(X2, W1), ShapeError, "conv1d: x has shape (2, 4, 5, 6), expected (batch, channels) and 1 spatial axis"),
    "axes of a pool": (
        lambda: F.max_pool2d(X1, 2),
        ShapeError,
        "max_pool2d: x has shape (2, 4, 5), expected (batch, channels) and 2 spatial axes",
    ),
    "axes of the weight": (lambda: F.conv2d(X2, W1), ShapeError, "conv2d: weight has shape (6, 4, 3)"),
    "no spatial axes": (
        lambda: F.unfold(np.zeros((2, 4)), 1),
        ShapeError,
        "unfold: x has shape (2, 4), expected (batch, channels) and one or more",
    ),
    "channels": (lambda: F.conv1d(X1, np.zeros((6, 3, 3))), ShapeError, "in 1 group(s) needs a weight (outputs, 4, *kernel)"),
    "channels of groups": (lambda: F.conv1d(X1, W1, groups=2), ShapeError, "in 2 group(s) needs a weight (outputs, 2, *kernel)"),
    "bias": (lambda: F.conv1d(X1, W1, np.zeros(5)), ShapeError, "got (6, 4, 3) and (5,)"),
    "groups of inputs": (lambda: F.conv1d(X1, W1, groups=3), ArgumentError, "4 input and 6 output channels do not divide into 3 groups"),
    "groups of outputs": (lambda: F.conv1d(X1, W1, groups=4), ArgumentError, "4 input and 6 output channels do not divide into 4 groups"),
    "no groups": (lambda: F.conv1d(X1, W1, groups=0), ArgumentError, "do not divide into 0 groups"),
    "stride": (lambda: F.conv1d(X1, W1, stride=0), ArgumentError, "stride is an integer of at least 1, or 1 of them, got 0"),
    "strides": (
        lambda: F.conv2d(X2, W2, stride=(1, 2, 1)),
        ArgumentError,
        "stride is an integer of at least 1, or 2 of them, got (1, 2, 1)",
    ),
    "padding": (lambda: F.conv1d(X1, W1, padding=-1), ArgumentError, "padding is an integer of at least 0"),
    "word": (lambda: F.conv1d(X1, W1, padding="full"), ArgumentError, "got 'full'"),
    "same with a stride": (lambda: F.conv1d(X1, W1, stride=2, padding="same"), ArgumentError, 'with stride 1 "same"'),
    "kernel of nothing": (lambda: F.max_pool1d(X1, 0), ArgumentError, "kernel_size is an integer of at least 1"),
    "kernel of floats": (lambda: F.unfold(X1, 2.0), ArgumentError, "kernel_size is an integer of at least 1, or 1 of them, got 2.0"),
    "too much padding": (lambda: F.max_pool1d(X1, 3, padding=2), ArgumentError, "padding 2 is more than half of the kernel (3,)"),
    "too much padding of a mean": (lambda: F.avg_pool2d(X2, 2, padding=(0, 2)), ArgumentError, "is more than half of the kernel (2, 2)"),
    "columns": (lambda: F.fold(np.zeros((1, 6, 3)), (5,), 2), ShapeError, "4 windows of 2 places need (batch, channels * 2, 4)"),
    "rows": (lambda: F.fold(np.zeros((1, 5, 4)), (5,), 2), ShapeError, "columns have shape (1, 5, 4)"),
}


@pytest.mark.parametrize("what", INVALID)
def test_what_does_not_fit_is_refused_by_name(what: str) -> None:
    call, kind, words = INVALID[what]
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
