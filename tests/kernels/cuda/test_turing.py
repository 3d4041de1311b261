"""GPUs before Ampere: what `turing.cuh` has in place of their instructions gives the same bits, in every kernel that uses it."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda import short_arrays
from kernels.cuda.attention_cases import kernels, sample
from kernels.cuda.emulation import Emulator, guarded
from kernels.cuda.parity import evaluate, normal

import minigrad as mg
from minigrad.backend import random
from minigrad.backend.precision import rounded
from minigrad.backend.random import Draw
from minigrad.kernels.cuda import launch
from minigrad.kernels.cuda.build import SOURCES
from minigrad.packing import Packing


@pytest.fixture(scope="module")
def turing(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("turing"), flags=("-DTURING",))


@pytest.mark.parametrize("form", ["training", "causal cross"])
@pytest.mark.parametrize(("precision", "size"), [("fp16", 32), ("fp16", 128), ("float32", 64)])
def test_attention_has_the_same_bits(
    precision: str, size: int, form: str, emulator: Emulator, turing: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = sample(form, size, (1, 17, 66), precision=precision)
    with mg.precision(precision):
        since = kernels(case, emulator)
        monkeypatch.setattr(launch, "kernel_of", turing.kernel)
        for backwards in (False, True):
            for before, after in zip(since, kernels(case, turing, backwards), strict=True):
                np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("width", [128, 130, 768])
def test_rows_have_the_same_bits(width: int, emulator: Emulator, turing: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalised rows, whose residual is copied to shared memory."""
    packing = Packing([5, 4])
    with random.at(0, 0):
        draw = Draw("encoder.layer.0", 0.1, packing, width)
    given = normal((9, 6), (width, 6), (width,), (9, width), (width,), (width,))
    since = evaluate("dense_add_norm", given, {"draw": draw}, False, emulator)
    monkeypatch.setattr(launch, "kernel_of", turing.kernel)
    for before, after in zip(since, evaluate("dense_add_norm", given, {"draw": draw}, False, turing), strict=True):
        np.testing.assert_array_equal(before, after)


def test_bfloat16_is_rounded_to_the_nearest(turing: Emulator) -> None:
    text = """
#include "ptx.cuh"
extern "C" __global__ void shorten(const float2* x, u32* y) { y[threadIdx.x] = bf16_pair(x[threadIdx.x].x, x[threadIdx.x].y); }
"""
    special = [0, 0x7FFF, 0x8000, 0x8001, 0x17FFF, 0x18000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF, 0x80000000]
    x = np.concatenate([np.random.default_rng(0).integers(0, 2**32, 500), special]).astype(np.uint32).view(np.float32)
    y = guarded(shape=x.shape, dtype=np.uint16)
    (turing.folder / "shorten.cu").write_text(text, encoding="utf-8")
    library = Emulator(turing.folder, turing.folder, [*turing.flags, f"-I{SOURCES}"]).library("shorten.cu", ["shorten"])
    turing.kernel_in(library, "shorten")((1, 1, 1), (len(x) // 2, 1, 1), (x, y))
    np.testing.assert_array_equal(short_arrays.widened(y), rounded(x, "bf16"))
