"""The launch table: grids cover all of the work once, whatever its size, and arguments are what the kernels take."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import ContractError
from minigrad.kernels.cuda import launch
from minigrad.kernels.cuda.build import SOURCES, headers
from minigrad.kernels.cuda.launch import TABLE, TYPES

C_TYPES = {"i32": "int", "u32": "u32", "i64": "i64", "u64": "u64", "f32": "float", "f64": "double"}


def covered(blocks: int, each: int, n: int) -> bool:
    """Whether `blocks` blocks of `each` cover n, the last of them not in vain."""
    return blocks * each >= n and (blocks - 1) * each < n if n else blocks == 0


counts = st.integers(0, 1 << 40) | st.integers(0, 300)


@given(counts, st.integers(1, 1 << 22))
def test_every_row_and_column_is_covered_once(rows: int, width: int) -> None:
    assert covered(launch.by_warp(rows)[0], launch.WARPS, rows)
    assert launch.by_block(rows)[0] == rows
    grid = launch.strips(rows, width)
    assert covered(grid[0], launch.ROWS, rows) and covered(grid[1], launch.STRIP, width) and grid[2] == 1
    assert covered(launch.by_columns(width)[0], launch.COLUMNS, width)
    assert covered(launch.quads(rows)[0], 1024, rows)
    assert covered(launch.thread_keys(rows, 3)[0], 256, rows) and covered(launch.warp_keys(rows, 3)[0], 32, rows)
    assert launch.thread_keys(rows, 3)[1:] == launch.warp_keys(rows, 3)[1:] == (3, 1)
    assert covered(launch.squares(rows)[0], launch.SQUARES, rows)
    assert launch.warp_strips(rows, width) == (launch.by_warp(rows)[0], launch.strips(rows, width)[1], 1)
    assert launch.bundle_strips(3, rows, width) == (*launch.warp_strips(rows, width)[:2], 3)
    assert launch.row_strips(rows, width)[0] == rows and covered(launch.row_strips(rows, width)[1], launch.STRIP, width)


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [
        ("rows.cuh", "WARPS", launch.WARPS),
        ("embedding.cu", "WARPS", launch.WARPS),
        ("embedding.cu", "RUN", launch.RUN),
        ("embedding.cu", "MERGED", launch.MERGED),
        ("embedding.cu", "BUNDLE", launch.BUNDLE),
        ("embed_norm.cu", "TABLES", launch.TABLES),
        ("optimizer.cu", "SQUARES", launch.SQUARES),
    ],
)
def test_sizes_are_those_of_the_sources(source: str, name: str, value: int) -> None:
    assert re.search(rf"constexpr int {name} = {value};", (SOURCES / source).read_text(encoding="utf-8"))


def test_the_widest_row_and_the_strip_are_those_of_the_sources() -> None:
    text = "".join((SOURCES / name).read_text(encoding="utf-8") for name in ("rows.cuh", "strips.cuh"))
    lanes, chunks, ahead = (int(re.findall(rf"constexpr int {name} = (\d+);", text)[0]) for name in ("LANES", "CHUNKS", "AHEAD"))
    assert lanes * 32 == launch.STRIP
    assert launch.STRIP * chunks == launch.WIDEST
    assert launch.WARPS * ahead == launch.ROWS


# ---------------------------------------------------------------- calls
@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What kernels are called with."""
    made: list[tuple[Any, ...]] = []

    def kernel_of(name: str) -> Any:
        return lambda grid, block, arguments, shared_mem: made.append((name, grid, block, arguments, shared_mem))

    monkeypatch.setattr(launch, "kernel_of", kernel_of)
    return made


def test_a_kernel_gets_the_arguments_and_how_many_threads(calls: list[tuple[Any, ...]]) -> None:
    y = np.zeros((70, 200), np.float32)
    launch.launch("add_bias_float32", y.shape, y, None, 70, 200)
    assert calls == [("add_bias_float32", (3, 2, 1), (32, 8, 1), (y, None, 70, 200), 0)]


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


# ---------------------------------------------------------------- the table and the sources
def declared(name: str) -> list[tuple[str, str]]:
    """(type, name) of each parameter, read from the source or what it includes; nothing where a macro writes the kernel's parameters."""
    entry = TABLE[name]
    source = (SOURCES / entry.source).read_text(encoding="utf-8")
    text = re.sub(r"//[^\n]*", "", "\n".join([source, *headers(source).values()]))
    stem = name.rpartition("_")[0]  # a macro puts the storage behind it
    found = re.search(rf"(?:__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?{name}|KERNEL\({stem},[^)]*\))\s*\(([^)]*)\)", text)
    if found is None:
        return []
    parts = [" ".join(part.replace("__restrict__", "").split()) for part in found[1].split(",")]
    return [(kind.removeprefix("const ").strip(), what) for kind, _, what in (part.rpartition(" ") for part in parts)]


@pytest.mark.parametrize("name", [name for name in TABLE if declared(name)])
def test_names_and_types_of_arguments_are_those_of_the_source(name: str) -> None:
    words = {kind: C_TYPES[word] for word, kind in TYPES.items()}
    for (kind, what), (table_name, table_kind) in zip(declared(name), TABLE[name].types, strict=True):
        assert what == table_name
        assert kind.endswith("*") if table_kind is None else kind == words[table_kind]


def test_the_sources_are_read_right() -> None:
    assert declared("add_bias_float32") == [("Storage*", "y"), ("float*", "bias"), ("i64", "rows"), ("int", "width")]


@pytest.mark.parametrize("name", TABLE)
def test_blocks_are_whole_warps_of_at_most_the_bound(name: str) -> None:
    threads = int(np.prod(TABLE[name].block))
    assert threads == 1 or threads % 32 == 0
    assert threads <= 1024
