"""Packed attention by tensor cores, run on the CPU: operands in tf32, bfloat16 or float16, sums in float32."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernels.cuda.attention_cases import OVERRIDE, assert_close, body, finer, kernels, sample
from kernels.cuda.emulation import Emulator, Namespace, guarded

import minigrad as mg
from minigrad.backend.precision import rounded
from minigrad.kernels.cuda import launch
from minigrad.kernels.cuda.attention import attend
from minigrad.kernels.cuda.build import SOURCES
from minigrad.kernels.cuda.table import HEAD_SIZES
from minigrad.packing import Packing

SHORT = {"tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""The largest relative error of one number's rounding."""

MANY = 3
"""So many roundings may add up in a result, relative to its largest entry, where q, k, v and the gradient are short already: of weights on
their way into a product, and with arrays of two bytes of the output, from which the way back begins, and of the gradient."""


@pytest.mark.parametrize("form", ["training", "causal cross", "sequence head"])
@pytest.mark.parametrize("size", HEAD_SIZES)
@pytest.mark.parametrize("precision", SHORT)
def test_values_and_gradients_equal_the_body(precision: str, size: int, form: str, emulator: Emulator) -> None:
    case = sample(form, size, (1, 17, 40) if size == 128 else (1, 15, 33, 66), precision=precision)
    with mg.precision(precision):
        assert_close(kernels(case, emulator), body(case), MANY * SHORT[precision])


@pytest.mark.parametrize("precision", SHORT)
def test_the_same_bits_every_time(precision: str, emulator: Emulator) -> None:
    case = sample("decoder", 32, (5, 70))
    with mg.precision(precision):
        for once, again in zip(kernels(case, emulator), kernels(case, emulator, backwards=True), strict=True):
            np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("precision", SHORT)
def test_no_rounding_but_that_of_operands_and_results(precision: str, emulator: Emulator) -> None:
    """Weights that are powers of two: what is left are operands rounded once, sums in float32, and how results are stored."""
    size, packing = 64, Packing([32, 64, 16])
    rng = np.random.default_rng(0)
    kv, g = (rng.standard_normal((packing.rows, width)).astype(np.float32) for width in (3 * size, size))
    kv[:, :size] = 0  # equal scores
    with mg.precision(precision):
        ours = kernels(([None, kv], g, {"packing": packing, "heads": 1}), emulator)
    truth = body(([None, rounded(kv, precision)], rounded(g, precision), {"packing": packing, "heads": 1}))
    stored = 0.0 if precision == "tf32" else SHORT[precision]
    assert_close([ours[0], ours[1][:, 2 * size :]], [truth[0], truth[1][:, 2 * size :]], stored + 1e-6)  # a few roundings of float32


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("precision", SHORT)
def test_any_number_of_tiles(precision: str, masked: bool, emulator: Emulator) -> None:
    """None, where the only key is masked, one, two, three and four, of which the last holds one row, some, or as many as can be."""
    case = sample("encoder", 32, (1, 2, 31, 32, 33, 48, 64, 65, 96, 97), precision=precision)
    packing = case[2]["packing"]
    case[2]["packing"] = case[2]["queries"] = Packing(packing.lengths, packing.numbers, [masked] * len(packing))
    with mg.precision(precision):
        ours = kernels(case, emulator)
        for once, again in zip(ours, kernels(case, emulator, backwards=True), strict=True):
            np.testing.assert_array_equal(once, again)
    assert_close(ours, body(case), MANY * SHORT[precision])


@pytest.mark.parametrize("form", ["training", "causal cross"])
@pytest.mark.parametrize("size", HEAD_SIZES)
def test_tiles_and_left_operands_are_rounded_to_tf32(size: int, form: str, emulator: Emulator) -> None:
    """So are gradients in their product with the output: here most weights are nearly 1, and what that takes away is nearly all."""
    case, short = finer(form, size, (1, 33, 66), "tf32")
    with mg.precision("tf32"):
        assert_close(kernels(case, emulator), body(short), MANY * SHORT["tf32"])


