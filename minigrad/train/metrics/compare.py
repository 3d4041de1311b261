"""McNemar's test of whether two models really differ, from their right and wrong answers to the same records.

For any other score use `paired_bootstrap`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike

from minigrad.errors import ArgumentError, DTypeError
from minigrad.train.metrics._rows import as_array, require_equal_lengths

EXACT_BELOW = 25
"""With fewer discordant records than this, the p value is computed from the binomial distribution."""


@dataclass(frozen=True, slots=True)
class McNemar:
    """The numbers of records that only A, and that only B, got right, and the two-sided p value of their imbalance.

    `statistic` is the chi-square with one degree of freedom, or None if the p value is exact.
    """

    only_a: int
    only_b: int
    statistic: float | None
    p_value: float

    @property
    def exact(self) -> bool:
        """Whether the p value was computed from the binomial distribution."""
        return self.statistic is None


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """McNemar's test (1947) of whether two models are right equally often, from the records on which one is right and the other wrong.

    Below 25 such records it is the exact binomial test of a fair coin, from 25 on the chi-square test with Edwards' (1948) continuity
    correction, max(|b - c| - 1, 0)² / (b + c).

    Shapes: right_a (n,), right_b (n,), booleans: whether each model is right

    Raises:
        DTypeError, ShapeError, ArgumentError: the arguments are not two equally long, non-empty rows of booleans.
    """
    a, b = as_array("right_a", right_a), as_array("right_b", right_b)
    for what, row in (("right_a", a), ("right_b", b)):
        if row.size == 0:
            raise ArgumentError(f"{what} is empty: nothing can be compared")
        if row.dtype != bool or row.ndim != 1:
            raise DTypeError(f"{what} must be a row of booleans, such as predictions == labels, got {row.dtype} of the shape {row.shape}")
    require_equal_lengths("right_a", a, "right_b", b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    if n < EXACT_BELOW:
        tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
        return McNemar(only_a, only_b, None, min(1.0, 2 * tail / 2**n))
    statistic = max(abs(only_a - only_b) - 1, 0) ** 2 / n
    return McNemar(only_a, only_b, statistic, math.erfc(math.sqrt(statistic / 2)))
