"""A launch as the driver sees it: the numbers and addresses that lie where CuPy's function is told to look."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kernels.cuda.emulation import Emulator

from minigrad.errors import ContractError
from minigrad.kernels.cuda.launch import TABLE, TYPES
from minigrad.kernels.cuda.loaded import Loaded

cupy = pytest.importorskip("cupy", reason="CuPy, which works so far without a GPU, is not installed")


class Array:
    """All that a launch reads of a GPU's array, which cannot be made here."""

    def __init__(self, address: int) -> None:
        self.data = SimpleNamespace(ptr=address)


@pytest.fixture(autouse=True)
def arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy, "ndarray", Array)


def reading(kinds: list[Any], found: list[Any]) -> Callable[..., None]:
    """What takes the place of CuPy's function: it keeps what lies at each of the places."""

    def function(grid: Any, block: Any, places: Any, shared_mem: int) -> None:
        values = [np.frombuffer(ctypes.string_at(p.ptr, 8), kind or np.uint64)[0] for p, kind in zip(places, kinds, strict=True)]
        found.append((grid, block, values, shared_mem))

    return function


def test_each_kind_of_number_lies_at_its_place() -> None:
    kinds, found = [None, *TYPES.values(), None], []  # type: ignore[var-annotated]
    loaded = Loaded(reading(kinds, found), kinds)
    numbers = [-(1 << 31), (1 << 32) - 1, -(1 << 63), (1 << 64) - 1, 0.1, 0.1]
    loaded((3, 2, 1), (32, 8, 1), (Array(1 << 47), *numbers, None), 99)
    loaded((1, 1, 1), (32, 1, 1), (None, *map(np.int64, [1, 2, 3, 4]), np.float32(0.5), np.float64(0.25), Array(64)))
    assert found == [
        ((3, 2, 1), (32, 8, 1), [1 << 47, *numbers[:4], np.float32(0.1), 0.1, 0], 99),
        ((1, 1, 1), (32, 1, 1), [0, 1, 2, 3, 4, 0.5, 0.25, 64], 0),
    ]


@pytest.mark.parametrize(("word", "number"), [("i32", 1 << 31), ("u32", -1), ("i64", 1 << 63), ("i64", 0.5), ("i32", "1"), ("f32", "1")])
def test_a_number_that_does_not_fit_is_refused(word: str, number: Any) -> None:
    found: list[Any] = []
    with pytest.raises(ContractError, match="parameters cannot hold"):
        Loaded(reading([TYPES[word]], found), [TYPES[word]])((1, 1, 1), (1, 1, 1), (number,))
    assert not found


def test_threads_do_not_mix_their_arguments() -> None:
    found: list[Any] = []
    loaded = Loaded(reading([np.int64] * 9, found), [np.int64] * 9)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: loaded((i, 1, 1), (1, 1, 1), [i] * 9), range(2000)))
    assert sorted(grid[0] for grid, *_ in found) == list(range(2000))
    assert all(values == [grid[0]] * 9 for grid, _, values, _ in found)


@pytest.mark.parametrize("name", ["adam", "gather_rows", "cross_entropy_pullback"])
def test_places_are_wide_enough_for_the_parameters(name: str, emulator: Emulator) -> None:
    """Those of the C++ compiler."""
    kinds = [kind for _, kind in TABLE[name].types]
    assert [np.dtype(kind or np.uint64).itemsize for kind in kinds] == emulator.parameter_sizes(name)
    assert Loaded(None, kinds)._layout.size == 8 * len(kinds)
