"""The kernels of `loss.cu`, run on the CPU by way of the operation, against its body in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.cuda.emulation import Emulator, Namespace, check_guards, guarded
from kernels.cuda.parity import compare, declines, evaluate, normal

from minigrad.kernels.cuda import launch
from minigrad.op import REGISTRY

IGNORED = -100


def labels(rows: int, classes: int) -> np.ndarray:
    """Every third row does not count."""
    found = np.arange(rows, dtype=np.int64) * 7 % classes
    found[2::3] = IGNORED
    return found


CONSTANTS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"reduction": "none"},
    {"denominator": 12.5},
    {"label_smoothing": 1.0, "reduction": "none"},
]


@pytest.mark.parametrize("constants", CONSTANTS, ids=str)
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (1, 2), (8, 9), (5, 128), (4, 1030), (3, 2051)])
def test_cross_entropy(rows: int, classes: int, constants: dict[str, Any], emulator: Emulator) -> None:
    compare("cross_entropy", [4 * normal((rows, classes))[0], labels(rows, classes)], constants, emulator)


WEIGHTED: list[dict[str, Any]] = [
    {"reduction": "none"},
    {"label_smoothing": 0.1},
    {"reduction": "sum", "label_smoothing": 1.0},
    {"denominator": 12.5, "label_smoothing": 0.1},
]


@pytest.mark.parametrize("constants", WEIGHTED, ids=str)
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (8, 9), (5, 128), (3, 2051)])
def test_class_weights(rows: int, classes: int, constants: dict[str, Any], emulator: Emulator) -> None:
    """One of the classes has the weight 0, and so have labels."""
    weights = (np.arange(classes, dtype=np.float32) % 5 + 1) / 3
    weights[-1] = 0.0
    given = labels(rows, classes)
    given[1:2] = classes - 1
    compare("cross_entropy", [4 * normal((rows, classes))[0], given], {**constants, "weight": weights}, emulator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_impossible_class_without_weight_costs_nothing(smoothing: float, emulator: Emulator) -> None:
    logits, weights = np.array([[0.0, -np.inf, 1.0], [1.0, -np.inf, 0.0]], np.float32), np.array([0.5, 0.0, 2.0], np.float32)
    constants = {"reduction": "none", "label_smoothing": smoothing, "weight": weights}
    losses, gradients = evaluate("cross_entropy", [logits, np.array([0, 1])], constants, False, emulator)
    assert np.isfinite(losses).all() and np.isfinite(gradients).all()


@pytest.mark.parametrize("denominator", [12.5, 7.0, 0.3])
def test_a_denominator_on_the_gpu_gives_the_same_bits(denominator: float, emulator: Emulator) -> None:
    arrays = [normal((9, 5))[0], labels(9, 5)]
    given = evaluate("cross_entropy", arrays, {"denominator": guarded(np.array(denominator, np.float32))}, False, emulator)
    for once, again in zip(given, evaluate("cross_entropy", arrays, {"denominator": denominator}, False, emulator), strict=True):
        np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("constants", [{}, {"reduction": "sum"}, {"denominator": 12.5}], ids=str)
def test_more_rows_than_the_block_has_threads_that_adds_them_up(constants: dict[str, Any], emulator: Emulator) -> None:
    losses, counts = np.arange(1.0, 2501.0, dtype=np.float32), (np.arange(2500) % 3 > 0).astype(np.float32)
    total = guarded(shape=(2,))
    mean, divisor = not constants, constants.get("denominator", 1.0)
    launch.launch("total_loss", (), guarded(losses), guarded(counts), None, total, 2500, divisor, int(mean))
    check_guards(total)
    divisor = counts.sum() if mean else divisor
    np.testing.assert_allclose(total, [losses.sum() / divisor, 1 / divisor], rtol=1e-6)  # float32
    compare("cross_entropy", [normal((150, 3))[0], labels(150, 3)], constants, emulator)


def test_large_logits_neither_overflow_nor_lose_the_answer(emulator: Emulator) -> None:
    compare("cross_entropy", [200 * normal((4, 40))[0], labels(4, 40)], {"reduction": "none"}, emulator)


def test_another_label_can_be_the_one_that_does_not_count(emulator: Emulator) -> None:
    compare("cross_entropy", [normal((6, 3))[0], np.array([0, 1, 2, 0, 1, 2])], {"ignore_index": 1}, emulator)


def test_a_row_that_does_not_count_may_hold_anything(emulator: Emulator) -> None:
    logits = normal((3, 5))[0]
    logits[1] = [np.nan, np.inf, -np.inf, 0, 1]
    found = evaluate("cross_entropy", [logits, np.array([0, IGNORED, 2])], {}, False, emulator)
    expected = evaluate("cross_entropy", [logits[[0, 2]], np.array([0, 2])], {}, False, emulator)
    np.testing.assert_array_equal(found[0], expected[0])
    assert not found[1][1].any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_impossible_class_costs_nothing_unless_it_is_asked_for(smoothing: float, emulator: Emulator) -> None:
    logits = np.array([[0.0, -np.inf, 1.0], [1.0, 2.0, -np.inf]], np.float32)
    found = evaluate("cross_entropy", [logits, np.array([0, 2])], {"reduction": "none", "label_smoothing": smoothing}, False, emulator)[0]
    assert np.isfinite(found[0]) == (smoothing == 0.0) and found[1] == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows(bad: float, emulator: Emulator) -> None:
    for place in range(3):
        logits = np.zeros((1, 3), np.float32)
        logits[0, place] = bad
        override = REGISTRY["cross_entropy"].overrides["cupy"]
        with np.errstate(invalid="ignore"):
            assert np.isnan(override(Namespace(), logits, np.array([1]))[0])


@pytest.mark.parametrize("constants", [{}, {"denominator": 0.0}, {"denominator": np.zeros((), np.float32)}], ids=str)
def test_without_any_label_the_mean_is_nan_and_its_gradient_zero(constants: dict[str, Any], emulator: Emulator) -> None:
    loss, gradient = evaluate("cross_entropy", [normal((2, 3))[0], np.full(2, IGNORED)], constants, False, emulator)
    assert np.isnan(loss) and not gradient.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_so_it_is_where_no_label_has_a_weight(smoothing: float, emulator: Emulator) -> None:
    """The rows' losses are not 0 with smoothing."""
    constants = {"weight": np.array([0, 1, 2], np.float32), "label_smoothing": smoothing}
    loss, gradient = evaluate("cross_entropy", [normal((2, 3))[0], np.zeros(2, np.int64)], constants, False, emulator)
    assert np.isnan(loss) and not gradient.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("label", [3, -1, 1 << 40])
