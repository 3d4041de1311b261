"""The kernels of `optimizer.cu`, run on the CPU: Adam to the last bit of `optim.adam`'s body, and sums of squares in float64."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from kernels.cuda.emulation import Emulator, Namespace, check_guards, guarded
from kernels.cuda.parity import normal

import minigrad as mg
from minigrad.backend import numpy as numpy_namespace
from minigrad.kernels.cuda import launch, optimizer
from minigrad.optim import clip
from minigrad.optim.adam import Adam, AdamW, adam

RULES: list[dict[str, float]] = [
    {"beta1": 0.9, "beta2": 0.999, "size": 1e-3, "eps": 1e-8, "l2": 0.0, "decay": 1.0},
    {"beta1": 0.8, "beta2": 0.99, "size": 0.37, "eps": 3e-7, "l2": 0.01, "decay": 1.0},
    {"beta1": 0.9, "beta2": 0.999, "size": 2e-5, "eps": 1e-6, "l2": 0.0, "decay": 0.99998},
    {"beta1": 0.0, "beta2": 0.0, "size": 1.0, "eps": 0.0, "l2": 0.0, "decay": 1.0},
    {"beta1": 0.8, "beta2": 0.99, "size": 0.37, "eps": 3e-7, "l2": 0.01, "decay": 1.0, "factor": 0.37},
]


def arrays(n: int, moments: int) -> list[np.ndarray]:
    """Parameter, gradient, moments: numbers of very different size among them."""
    p, g, *rest = normal(*[(n,)] * (2 + moments), seed=moments)
    g *= np.float32(10.0) ** np.arange(n, dtype=np.float32).clip(0, 20)[::-1] / 1e10
    return [p, g, rest[0] * 0.01, *[np.abs(m) * np.float32(1e-4) for m in rest[1:]]]


@pytest.mark.parametrize("rule", RULES, ids=["plain", "l2", "decoupled", "no memory", "factor"])
@pytest.mark.parametrize("moments", [2, 3], ids=["adam", "amsgrad"])
@pytest.mark.parametrize(("n", "offset"), [(1, 0), (4, 0), (1023, 0), (1025, 1), (2304, 3)])
def test_adam_is_the_optimizers_to_the_last_bit(n: int, offset: int, moments: int, rule: dict[str, float], emulator: Emulator) -> None:
    p, g, *rest = arrays(n, moments)
    ours = [guarded(a, offset=offset) for a in (p, g, *rest)]
    assert optimizer.adam(Namespace(), ours[0], ours[1], ours[2:], **rule) is None
    check_guards(*ours)
    adam.body(numpy_namespace, p, g, rest, [np.empty_like(p), np.empty_like(p)], **rule)
    for mine, theirs in zip(ours, [p, g, *rest], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_is_not_finite_stays_so(emulator: Emulator) -> None:
    p, g, m, v, w = arrays(8, 3)
    g[:3], w[4], v[5] = [np.nan, np.inf, -np.inf], np.nan, np.nan
    ours = [a.copy() for a in (p, g, m, v, w)]
    optimizer.adam(Namespace(), ours[0], ours[1], ours[2:], **RULES[0])
    with np.errstate(invalid="ignore"):
        adam.body(numpy_namespace, p, g, [m, v, w], [np.empty_like(p), np.empty_like(p)], **RULES[0])
    for mine, theirs in zip(ours, [p, g, m, v, w], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_other_dtypes_are_declined() -> None:
    p, g, m, v = (a.astype(np.float64) for a in arrays(3, 2))
    assert optimizer.adam(Namespace(), p, g, [m, v], **RULES[0]) is NotImplemented


def test_the_kernel_is_adams_on_a_gpu(emulator: Emulator) -> None:
    p, g, m, v = arrays(5, 2)
    expected = [a.copy() for a in (p, m, v)]
    adam.body(numpy_namespace, expected[0], g, expected[1:], [np.empty_like(p), np.empty_like(p)], **RULES[0])
    assert adam.overrides["cupy"](Namespace(), p, g, [m, v], [], **RULES[0]) is None
    for mine, theirs in zip((p, m, v), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# ---------------------------------------------------------------- a captured step
@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1.0, 5e7, float("inf")])
def test_clipping_is_the_hosts_to_the_last_bit(max_norm: float, emulator: Emulator) -> None:
    for number, squares in enumerate(np.abs(normal((50,))[0]).astype(np.float64) * 10.0 ** np.arange(-20, 30)):
        numbers, scale, stopped = guarded(shape=(2,), dtype=np.float64), guarded(shape=()), guarded(np.zeros((), np.int32))
        loss = (guarded(np.float32(number)), None) if number % 2 else (None, guarded(np.float64(number)))
        optimizer.begin_captured(*loss, guarded(squares), max_norm, numbers, scale, stopped)
        assert numbers.tolist() == [number, squares] and stopped == 0
        assert scale == np.float32(clip.clip_coefficient(sqrt(squares), max_norm))
        check_guards(numbers, scale)


@pytest.mark.parametrize("n", [0, 1, 255, 600])
def test_squares_of_pieces_are_added_up_as_a_plain_step_does(n: int, emulator: Emulator) -> None:
    squares, total, numbers = guarded(np.abs(normal((n,))[0]).astype(np.float64)), guarded(shape=(), dtype=np.float64), guarded(np.zeros(2))
    launch.launch("sum_doubles", (), squares, total, n)
    optimizer.begin_captured(np.array(0.5, np.float32), None, squares, 1.0, numbers, None, None)
    check_guards(squares, total, numbers)
    assert numbers.tolist() == [0.5, total]


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(("loss", "squares"), [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf), (-np.inf, np.nan)])
def test_what_is_not_finite_stops_all_that_come_after(loss: float, squares: float, in_parts: bool, emulator: Emulator) -> None:
    numbers, scale, stopped = np.zeros(2), np.zeros((), np.float32), np.zeros((), np.int32)
    for given in ((1.0, 4.0), (loss, squares), (1.0, 4.0)):
        losses = (None, np.array(given[0])) if in_parts else (np.array(given[0], np.float32), None)
        optimizer.begin_captured(*losses, np.array(given[1]), 1.0, numbers, scale, stopped)
        np.testing.assert_array_equal(numbers, given)
        assert stopped == (1 if given[0] != 1.0 or given[1] != 4.0 or stopped else 0)
    assert stopped == 1
    optimizer.begin_captured(np.array(loss, np.float32), None, np.array(squares), 1.0, numbers, None, None)  # without an update


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_a_captured_update_is_the_optimizers(kind: type[Adam], amsgrad: bool, emulator: Emulator) -> None:
    """With rates, corrections and clipping that change; the third step is stopped."""
    start, *gradients = normal(*[(300,)] * 5)
    parameter, p = mg.Parameter(start.copy()), guarded(start)
    by_host = kind([parameter], lr=1.0, weight_decay=0.01, amsgrad=amsgrad)
    moments = [guarded(np.zeros_like(p)) for _ in range(2 + amsgrad)]
    for number, g in enumerate(gradients):
        scale, stopped = np.array(1.0 if number % 2 else 0.37, np.float32), np.array(number == 2, np.int32)
        by_host.param_groups[0]["lr"] = 1e-3 / (number + 1)
        same = by_host.constants(by_host.param_groups[0], by_host.steps[parameter] + 1)
        changing = np.array([same.pop(name) for name in ("size", "eps", "decay")], np.float32)
        optimizer.adam_captured(p, guarded(g), moments, changing, scale, stopped, **same)
        if not stopped:
            (parameter * g).sum().backward()
            by_host.step(float(scale))
            by_host.zero_grad()
        np.testing.assert_array_equal(p, parameter.numpy())
    check_guards(p, *moments)


@pytest.mark.parametrize("stopped", [0, 1])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 2050])
def test_a_captured_average_is_numpys_to_the_last_bit(n: int, offset: int, stopped: int, emulator: Emulator) -> None:
    weights, start = normal((n,), (n,))
    average = guarded(start, offset=offset)
    optimizer.average_captured(guarded(weights, offset=offset), average, 0.05, np.array(stopped, np.int32))
    check_guards(average)
    np.testing.assert_array_equal(average, start if stopped else start + 0.05 * (weights - start))


# ---------------------------------------------------------------- sums of squares
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", [0, 1, 5, 16384, 40001])
def test_sum_of_squares(n: int, offset: int, emulator: Emulator) -> None:
    x = guarded(normal((n,))[0] * np.float32(1e18), offset=offset)  # float32 has no number for the squares of the largest
    found = []
    for emulator.backwards in (False, True):
        found.append(float(optimizer.sum_of_squares(Namespace(), x)))
    assert found[0] == found[1]
    np.testing.assert_allclose(found[0], np.sum(x.astype(np.float64) ** 2), rtol=1e-14)  # float64 has steps of 2e-16


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("const int at = threadIdx.x * LANES, width", "const int at = threadIdx.x, width"), ("store4(v + start", "store4(m + start")],
)
def test_a_planted_error_is_caught(right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "kernel_of", emulator.changed("optimizer.cu", right, wrong).kernel)
    with pytest.raises(AssertionError):
        test_adam_is_the_optimizers_to_the_last_bit(9, 0, 2, RULES[0], emulator)


def test_what_is_squared_elsewhere_is_declined() -> None:
    x = normal((4, 6))[0]
    assert optimizer.sum_of_squares(Namespace(), x.astype(np.float64)) is NotImplemented
    assert optimizer.sum_of_squares(Namespace(), x[:, ::2]) is NotImplemented


def test_they_are_those_of_clipping_on_a_gpu(emulator: Emulator) -> None:
    x = normal((3, 7))[0]
    np.testing.assert_allclose(clip.squares.overrides["cupy"](Namespace(), x), clip.sum_of_squares(x), rtol=1e-14)
