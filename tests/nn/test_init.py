"""Initial values: variances, ranges, orthogonality, reproducibility from a seed, and invalid arguments."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
import scipy.stats

import minigrad as mg
from minigrad import nn
from minigrad.errors import ArgumentError
from minigrad.nn import init

MATRIX, FILTERS = (200, 300), (64, 32, 3, 5)
FANS = {MATRIX: (300, 200), FILTERS: (32 * 15, 64 * 15)}  # (fan_in, fan_out)
shapes = pytest.mark.parametrize("shape", FANS, ids=str)


def drawn(make: Callable[[], nn.Parameter]) -> np.ndarray:
    """The numbers of a parameter drawn from a fixed seed."""
    mg.manual_seed(0)
    parameter = make()
    assert isinstance(parameter, nn.Parameter) and parameter.requires_grad and parameter.dtype == np.float32
    return parameter.numpy().astype(np.float64)


def check_moments(numbers: np.ndarray, variance: float, uniform: bool) -> None:
    """Mean 0, the variance within 3 % (some thirty thousand numbers: about four standard errors), and the distribution by its kurtosis."""
    std = sqrt(variance)
    assert abs(numbers.mean()) < 0.02 * std
    assert numbers.var() == pytest.approx(variance, rel=0.03)
    assert scipy.stats.kurtosis(numbers.reshape(-1)) == pytest.approx(-1.2 if uniform else 0.0, abs=0.1)
    if uniform:
        assert 0.999 * sqrt(3.0) * std < np.abs(numbers).max() <= sqrt(3.0) * std * (1.0 + 1e-6)  # the bound, rounded to float32


# ---------------------------------------------------------------- schemes by fan
@shapes
@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_xavier(shape: tuple[int, ...], gain: float) -> None:
    variance = gain**2 * 2.0 / sum(FANS[shape])
    check_moments(drawn(lambda: init.xavier_uniform(shape, gain)), variance, uniform=True)
    check_moments(drawn(lambda: init.xavier_normal(shape, gain)), variance, uniform=False)


@shapes
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize(
    ("nonlinearity", "a", "squared_gain"), [("relu", 0.0, 2.0), ("leaky_relu", sqrt(5.0), 1.0 / 3.0), ("linear", 0.0, 1.0)]
)
def test_kaiming(shape: tuple[int, ...], mode: str, nonlinearity: str, a: float, squared_gain: float) -> None:
    variance = squared_gain / FANS[shape][mode == "fan_out"]
    check_moments(drawn(lambda: init.kaiming_uniform(shape, a, mode, nonlinearity)), variance, uniform=True)
    check_moments(drawn(lambda: init.kaiming_normal(shape, a, mode, nonlinearity)), variance, uniform=False)


def test_kaiming_keeps_the_signal_of_a_deep_relu_network() -> None:
    """What the scheme is for: after 20 layers the mean square is still that of the input; with half the variance it is gone."""
    mg.manual_seed(0)
    x = small = mg.Tensor(np.random.default_rng(0).standard_normal((32, 256)))
    for _ in range(20):
        weight = init.kaiming_normal((256, 256), nonlinearity="relu")
        x, small = mg.functional.relu(x @ weight.T), mg.functional.relu(small @ (weight.T * sqrt(0.5)))
    assert 0.2 < (x * x).mean().item() < 2.0
    assert (small * small).mean().item() < 1e-5


def test_gains() -> None:
    assert init.calculate_gain("tanh") == 5.0 / 3.0
    assert init.calculate_gain("relu") == init.calculate_gain("leaky_relu", 0.0) == sqrt(2.0)
    assert init.calculate_gain("leaky_relu") == sqrt(2.0 / (1.0 + 0.01**2))
    assert init.calculate_gain("linear") == init.calculate_gain("sigmoid") == 1.0 and init.calculate_gain("selu") == 0.75


# ---------------------------------------------------------------- other schemes
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (16, 16), (24, 4, 3, 3), (6, 5, 3), (1, 7)], ids=str)
@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_orthogonal(shape: tuple[int, ...], gain: float) -> None:
    q = drawn(lambda: init.orthogonal(shape, gain)).reshape(shape[0], -1)
    product = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), rtol=0.0, atol=1e-6 * gain**2)


def test_orthogonal_matrices_are_uniform() -> None:
    """Each sign of the first entry is as likely as the other, which the bare QR decomposition does not give."""
    mg.manual_seed(0)
    firsts = np.array([init.orthogonal((3, 3)).numpy()[0, 0] for _ in range(400)])
    assert 150 < (firsts > 0).sum() < 250  # five standard deviations


@pytest.mark.parametrize(("std", "a", "b"), [(1.0, -2.0, 2.0), (0.02, -2.0, 2.0), (2.0, -1.0, 3.0), (1.0, 1.5, 2.5)])
def test_trunc_normal(std: float, a: float, b: float) -> None:
    numbers = drawn(lambda: init.trunc_normal((300, 100), std, a, b))
    expected = scipy.stats.truncnorm(a / std, b / std, scale=std)
    assert a <= numbers.min() and numbers.max() <= b
    assert numbers.mean() == pytest.approx(expected.mean(), abs=0.02 * std)
    assert numbers.var() == pytest.approx(expected.var(), rel=0.03)
    assert scipy.stats.kstest(numbers.reshape(-1), expected.cdf).pvalue > 1e-3


def test_fixed_values() -> None:
    assert drawn(lambda: init.constant((2, 3), -1.5)).tolist() == [[-1.5] * 3] * 2
    np.testing.assert_array_equal(drawn(lambda: init.eye((2, 3))), np.eye(2, 3))
    np.testing.assert_array_equal(drawn(lambda: init.eye((3, 2))), np.eye(3, 2))
    assert not drawn(lambda: init.trunc_normal((4,), 0.0)).any()


# ---------------------------------------------------------------- seeds and skipping
DRAWN: dict[str, Callable[[], nn.Parameter]] = {
    "normal": lambda: init.normal((4, 3), 1.0),
    "uniform": lambda: init.uniform((4, 3), 1.0),
    "trunc_normal": lambda: init.trunc_normal((4, 3), 1.0),
    "xavier_uniform": lambda: init.xavier_uniform((4, 3)),
    "xavier_normal": lambda: init.xavier_normal((4, 3)),
    "kaiming_uniform": lambda: init.kaiming_uniform((4, 3)),
    "kaiming_normal": lambda: init.kaiming_normal((4, 3)),
    "orthogonal": lambda: init.orthogonal((4, 3)),
}


@pytest.mark.parametrize("scheme", DRAWN)
def test_draws_follow_the_seed_and_are_skipped_on_request(scheme: str) -> None:
    make = DRAWN[scheme]
    first, again = drawn(make), drawn(make)
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first)) == 12
    assert not np.array_equal(first, make().numpy())  # the next draw is another one
    mg.manual_seed(0)
    with init.skipped():
        assert make().shape == (4, 3) and not make().numpy().any()
    np.testing.assert_array_equal(make().numpy(), first.astype(np.float32))  # nothing was drawn meanwhile


# ---------------------------------------------------------------- what is refused
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "vector": (lambda: init.kaiming_normal((3,)), "kaiming_normal: the shape of a weight is (out, in, *kernel)"),
    "number": (lambda: init.orthogonal(3), "orthogonal: the shape of a weight is (out, in, *kernel)"),  # type: ignore[arg-type]
    "empty kernel": (lambda: init.xavier_normal((3, 2, 0)), "xavier_normal: kernel axis 0 must be an integer of at least 1, got 0"),
    "gain": (lambda: init.xavier_normal((3, 2), -1.0), "xavier_normal: gain is a number >= 0"),
    "mode": (lambda: init.kaiming_uniform((3, 2), mode="fan_avg"), 'kaiming_uniform: mode is "fan_in" or "fan_out", not \'fan_avg\''),
    "nonlinearity": (lambda: init.kaiming_uniform((3, 2), nonlinearity="gelu"), "no gain is known for 'gelu': known are linear"),
    "slope": (lambda: init.kaiming_uniform((3, 2), a=float("nan")), "slope of leaky_relu is a finite number"),
    "value": (lambda: init.constant((3, 2), "one"), "constant: value is a finite number, got 'one'"),  # type: ignore[arg-type]
    "eye": (lambda: init.eye((3,)), "the shape of a matrix is (rows, columns), got (3,)"),
    "far tail": (lambda: init.trunc_normal((3,), 1.0, 5.0, 6.0), "5.0 … 6.0 holds less than 1 %"),
    "ends the wrong way round": (lambda: init.trunc_normal((3,), 1.0, 2.0, -2.0), "holds less than 1 %"),
    "only 0": (lambda: init.trunc_normal((3,), 0.0, 1.0, 2.0), "holds less than 1 %"),
    "shape": (lambda: init.trunc_normal((3, -1), 1.0), "cannot make a parameter of shape (3, -1)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_mistakes_are_named(what: str) -> None:
    call, words = REFUSED[what]
    with pytest.raises(ArgumentError) as caught:
        call()
    assert words in str(caught.value)
