"""The launch table: for each kernel its source, its parameters, its block of threads, and the grid that covers the work.

It is shared by the host code, the tests that compile the sources and the tests that run them on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from minigrad.backend.precision import PRECISIONS

Grid: TypeAlias = tuple[int, int, int]

TYPES: dict[str, type[np.generic]] = {
    "i32": np.int32,
    "u32": np.uint32,
    "i64": np.int64,
    "u64": np.uint64,
    "f32": np.float32,
    "f64": np.float64,
}
"""Types of the numbers that are passed by value."""


@dataclass(frozen=True)
class Entry:
    """One kernel.

    source: its file in `sources/`. arguments: the parameters in order, "x*" for a pointer and "rows:i64" for a number of one of `TYPES`.
    block: threads along x, y and z. grid: a function from the sizes of the work to the number of blocks, 0 if there is nothing to do.
    """

    source: str
    arguments: str
    block: Grid
    grid: Callable[..., Grid]

    @cached_property
    def types(self) -> list[tuple[str, type[np.generic] | None]]:
        """Name and type of each parameter; None for a pointer."""
        parts = [argument.partition(":") for argument in self.arguments.split()]
        return [(name.removesuffix("*"), TYPES[word] if word else None) for name, _, word in parts]

    @cached_property
    def pointers(self) -> list[int]:
        """The positions of the pointers among the parameters."""
        return [i for i, (_, kind) in enumerate(self.types) if kind is None]


# ---------------------------------------------------------------- grids
def ceil_div(n: int, size: int) -> int:
    return -(-n // size)


MAX_WIDTH = 1024
"""The widest row that one warp normalises: it is held in registers or shared memory."""

WARPS, STRIP, ROWS = 8, 128, 32
"""Warps per block, and columns and rows of a strip."""


def warp_per_row(rows: int) -> Grid:
    """One warp per row."""
    return ceil_div(rows, WARPS), 1, 1


def strips(rows: int, width: int) -> Grid:
    """One block per strip of ROWS x STRIP numbers."""
    return ceil_div(rows, ROWS), ceil_div(width, STRIP), 1


COLUMNS = 32
"""Columns per block that sums all rows."""


def by_columns(width: int) -> Grid:
    return ceil_div(width, COLUMNS), 1, 1


def block_per_row(rows: int) -> Grid:
    """One block per row."""
    return rows, 1, 1


def row_strips(rows: int, width: int) -> Grid:
    """One block per strip of columns in each row."""
    return rows, ceil_div(width, STRIP), 1


RUN, MERGED, BUNDLE = 2048, 8, 16
"""Ids sorted among themselves as one run, sorted runs merged at a time, and rows summed before their sums are."""

TABLES = 3
"""Tables whose rows one kernel can sum, at most."""


def warp_keys(n: int, tables: int) -> Grid:
    """One block per 32 ids, the threads of a warp."""
    return ceil_div(n, 32), tables, 1


def thread_keys(n: int, tables: int) -> Grid:
    """One thread per id."""
    return ceil_div(n, 256), tables, 1


def bundle_strips(tables: int, bundles: int, width: int) -> Grid:
    """One warp per strip of columns in each bundle of each table."""
    return ceil_div(bundles, WARPS), ceil_div(width, STRIP), tables


def table_strips(height1: int, height2: int, height3: int, width: int) -> Grid:
    """One warp per strip of columns in each row; all rows of a block belong to one table."""
    return sum(ceil_div(height, WARPS) for height in (height1, height2, height3)), ceil_div(width, STRIP), 1


def quads(n: int) -> Grid:
    """Four numbers per thread."""
    return ceil_div(n, 4 * 256), 1, 1


SQUARES = 16384
"""Numbers whose squares one block sums."""


def squares(n: int) -> Grid:
    return ceil_div(n, SQUARES), 1, 1


def one_block() -> Grid:
    """One block, whatever the size."""
    return 1, 1, 1


# ---------------------------------------------------------------- the table
RECIPE = "clock* seed:u64 site:u64 step:u64 threshold:u32 scale:f32"
"""The parameters that tell a kernel what to drop: `draws.recipe`."""

DRAW = f"places* {RECIPE}"
"""The parameters that tell a kernel which units of rows to drop: `draws.row_draw`."""

ROUNDED = "rounded_bf16* rounded_fp16*"
"""Where a kernel also writes its output in bf16 or fp16: `shortening.short_outputs`."""

BETAS = "beta1:f32 rest1:f32 beta2:f32 rest2:f32"

WARP_ROWS, STRIPS = (32 * WARPS, 1, 1), (32, WARPS, 1)

TABLE: dict[str, Entry] = {
    "drop": Entry("rows_float32.cu", f"x* out* {ROUNDED} rows:i64 width:i32 {DRAW}", WARP_ROWS, warp_per_row),
    "bias_tanh": Entry("rows_float32.cu", "h* bias* rows:i64 width:i32", STRIPS, strips),
    "bias_tanh_pullback": Entry("rows_float32.cu", f"g* y* dh* {ROUNDED} partial* rows:i64 width:i32", STRIPS, strips),
    "total_rows": Entry("rows_float32.cu", "x* out* rows:i64 width:i32", (8, 32, 1), by_columns),
    "cross_entropy": Entry(
        "loss.cu",
        "logits* labels* weights* losses* counts* saved* rows:i64 classes:i32 ignored:i64 smoothing:f32",
        (256, 1, 1),
        block_per_row,
    ),
    "total_loss": Entry("loss.cu", "losses* counts* denominator* total* rows:i64 divisor:f32 mean:i32", (1024, 1, 1), one_block),
    "cross_entropy_pullback": Entry(
        "loss.cu",
        f"g* logits* labels* weights* saved* factor* dlogits* {ROUNDED} rows:i64 classes:i32 each:i32 ignored:i64 smoothing:f32",
        (256, 1, 1),
        block_per_row,
    ),
    "gather_rows": Entry(
        "embedding.cu", f"table* ids* out* {ROUNDED} trained* rows:i64 height:i64 width:i32 untrained:i64", WARP_ROWS, warp_per_row
    ),
    "scatter_rows": Entry("embedding.cu", "x* ids* out* rows:i64 width:i32", WARP_ROWS, warp_per_row),
    "sort_ids": Entry("embedding.cu", "ids* keys* n:i64", STRIPS, warp_keys),
    "merge_runs": Entry("embedding.cu", "keys* merged* run:i64 n:i64", (256, 1, 1), thread_keys),
    "sum_bundles": Entry("embedding.cu", "values* keys* bundles* n:i64 width:i32", STRIPS, bundle_strips),
    "sum_rows": Entry(
        "embedding.cu",
        "values* keys* bundles* out* n:i64 height1:i64 height2:i64 height3:i64 width:i32 accumulate:i32",
        STRIPS,
        table_strips,
    ),
    "embed_norm": Entry(
        "embed_norm.cu",
        "table1* table2* table3* ids1* ids2* ids3* height1:i64 height2:i64 height3:i64 untrained1:i64 untrained2:i64 untrained3:i64 "
        f"gamma* beta* out* {ROUNDED} trained* xhat* rstd* rows:i64 width:i32 eps:f32 {DRAW}",
        WARP_ROWS,
        warp_per_row,
    ),
    "embed_norm_pullback": Entry("embed_norm.cu", f"g* gamma* xhat* rstd* gx* dropped* rows:i64 width:i32 {DRAW}", WARP_ROWS, warp_per_row),
    "segment_mean": Entry("sequences.cu", "x* first_rows* out* rows:i64 sequences:i64 width:i32", STRIPS, row_strips),
    "segment_mean_pullback": Entry("sequences.cu", "g* first_rows* dx* rows:i64 sequences:i64 width:i32", STRIPS, row_strips),
    "segment_max": Entry("sequences.cu", "x* first_rows* out* rows:i64 sequences:i64 width:i32", STRIPS, row_strips),
    "segment_max_pullback": Entry("sequences.cu", "g* x* out* first_rows* dx* rows:i64 sequences:i64 width:i32", STRIPS, row_strips),
    "count_ids": Entry("sequences.cu", "ids* first_rows* out* rows:i64 sequences:i64 skipped:i64 start:i64", WARP_ROWS, warp_per_row),
    "adam": Entry(
        "optimizer.cu",
        f"p* g* m* v* largest* n:i64 {BETAS} size:f32 eps:f32 l2:f32 decay:f32 factor:f32",
        (256, 1, 1),
        quads,
    ),
    "begin_captured": Entry("optimizer.cu", "loss* losses* squares* n:i64 max_norm:f64 numbers* scale* stopped*", (256, 1, 1), one_block),
    "adam_captured": Entry(
        "optimizer.cu",
        f"p* g* m* v* largest* n:i64 {BETAS} l2:f32 changing* scale* stopped*",
        (256, 1, 1),
        quads,
    ),
    "average_captured": Entry("optimizer.cu", "weights* average* n:i64 rate:f32 stopped*", (256, 1, 1), quads),
    "sum_of_squares": Entry("optimizer.cu", "x* partial* n:i64", (256, 1, 1), squares),
    "sum_doubles": Entry("optimizer.cu", "partial* total* n:i64", (256, 1, 1), one_block),
}

STORAGES = ("float32", "bf16", "fp16")
"""Storage of rows; bf16 is held as its bits in uint16."""


def _rows() -> Iterator[tuple[str, Entry]]:
    kernels: dict[str, tuple[str, Grid, Callable[..., Grid]]] = {
        "add_norm": (
            f"y* bias* residual* gamma* beta* out* rounded* xhat* rstd* rows:i64 width:i32 eps:f32 {DRAW}",
            WARP_ROWS,
            warp_per_row,
        ),
        "add_norm_pullback": (f"g* gamma* xhat* rstd* gx* dy* rows:i64 width:i32 {DRAW}", WARP_ROWS, warp_per_row),
        "add_bias": ("y* bias* rows:i64 width:i32", STRIPS, strips),
        "bias_gelu": ("h* bias* out* rows:i64 width:i32", STRIPS, strips),
        "bias_gelu_pullback": ("g* h* bias* dh* partial* rows:i64 width:i32 stride:i32", STRIPS, strips),
        "column_sums": ("x* partial* rows:i64 width:i32 stride:i32", STRIPS, strips),
        "norm_sums": ("g* xhat* dy* partial* rows:i64 width:i32 stride:i32", STRIPS, strips),
    }
    for storage in STORAGES:
        for kernel, how in kernels.items():
            yield f"{kernel}_{storage}", Entry(f"rows_{storage}.cu", *how)


TABLE.update(_rows())

PIECE = 64
"""Rows per block of attention."""

HEAD_SIZES = (32, 64, 128)


def by_head(pieces: int, heads: int) -> Grid:
    """One block per piece of a sequence and head; the heads of a piece are neighbours in memory, so their blocks run side by side."""
    return pieces * heads, 1, 1


def _attention() -> Iterator[tuple[str, Entry]]:
    settings = f"rows:i64 parts:i32 heads:i32 causal:i32 {RECIPE}"
    for precision in PRECISIONS:
        for size in HEAD_SIZES:
            for kernel, arrays in {
                "forward": "q* kv* items* out* lse*",
                "dq": "q* kv* items* out* lse* g* dq* delta*",
                "dkv": "q* kv* items* lse* delta* g* dkv*",
            }.items():
                yield (
                    f"attention_{kernel}_{precision}_{size}",
                    Entry(f"attention_{precision}.cu", f"{arrays} {settings}", (128, 1, 1), by_head),
                )


TABLE.update(_attention())
