"""McNemar's test, by examples worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minigrad.errors import ArgumentError, DTypeError, MinigradError, ShapeError
from minigrad.train.metrics import McNemar, mcnemar


def rows(only_a: int, only_b: int, both: int = 3, neither: int = 2) -> tuple[np.ndarray, np.ndarray]:
    counts = [only_a, only_b, both, neither]
    return np.repeat([True, False, True, False], counts), np.repeat([False, True, True, False], counts)


def test_exact_by_hand() -> None:
    assert mcnemar(*rows(1, 5)) == McNemar(1, 5, None, 2 * (1 + 6) / 64)
    assert mcnemar(*rows(3, 3)).p_value == 1.0  # twice the tail is more than 1
    assert mcnemar(*rows(0, 0)) == McNemar(0, 0, None, 1.0)
    assert mcnemar(*rows(0, 24)).exact


def test_chi_square_by_hand() -> None:
    found = mcnemar(*rows(5, 20))
    assert not found.exact and found.statistic == (15 - 1) ** 2 / 25
    assert found.p_value == pytest.approx(math.erfc(14 / 5 / math.sqrt(2)), rel=1e-13)  # P(|z| > 14/5), up to roundings of the roots
    assert mcnemar(*rows(30, 30)).p_value == 1.0  # the correction takes no more than there is
    assert mcnemar([True, False], [True, False]) == McNemar(0, 0, None, 1.0)


@pytest.mark.parametrize(
    ("a", "b", "error", "words"),
    [
        ([], [], ArgumentError, "empty"),
        ([True], [True, False], ShapeError, "got 1 and 2"),
        ([1, 0], [True, False], DTypeError, "right_a must be a row of booleans, such as predictions == labels"),
        ([True], [[True]], DTypeError, "right_b"),
    ],
)
def test_refused(a: object, b: object, error: type[MinigradError], words: str) -> None:
    with pytest.raises(error, match=words):
        mcnemar(a, b)  # type: ignore[arg-type]
