"""Every source compiles for every architecture that kernels are tried for, without a warning, and each kernel takes what is expected.

A kernel that spills registers to memory, or takes more of them than a table here allows, still gives right numbers: nobody would notice.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from kernels.cuda.architectures import ARCHITECTURES
from kernels.cuda.cubins import is_whole, most_threads, parameter_sizes

from minigrad.backend.precision import PRECISIONS
from minigrad.backend.probe import Queries
from minigrad.errors import MissingExtraError
from minigrad.kernels.cuda.build import SOURCES, TUNED, Resources, compile_source, resources, sources
from minigrad.kernels.cuda.table import HEAD_SIZES, STORAGES, TABLE

REGISTERS = {
    "drop": 56,
    "bias_tanh": 48,
    "bias_tanh_pullback": 64,
    "total_rows": 64,
    "cross_entropy": 40,
    "cross_entropy_pullback": 40,
    "total_loss": 40,
    "gather_rows": 40,
    "scatter_rows": 40,
    "sort_ids": 40,
    "merge_runs": 48,
    "sum_rows": 64,
    "sum_bundles": 64,
    "embed_norm": 80,
    "embed_norm_pullback": 80,
    "segment_mean": 64,
    "segment_mean_pullback": 40,
    "segment_max": 56,
    "segment_max_pullback": 64,
    "count_ids": 24,
    "adam": 56,
    "begin_captured": 48,
    "adam_captured": 56,
    "average_captured": 32,
    "sum_of_squares": 40,
    "sum_doubles": 40,
}
REGISTERS |= {
    f"{kernel}_{storage}": float32 if storage == "float32" else short
    for kernel, float32, short in (
        ("add_norm", 80, 64),  # a row of up to 768 numbers in 24 of each lane; three blocks fit a multiprocessor, or four
        ("add_norm_pullback", 80, 64),
        ("add_bias", 40, 40),
        ("bias_gelu", 48, 48),
        ("bias_gelu_pullback", 80, 48),
        ("column_sums", 40, 40),
        ("norm_sums", 64, 64),
    )
    for storage in STORAGES
}
REGISTERS |= {
    f"attention_{kernel}_{precision}_{size}": 65536 // 128 // blocks // 8 * 8
    for precision in PRECISIONS
    for kernel, counts in {"forward": (4, 4, 3), "dq": (3, 3, 2), "dkv": (3, 3, 2)}.items()
    for size, blocks in zip(HEAD_SIZES, counts, strict=True)  # blocks of 128 threads that are to share a multiprocessor
}
"""The most that a thread may take, a little above what it takes today. At 128, two blocks of 256 threads fit a multiprocessor."""

SPILLED = {
    60: {"sum_rows": 180, "adam": 8},
    70: {"sum_rows": 228},
    75: {"add_norm_float32": 8, "add_norm_fp16": 8, "attention_forward_fp16_128": 32, "attention_dkv_fp16_128": 36},
    100: {"segment_max": 8, "attention_forward_tf32_64": 16, "attention_dkv_tf32_64": 28},
    120: {"attention_forward_tf32_64": 8, "attention_dkv_tf32_64": 68},
}
"""The bytes that kernels may store in local memory and load again where registers are not shared out for a GPU: a few numbers of a thread,
which cost less than having fewer blocks side by side would."""

OF_NO_MATTER = r"Architectures prior to '<compute/sm>_75' are deprecated|Value of threads per SM for entry \w+ is out of range"
"""Warnings: that CUDA 13 does without Pascal and Volta, and that a multiprocessor of Turing has fewer threads than kernels ask for."""

MOST_REGISTERS = 255
"""Of any kernel without a line above: beyond, the compiler spills."""

STATIC_SHARED = 48 << 10
"""Bytes of shared memory that a block can have without asking for more at its launch."""


@cache
def compiled(source: str, architecture: int) -> tuple[bytes, str]:
    if divmod(architecture, 10) not in Queries.architectures():
        pytest.skip(f"the installed NVRTC does not compile for sm_{architecture}")
    return compile_source(source, (SOURCES / source).read_text(encoding="utf-8"), architecture)


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    try:
        compile_source("nothing", "", 90)
    except MissingExtraError as error:
        pytest.skip(f"no compiler for GPUs here: {error}")


@cache
def needed(source: str, architecture: int) -> dict[str, Resources]:
    return {found.kernel: found for found in resources(compiled(source, architecture)[1])}


each = pytest.mark.parametrize(("source", "architecture"), [(s, a) for a in ARCHITECTURES for s in sources(a)])


@each
def test_a_source_compiles_without_a_warning(source: str, architecture: int) -> None:
    cubin, said = compiled(source, architecture)
    assert cubin.startswith(b"\x7fELF") and is_whole(cubin)
    assert not [line for line in said.splitlines() if "warning" in line and not re.search(OF_NO_MATTER, line)], said


@each
def test_a_source_holds_the_kernels_of_the_table(source: str, architecture: int) -> None:
    expected = {name: entry for name, entry in TABLE.items() if entry.source == source}
    assert set(needed(source, architecture)) == set(expected)
    for name, sizes in parameter_sizes(compiled(source, architecture)[0]).items():
        assert sizes == [8 if kind is None else np.dtype(kind).itemsize for _, kind in expected[name].types], name
    assert most_threads(compiled(source, architecture)[0]) == {name: np.prod(entry.block) for name, entry in expected.items()}


@each
def test_nothing_lies_in_local_memory_and_registers_stay_below_the_ceiling(source: str, architecture: int) -> None:
    for name, found in needed(source, architecture).items():
        assert max(found.stack, found.spills) <= SPILLED.get(architecture, {}).get(name, 0), name
        ceiling = REGISTERS.get(name, MOST_REGISTERS) if architecture in TUNED else MOST_REGISTERS
        assert 0 < found.registers <= ceiling, name
        threads = int(np.prod(TABLE[name].block))
        assert found.registers * threads <= 65536, f"{name}: no block fits a multiprocessor"
        assert found.shared <= STATIC_SHARED, name


def test_the_ceilings_are_of_kernels_that_exist() -> None:
    assert set(REGISTERS) <= set(TABLE)
    assert set().union(*SPILLED.values()) <= set(TABLE) and not set(SPILLED) & set(TUNED)


@pytest.mark.parametrize("source", sources())
def test_nvcc_agrees(source: str, tmp_path: Path) -> None:
    """Another compiler, of another version: what one lets pass may be an error of the other."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    command = [
        nvcc,
        "-std=c++17",
        "-arch=sm_80",
        "-cubin",
        "--Werror=all-warnings",
        "-Xptxas=-v,--warn-on-spills",
        "-o",
        str(tmp_path / "x"),
    ]
    done = subprocess.run([*command, str(SOURCES / source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all((found.stack, found.spills) == (0, 0) for found in resources(done.stderr))


@pytest.mark.parametrize("storage", STORAGES)
def test_rows_are_read_and_written_four_numbers_at_a_time(storage: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed: nothing shows the instructions")
    done = subprocess.run(
        [nvcc, "-std=c++17", "-arch=sm_90", "-ptx", "-o", str(tmp_path / "x"), str(SOURCES / f"rows_{storage}.cu")], check=False
    )
    assert done.returncode == 0
    for part in (tmp_path / "x").read_text(encoding="utf-8").split(".entry ")[1:]:
        name = part.partition("(")[0]
        four = r"v4\.f32" if storage == "float32" else r"(v4\.f32|v2\.u32)"
        assert re.search(rf"ld\.global(\.nc)?\.{four}", part) and re.search(rf"st\.global\.{four}", part), name
        assert not re.search(r"\b(ld|st)\.local", part), name


# ---------------------------------------------------------------- that the checks check
def planted(body: str) -> tuple[bytes, str]:
    return compile_source(
        "planted.cu", f'#include "warp.cuh"\nextern "C" __global__ void k(float* x, i64 n, int m, double d) {{ {body} }}', 90
    )


def test_sizes_of_parameters_are_read_right() -> None:
    assert parameter_sizes(planted("x[n + m] = d;")[0]) == {"k": [8, 8, 4, 8]}


def test_the_largest_block_is_read_right() -> None:
    source = 'extern "C" __global__ void __launch_bounds__(96) k(float* x) { x[threadIdx.x] = 1; }'
    assert most_threads(compile_source("planted.cu", source, 90)[0]) == {"k": 96}


def test_local_memory_would_be_seen() -> None:
    body = "float all[100]; for (int i = 0; i < 100; ++i) all[i] = x[i]; x[0] = all[m];"
    [found] = resources(planted(body)[1])
    assert found.stack > 0


def test_a_warning_would_be_seen() -> None:
    assert "warning" in planted("int unused;")[1]


def test_shared_memory_is_read_right() -> None:
    body = "__shared__ float all[300]; all[threadIdx.x] = x[threadIdx.x]; __syncthreads(); x[threadIdx.x] = all[m];"
    [found] = resources(planted(body)[1])
    assert found.shared == 1200 and found.kernel == "k" and found.registers > 0