@pytest.mark.parametrize("weights", [None, np.ones(3, np.float32)], ids=["", "weights"])
def test_the_loss_of_a_label_that_names_no_class_is_nan(weights: Any, label: int, smoothing: float, emulator: Emulator) -> None:
    constants = {"reduction": "none", "label_smoothing": smoothing, "weight": weights}
    loss = evaluate("cross_entropy", [normal((2, 3))[0], np.array([0, label])], constants, False, emulator)[0]
    assert np.isfinite(loss[0]) and np.isnan(loss[1])


def test_what_is_not_covered_is_declined() -> None:
    x, y = normal((4, 3))[0], labels(4, 3)
    assert declines("cross_entropy", x.astype(np.float64), y)
    assert declines("cross_entropy", x, y.astype(np.int32))
    assert declines("cross_entropy", x, y[:3])
    assert declines("cross_entropy", x[:, :0], y)
    assert declines("cross_entropy", x, y, weight=np.ones(3))
    assert declines("cross_entropy", x, y, weight=np.ones(4, np.float32))
    assert declines("cross_entropy", x, y, denominator=np.ones(()))
    assert declines("cross_entropy", x, y, denominator=np.ones(1, np.float32))
    assert declines("cross_entropy", x, y, reduction="average")
    assert declines("cross_entropy", x, y, label_smoothing=1.5)
    assert declines("cross_entropy", x, y, reduction="sum", denominator=2.0)


@pytest.mark.parametrize(
    ("source", "right", "wrong"),
    [
        ("loss.cu", "expf(numbers[j] - largest) * inverse", "expf(numbers[j] - largest)"),
        ("loss.cu", "if (at + j < classes) {", "{"),
        ("loss.cu", "heavy += own[j]", "heavy += 1.0f"),
        ("loss.cu", "+ spread) * own[j]", "+ spread)"),
        ("loss.cu", "logf(total)", "total"),
        ("warp.cuh", "__syncthreads();  // the previous sum has been read", ""),
    ],
)
def test_a_planted_error_is_caught(source: str, right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = emulator.changed(source, right, wrong)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    constants = {"reduction": "none", "label_smoothing": 0.1, "weight": 10 * np.abs(normal((1030,))[0])}
    with pytest.raises(AssertionError):
        compare("cross_entropy", [normal((4, 1030))[0], labels(4, 1030)], constants, planted)
