"""The launch table: grids cover all of the work once, whatever its size, and arguments are what the kernels take."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.kernels.cuda import table
from minigrad.kernels.cuda.build import SOURCES, headers
from minigrad.kernels.cuda.table import TABLE, TYPES

C_TYPES = {"i32": "int", "u32": "u32", "i64": "i64", "u64": "u64", "f32": "float", "f64": "double"}


def covered(blocks: int, each: int, n: int) -> bool:
    """Whether `blocks` blocks of `each` cover n, the last of them not in vain."""
    return blocks * each >= n and (blocks - 1) * each < n if n else blocks == 0


counts = st.integers(0, 1 << 40) | st.integers(0, 300)


@given(counts, st.integers(1, 1 << 22))
def test_every_row_and_column_is_covered_once(rows: int, width: int) -> None:
    assert covered(table.warp_per_row(rows)[0], table.WARPS, rows)
    assert table.block_per_row(rows)[0] == rows
    grid = table.strips(rows, width)
    assert covered(grid[0], table.ROWS, rows) and covered(grid[1], table.STRIP, width) and grid[2] == 1
    assert covered(table.by_columns(width)[0], table.COLUMNS, width)
    assert covered(table.quads(rows)[0], 1024, rows)
    assert covered(table.thread_keys(rows, 3)[0], 256, rows) and covered(table.warp_keys(rows, 3)[0], 32, rows)
    assert table.thread_keys(rows, 3)[1:] == table.warp_keys(rows, 3)[1:] == (3, 1)
    assert covered(table.squares(rows)[0], table.SQUARES, rows)
    assert table.bundle_strips(3, rows, width) == (table.warp_per_row(rows)[0], table.strips(rows, width)[1], 3)
    assert table.table_strips(rows, 1, 0, width) == (table.warp_per_row(rows)[0] + 1, table.strips(rows, width)[1], 1)
    assert table.row_strips(rows, width)[0] == rows and covered(table.row_strips(rows, width)[1], table.STRIP, width)


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [
        ("rows.cuh", "WARPS", table.WARPS),
        ("embedding.cu", "RUN", table.RUN),
        ("embedding.cu", "MERGED", table.MERGED),
        ("embedding.cu", "BUNDLE", table.BUNDLE),
        ("embed_norm.cu", "TABLES", table.TABLES),
        ("embedding.cu", "TABLES", table.TABLES),
        ("optimizer.cu", "SQUARES", table.SQUARES),
    ],
)
def test_sizes_are_those_of_the_sources(source: str, name: str, value: int) -> None:
    assert re.search(rf"constexpr int {name} = {value};", (SOURCES / source).read_text(encoding="utf-8"))


def test_the_widest_row_and_the_strip_are_those_of_the_sources() -> None:
    text = "".join((SOURCES / name).read_text(encoding="utf-8") for name in ("warp.cuh", "layer_norm.cuh", "strips.cuh"))
    lanes, chunks, ahead = (int(re.findall(rf"constexpr int {name} = (\d+);", text)[0]) for name in ("LANES", "CHUNKS", "AHEAD"))
    assert lanes * 32 == table.STRIP
    assert table.STRIP * chunks == table.MAX_WIDTH
    assert table.WARPS * ahead == table.ROWS


# ---------------------------------------------------------------- the table and the sources
def declared(name: str) -> list[tuple[str, str]]:
    """(type, name) of each parameter, read from the source or what it includes; nothing where a macro writes the kernel's parameters."""
    entry = TABLE[name]
    source = (SOURCES / entry.source).read_text(encoding="utf-8")
    text = re.sub(r"//[^\n]*", "", "\n".join([source, *headers(source).values()]))
    for macro, parameters in re.findall(r"#define (RECIPE|ROUNDED) (.*)", text):
        text = re.sub(rf"\b{macro}([,)])", rf"{parameters}\1", text)
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
