"""Arrays that are neighbours in one buffer are read as one, and any others are joined right all the same."""

from __future__ import annotations

import numpy as np
import pytest

from minigrad.backend.layout import stacked


def arena(*shapes: tuple[int, ...], gap: int = 0) -> list[np.ndarray]:
    flat = np.arange(200, dtype=np.float32)
    parts, at = [], 5
    for shape in shapes:
        size = int(np.prod(shape))
        parts.append(flat[at : at + size].reshape(shape))
        at += size + gap
    return parts


@pytest.mark.parametrize("shapes", [[(3, 4), (2, 4), (1, 4)], [(3,), (2,)], [(2, 3)]])
def test_neighbours_are_joined_as_a_view(shapes: list[tuple[int, ...]]) -> None:
    parts = arena(*shapes)
    joined = stacked(np, parts)
    np.testing.assert_array_equal(joined, np.concatenate(parts))
    assert all(np.shares_memory(joined, part) for part in parts)


def _no_neighbours() -> dict[str, list[np.ndarray]]:
    a, b = arena((3, 4), (2, 4))
    raw = np.arange(80, dtype=np.uint8).view(np.float32)  # an arena of another dtype underneath
    every_second = np.arange(40, dtype=np.float32)[::2]
    return {
        "apart": arena((3, 4), (2, 4), gap=1),
        "in the other order": [b, a],
        "not in an arena": [a.copy(), b.copy()],
        "one elsewhere": [a, b.copy()],
        "twice the same": [a, a],
        "transposed": [a.reshape(4, 3).T, b],
        "of a strided buffer": [every_second[:4].reshape(2, 2), every_second[4:8].reshape(2, 2)],
        "of a buffer of bytes": [raw[:4].reshape(2, 2), raw[4:8].reshape(2, 2)],
    }


@pytest.mark.parametrize("how", _no_neighbours())
def test_anything_else_is_joined_right_all_the_same(how: str) -> None:
    parts = _no_neighbours()[how]
    np.testing.assert_array_equal(stacked(np, parts), np.concatenate(parts))
