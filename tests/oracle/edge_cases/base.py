"""How a question is put to PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

ASKED: dict[int, Callable[[], bool]] = {}
"""For each number the question: True if PyTorch meets the sentence. What the table says it does instead is asserted on the way."""


def asks(number: int) -> Callable[[Callable[[], bool]], Callable[[], bool]]:
    """Register the question of a number."""

    def register(function: Callable[[], bool]) -> Callable[[], bool]:
        assert number not in ASKED
        ASKED[number] = function
        return function

    return register


def leaf(data: Any, dtype: Any = torch.float64) -> Any:
    return torch.tensor(data, dtype=dtype, requires_grad=True)


def grad(out: Any, x: Any) -> Any:
    """The gradient of the sum of `out`."""
    return torch.autograd.grad(out.sum(), x, retain_graph=True)[0].numpy()


def same(found: Any, expected: Any) -> bool:
    """Equal to the last bit; NaN equals NaN."""
    return np.array_equal(np.asarray(found), np.asarray(expected, dtype=float), equal_nan=True)