def test_weights_are_rounded_to_tf32(emulator: Emulator) -> None:
    """Of two keys the first has the larger score, so that its weight is 1 before they are divided by their sum, and a value of 0."""
    packing, size = Packing([2] * 300), 32
    kv = np.zeros((packing.rows, 3, size), np.float32)
    kv[:, 0, 0] = np.repeat(rounded(np.random.default_rng(2).uniform(0.1, 9, 300).astype(np.float32), "tf32"), 2)
    kv[1::2, 1, 0], kv[1::2, 2] = -1, 1
    with mg.precision("tf32"):
        out = OVERRIDE(Namespace(), None, guarded(kv.reshape(packing.rows, -1)), packing=packing, heads=1)[0]
    weight = np.exp(-kv[::2, 0, 0].astype(np.float64) / np.sqrt(size))
    expected = rounded(weight.astype(np.float32), "tf32") / (1 + weight)
    assert np.median(np.abs(out[::2, 0] / expected - 1)) < 1e-6  # a few roundings of float32, which may tip the rounding of a few weights


@pytest.mark.parametrize("precision", SHORT)
def test_operands_are_rounded(precision: str, emulator: Emulator) -> None:
    """One key: the output is its value, as the product rounds it."""
    packing, size = Packing([1] * 200), 32
    rng = np.random.default_rng(1)
    kv = rng.standard_normal((200, 3 * size)).astype(np.float32)
    with mg.precision(precision):
        out = OVERRIDE(Namespace(), None, guarded(kv), packing=packing, heads=1)[0]
    np.testing.assert_allclose(out, rounded(kv[:, 2 * size :], precision), rtol=3e-7)  # a weight that is 1 within two roundings of float32


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_arrays_of_two_bytes_are_read_and_written(precision: str, emulator: Emulator) -> None:
    """What the operation does with float32 around them is all that is between."""
    arrays, g, constants = sample("cross", 32, (3, 20), precision=precision)
    with mg.precision(precision):
        expected = kernels((arrays, g, constants), emulator)
    xp = Namespace()
    short = [xp.shortened(a, precision) for a in arrays]
    out, pullback = attend(xp, *short, **constants, size=32, precision=precision)
    for mine, theirs in zip([out, *pullback(xp.shortened(g, precision))], expected, strict=True):
        assert mine.dtype == short[0].dtype
        np.testing.assert_array_equal(xp.widened(mine), theirs)
    xp.check()


