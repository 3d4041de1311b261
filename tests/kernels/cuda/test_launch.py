"""A launch: what it refuses, and as the driver sees it, the numbers and addresses that lie where CuPy's function is told to look."""

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
from minigrad.kernels.cuda import launch
from minigrad.kernels.cuda.launch import LoadedKernel
from minigrad.kernels.cuda.table import TABLE, TYPES


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What kernels are called with."""
    made: list[tuple[Any, ...]] = []

    def kernel_of(name: str) -> Any:
        return lambda grid, block, arguments: made.append((name, grid, block, arguments))

    monkeypatch.setattr(launch, "kernel_of", kernel_of)
    return made


def test_a_kernel_gets_the_arguments_and_how_many_threads(calls: list[tuple[Any, ...]]) -> None:
    y = np.zeros((70, 200), np.float32)
    launch.launch("add_bias_float32", y.shape, y, None, 70, 200)
    assert calls == [("add_bias_float32", (3, 2, 1), (32, 8, 1), (y, None, 70, 200))]


def test_nothing_to_do_launches_nothing(calls: list[tuple[Any, ...]]) -> None:
    launch.launch("add_bias_float32", (0, 200), None, None, 0, 200)
    launch.launch("add_bias_float32", (70, 0), None, None, 70, 0)
    assert not calls


def test_the_number_of_arguments_is_checked(calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(ContractError, match=r"add_bias_float32 takes 4 arguments \(y\* bias\* rows:i64 width:i32\), got 3"):
        launch.launch("add_bias_float32", (1, 1), None, None, 1)


def test_an_array_with_gaps_is_refused(calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(ContractError, match="kernel add_bias_float32: bias is not C-contiguous"):
        launch.launch("add_bias_float32", (1, 4), np.zeros((1, 4)), np.zeros(8)[::2], 1, 4)


def test_contiguity_is_asked_of_cupy_where_it_is_cheap(calls: list[tuple[Any, ...]]) -> None:
    launch.launch("add_bias_float32", (1, 4), SimpleNamespace(_c_contiguous=True), None, 1, 4)
    with pytest.raises(ContractError, match="kernel add_bias_float32: y is not C-contiguous"):
        launch.launch("add_bias_float32", (1, 4), SimpleNamespace(_c_contiguous=False), None, 1, 4)
    assert len(calls) == 1


@pytest.mark.parametrize("sizes", [(1 << 40, 4), (4, 1 << 40)])
def test_more_blocks_than_a_grid_holds_are_refused(sizes: tuple[int, int], calls: list[tuple[Any, ...]]) -> None:
    with pytest.raises(ContractError, match="kernel add_bias_float32 would need a grid of"):
        launch.launch("add_bias_float32", sizes, None, None, *sizes)


def test_a_billion_numbers_fit(calls: list[tuple[Any, ...]]) -> None:
    launch.launch("adam", (1 << 33,), *[None] * 5, 1 << 33, *[0.0] * 9)
    launch.launch("sum_of_squares", (1 << 33,), None, None, 1 << 33)
    launch.launch("add_bias_float32", (1 << 25, 8192), None, None, 1 << 25, 8192)
    assert len(calls) == 3


# ---------------------------------------------------------------- what the driver sees
class Array:
    """All that a launch reads of a GPU's array, which cannot be made here."""

    def __init__(self, address: int) -> None:
        self.data = SimpleNamespace(ptr=address)


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy, which works so far without a GPU, is not installed")
    monkeypatch.setattr(cupy, "ndarray", Array)


def reading(kinds: list[Any], found: list[Any]) -> Callable[..., None]:
    """What takes the place of CuPy's function: it keeps what lies at each of the places."""

    def function(grid: Any, block: Any, places: Any) -> None:
        values = [np.frombuffer(ctypes.string_at(p.ptr, 8), kind or np.uint64)[0] for p, kind in zip(places, kinds, strict=True)]
        found.append((grid, block, values))

    return function


@pytest.mark.usefixtures("arrays")
def test_each_kind_of_number_lies_at_its_place() -> None:
    kinds, found = [None, *TYPES.values(), None], []  # type: ignore[var-annotated]
    loaded = LoadedKernel(reading(kinds, found), kinds)
    numbers = [-(1 << 31), (1 << 32) - 1, -(1 << 63), (1 << 64) - 1, 0.1, 0.1]
    loaded((3, 2, 1), (32, 8, 1), (Array(1 << 47), *numbers, None))
    loaded((1, 1, 1), (32, 1, 1), (None, *map(np.int64, [1, 2, 3, 4]), np.float32(0.5), np.float64(0.25), Array(64)))
    assert found == [
        ((3, 2, 1), (32, 8, 1), [1 << 47, *numbers[:4], np.float32(0.1), 0.1, 0]),
        ((1, 1, 1), (32, 1, 1), [0, 1, 2, 3, 4, 0.5, 0.25, 64]),
    ]


@pytest.mark.usefixtures("arrays")
@pytest.mark.parametrize(("word", "number"), [("i32", 1 << 31), ("u32", -1), ("i64", 1 << 63), ("i64", 0.5), ("i32", "1"), ("f32", "1")])
def test_a_number_that_does_not_fit_is_refused(word: str, number: Any) -> None:
    found: list[Any] = []
    with pytest.raises(ContractError, match="parameters cannot hold"):
        LoadedKernel(reading([TYPES[word]], found), [TYPES[word]])((1, 1, 1), (1, 1, 1), (number,))
    assert not found


@pytest.mark.usefixtures("arrays")
def test_threads_do_not_mix_their_arguments() -> None:
    found: list[Any] = []
    loaded = LoadedKernel(reading([np.int64] * 9, found), [np.int64] * 9)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: loaded((i, 1, 1), (1, 1, 1), [i] * 9), range(2000)))
    assert sorted(grid[0] for grid, *_ in found) == list(range(2000))
    assert all(values == [grid[0]] * 9 for grid, _, values in found)


@pytest.mark.usefixtures("arrays")
@pytest.mark.parametrize("name", ["adam", "gather_rows", "cross_entropy_pullback"])
def test_places_are_wide_enough_for_the_parameters(name: str, emulator: Emulator) -> None:
    """Those of the C++ compiler."""
    kinds = [kind for _, kind in TABLE[name].types]
    assert [np.dtype(kind or np.uint64).itemsize for kind in kinds] == emulator.parameter_sizes(name)
    assert LoadedKernel(None, kinds)._layout.size == 8 * len(kinds)
