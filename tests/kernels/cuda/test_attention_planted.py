"""That the tests of attention's kernels can fail: errors planted in their sources are caught by the comparison with the body."""

from __future__ import annotations

import pytest
from kernels.cuda.attention_cases import assert_close, body, finer, kernels, only_smallest, sample
from kernels.cuda.emulation import EmulationError, Emulator

import minigrad as mg
from minigrad.kernels.cuda import launch

FLOAT32, TF32, BF16 = "float32", "tf32", "bf16"

PLANTED = [  # precision, form, source, what stands there, what is planted
    (FLOAT32, "decoder", "attention.cuh", "item.keys - item.queries + 1 :", "item.keys - item.queries :"),
    (FLOAT32, "causal cross", "attention.cuh", "const int ahead = item.queries - item.keys", "const int ahead = 0"),
    (FLOAT32, "encoder", "attention.cuh", "draw.scale, -mean[i / 2]", "draw.scale, 0.0f"),
    (FLOAT32, "training", "attention.cuh", "fmaf(slopes[j][i], factor(j, i),", "fmaf(slopes[j][i], 1.0f,"),
    (FLOAT32, "encoder", "products_float32.cuh", "if (row >= rows) continue;", ""),
    (FLOAT32, "encoder", "attention_tiles.cuh", "__syncthreads();  // all threads are done with the previous tile", ""),
    (FLOAT32, "encoder", "products_float32.cuh", "        __syncwarp();\n#pragma", "#pragma"),
    (FLOAT32, "training", "attention_tiles.cuh", "* heads + head)", "* heads)"),
    (FLOAT32, "decoder", "attention.cuh", "late + 8 * (i / 2)", "late"),
    (FLOAT32, "decoder", "attention.cuh", "if (key + 8 * N <= end(first)) return;", "if (key <= end(first)) return;"),
    (TF32, "encoder", "attention_tiles.cuh", "        Products::round(tiles[stage]);\n", ""),
    (
        TF32,
        "encoder",
        "attention_tiles.cuh",
        "        await_copies();\n        Products::round(tiles[stage]);\n",
        "        Products::round(tiles[stage]);\n        await_copies();\n",
    ),
    (TF32, "encoder", "attention_tiles.cuh", "__syncthreads();  // this tile is complete, all threads are done with the previous one", ""),
    (TF32, "encoder", "attention_tiles.cuh", "load(1 - stage, at + TILE)", "load(stage, at + TILE)"),
    (TF32, "encoder", "attention_tiles.cuh", "load(at / TILE % 2, at)", "load(1 - at / TILE % 2, at)"),
    (TF32, "encoder", "products_tensor.cuh", "each_four(tiles[0], in_place)", ""),
    (TF32, "encoder", "products_tensor.cuh", "return rounded(*(const float4*)(row", "return (*(const float4*)(row"),
    (TF32, "encoder", "products_tensor.cuh", "if (row >= rows) continue;", ""),
    (TF32, "encoder", "products_tensor.cuh", "8 * Place().quad + 4 * side", "8 * Place().quad"),
    (
        TF32,
        "decoder",
        "attention_tiles.cuh",
        "int at, int end, Load load) {\n    if (",
        "int at, int end, Load load) {\n    at = 0;\n    if (",
    ),
    (BF16, "encoder", "attention_tiles.cuh", "        await_copies();\n", ""),
    (BF16, "encoder", "attention_tiles.cuh", "__syncthreads();  // this tile is complete, all threads are done with the previous one", ""),
    (BF16, "encoder", "attention_tiles.cuh", "__syncthreads();  // all threads are done with the last tile", ""),
    (BF16, "encoder", "products_tensor.cuh", "if (first + row < rows)", ""),
    (BF16, "encoder", "products_tensor.cuh", "row + i < count);", "row + i <= count);"),
]

TOLERANCES = {FLOAT32: 5e-6, TF32: 5 * 2.0**-11, BF16: 3 * 2.0**-8}
"""Those of the tests of each."""


@pytest.mark.parametrize(("precision", "form", "source", "right", "wrong"), PLANTED, ids=[p[3].strip()[:30] for p in PLANTED])
def test_a_planted_error_is_caught(
    precision: str, form: str, source: str, right: str, wrong: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = emulator.changed(source, right, wrong)
    only_smallest(planted, precision, monkeypatch)
    monkeypatch.setattr(launch, "kernel_of", planted.kernel)
    case = short = sample(form, 32, (3, 33, 70), precision=precision)
    if precision == TF32:
        case, short = finer(form, 32, (3, 33, 70), TF32)
    with mg.precision(precision), pytest.raises((AssertionError, EmulationError)):
        for backwards in (False, True):
            assert_close(kernels(case, planted, backwards), body(short), TOLERANCES[precision])