def test_the_way_back_uses_the_products_of_the_way_there(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The saved sums are of rounded scores: weights of other scores would not add up to 1."""
    names: list[str] = []
    kernel_of = launch.kernel_of
    monkeypatch.setattr(launch, "kernel_of", lambda name: names.append(name) or kernel_of(name))
    arrays, g, constants = sample("encoder", 32, (3,))
    with mg.precision("bf16"):
        pullback = OVERRIDE(Namespace(), *arrays, **constants)[1]
    pullback(g)
    assert names == ["attention_forward_bf16_32", "attention_dq_bf16_32", "attention_dkv_bf16_32"]


@pytest.mark.parametrize("precision", SHORT)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_not_rounded_away(precision: str, value: Any, emulator: Emulator) -> None:
    case = sample("encoder", 32, (5, 40))
    assert case[0][1] is not None
    case[0][1][20, 64 + 3] = value
    with np.errstate(invalid="ignore"):
        truth = body(case, np.float32)[0]
    with mg.precision(precision):
        out = kernels(case, emulator)[0]
    np.testing.assert_array_equal(np.where(np.isfinite(out), 0, out), np.where(np.isfinite(truth), 0, truth))


def test_fp16_overflows_to_infinity(emulator: Emulator) -> None:
    kv = np.zeros((1, 96), np.float32)
    kv[0, 64:66] = 65519, 65520
    with mg.precision("fp16"):
        out = OVERRIDE(Namespace(), None, guarded(kv), packing=Packing([1]), heads=1)[0]
    assert out[0, :2].tolist() == [65504, np.inf]


# ---------------------------------------------------------------- what the emulator replaces
ASKS = """
#include "ptx.cuh"
extern "C" __global__ void k(float x, float y, float* sums, u32* bits, int chosen) {
    float s[4] = {sums[0], sums[1], sums[2], sums[3]};
    u32 a[4] = {bits[0], bits[1], bits[2], bits[3]};
    CALL;
    for (int i = 0; i < 4; ++i) sums[i] = s[i], bits[i] = a[i];
}
"""

INSTRUCTIONS = {  # X and Y: where the parameters x and y lie
    "s[0] = power_of_two(x)": r"ex2\.approx\.ftz\.f32 %f\d+, X;",
    "a[0] = tf32(x)": r"cvt\.rna\.tf32\.f32 %r\d+, X;",
    "a[0] = bf16_pair(x, y)": r"cvt\.rn\.bf16x2\.f32 %r\d+, Y, X;",  # the first operand is the upper half
    "a[0] = fp16_pair(x, y)": r"cvt\.rn\.f16\.f32 low, X; cvt\.rn\.f16\.f32 high, Y; mov\.b32 %r\d+, \{low, high\};",
    "multiply_tf32(s, a, bits[4], bits[5])": r"mma\.sync\.aligned\.m16n8k8\.row\.col\.f32\.tf32\.tf32\.f32 ",
    "multiply_bf16(s, a, bits[4], bits[5])": r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32 ",
    "multiply_fp16(s, a, bits[4], bits[5])": r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.f16\.f16\.f32 ",
    "__shared__ uint4 rows[32]; load_along(a, &rows[threadIdx.x])": r"ldmatrix\.sync\.aligned\.m8n8\.x4\.shared\.b16 ",
    "__shared__ uint4 rows[32]; load_across(a, &rows[threadIdx.x])": r"ldmatrix\.sync\.aligned\.m8n8\.x4\.trans\.shared\.b16 ",
    "__shared__ uint4 row; copy_16(&row, bits, chosen)": r"cp\.async\.cg\.shared\.global \[%r\d+\], \[%rd\d+\], 16, %r\d+;",
    "__shared__ uint4 row; copy_4(&row, bits, chosen)": r"cp\.async\.ca\.shared\.global \[%r\d+\], \[%rd\d+\], 4, %r\d+;",
    "await_copies()": r"cp\.async\.wait_all;",
    "const float2 f = fp16_numbers(bits[4]); s[0] = f.x; s[1] = f.y": r"mov\.b32 \{low, high\}, %r\d+; cvt\.f32\.f16 %f\d+, low;",
}


BEFORE_AMPERE = {
    "multiply_fp16(s, a, bits[4], bits[5])": r"(?s)(mma\.sync\.aligned\.m16n8k8\.row\.col\.f32\.f16\.f16\.f32 .*){2}",
    "__shared__ uint4 row; copy_16(&row, bits, chosen); bits[0] = row.x": r"st\.shared\.v4\.u32 ",
}


@pytest.mark.parametrize(("call", "since"), [*((call, 80) for call in INSTRUCTIONS), *((call, 75) for call in BEFORE_AMPERE)])
def test_each_function_is_its_instruction(call: str, since: int, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed: nothing shows the instructions")
    (tmp_path / "asks.cu").write_text(ASKS.replace("CALL", call), encoding="utf-8")
    command = [nvcc, "-std=c++17", f"-arch=sm_{since}", "-ptx", f"-I{SOURCES}", "-o", str(tmp_path / "asks.ptx"), str(tmp_path / "asks.cu")]
    subprocess.run(command, check=True)
    text = (tmp_path / "asks.ptx").read_text(encoding="utf-8")
    pattern = (INSTRUCTIONS if since == 80 else BEFORE_AMPERE)[call]
    for name, number in (("X", 0), ("Y", 1)):
        if name in pattern:
            pattern = pattern.replace(name, re.findall(rf"ld\.param\.f32\s+(%f\d+), \[k_param_{number}\]", text)[0])
    assert re.search(pattern, text), text
