"""`scalar.cuh`, whose functions kernels and a C++ compiler share, against NumPy."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.backend import numpy as numpy_namespace
from minigrad.backend import random
from minigrad.backend.erf import erfc
from minigrad.backend.random import DROPOUT, UNITS, Draw
from minigrad.kernels.cuda.build import SOURCES
from minigrad.optim.adam import adam
from minigrad.packing import Packing

PROGRAM = """
#include "scalar.cuh"
extern "C" void words(const u64* key, const u64* counter, u64* out) {
    const Words found = philox(key[0], key[1], counter[0], counter[1], counter[2], counter[3]);
    for (int i = 0; i < 4; ++i) out[i] = found.word[i];
}
extern "C" u32 survivors_of(const u64* numbers, u32 threshold, u64 sequence, u64 block) {
    return survivors({numbers[0], numbers[1], numbers[2], threshold, 1.0f}, sequence, block);
}
extern "C" void gelus(const float* x, float* y, float* slope, int n) {
    for (int i = 0; i < n; ++i) y[i] = gelu(x[i]), slope[i] = gelu_slope(x[i]);
}
extern "C" void adams(const float* rule, const float* g, float* p, float* m, float* v, float* largest, int n) {
    const AdamRule r = {rule[0], rule[1], rule[2], rule[3], rule[4], rule[5], rule[6], rule[7]};
    for (int i = 0; i < n; ++i) adam_element(r, g[i], p[i], m[i], v[i], largest ? largest + i : nullptr);
}
"""

FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")


@pytest.fixture(scope="module")
def scalar(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    folder: Path = tmp_path_factory.mktemp("scalar")
    (folder / "scalar.cpp").write_text(PROGRAM, encoding="utf-8")
    command = [compiler, *FLAGS, f"-I{SOURCES}", "-o", str(folder / "scalar.so"), str(folder / "scalar.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "scalar.so"))


def place(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


word = st.integers(0, 2**64 - 1)
small = st.sampled_from([0, 1, 2, 2**32 - 1, 2**32])


# ---------------------------------------------------------------- random words
@given(seed=st.integers(0, 2**63 - 1), purpose=st.integers(0, 3), sequence=word, site=word, step=word | small)
def test_philox_gives_numpys_words(scalar: ctypes.CDLL, seed: int, purpose: int, sequence: int, site: int, step: int) -> None:
    blocks = 5
    expected = random.words(seed, purpose, sequence, site, step, blocks).view(np.uint64).reshape(blocks, 4)
    for block in range(blocks):
        found = np.zeros(4, np.uint64)
        key, counter = np.array([seed, purpose], np.uint64), np.array([block + 1, sequence, site, step], np.uint64)
        scalar.words(place(key), place(counter), place(found))
        np.testing.assert_array_equal(found, expected[block])


def test_philox_has_known_answers(scalar: ctypes.CDLL) -> None:
    """Those that the authors publish for ten rounds of zeros and of ones: no mistake of NumPy's and ours is the same."""
    for bits, answer in {
        0: "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
        2**64 - 1: "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    }.items():
        found = np.zeros(4, np.uint64)
        scalar.words(place(np.full(2, bits, np.uint64)), place(np.full(4, bits, np.uint64)), place(found))
        assert " ".join(f"{int(x):016x}" for x in found) == answer


@given(rate=st.sampled_from([0.0, 1.0, 1 / 65536, 65535 / 65536, 0.1, 0.5]) | st.floats(0, 1), seed=st.integers(0, 2**63 - 1))
def test_survivors_are_those_of_the_draw(scalar: ctypes.CDLL, rate: float, seed: int) -> None:
    scalar.survivors_of.restype = ctypes.c_uint
    width, packing = 3 * UNITS, Packing([2, 1], numbers=[4, 1])
    with random.at(seed, 7):
        draw = Draw("here", rate, packing, width)
    numbers = np.array([draw.seed, draw.site, draw.step], np.uint64)
    rows = []
    for number, length in zip(packing.numbers, packing.lengths, strict=True):
        for block in range(int(length) * 3):
            bits = scalar.survivors_of(place(numbers), draw.threshold, ctypes.c_uint64(int(number)), ctypes.c_uint64(block))
            rows.append([bits >> j & 1 for j in range(UNITS)])
    np.testing.assert_array_equal(np.array(rows, bool).reshape(3, width), draw.mask())
    if rate in (0.0, 1.0):
        assert draw.mask().all() == (rate == 0.0) and draw.mask().any() == (rate == 0.0)


def test_the_purpose_is_dropouts(scalar: ctypes.CDLL) -> None:
    assert f"constexpr u64 DROPOUT = {DROPOUT};" in (SOURCES / "scalar.cuh").read_text(encoding="utf-8")


# ---------------------------------------------------------------- gelu
def gelus(scalar: ctypes.CDLL, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, slope = np.empty_like(x), np.empty_like(x)
    scalar.gelus(place(x), place(y), place(slope), x.size)
    return y, slope


def test_gelu_and_its_slope(scalar: ctypes.CDLL) -> None:
    x = np.concatenate([np.linspace(-12, 12, 100_001), np.geomspace(1e-38, 1, 500), -np.geomspace(1e-38, 1, 500)]).astype(np.float32)
    y, slope = gelus(scalar, x)
    exact = x.astype(np.float64)
    gate = 0.5 * erfc(-exact * sqrt(0.5))
    density = np.exp(-0.5 * exact**2) / sqrt(2 * np.pi)
    # x/√2 is rounded twice, its factor and the product, and e^(-x²/2) magnifies that x² times; a few roundings besides.
    relative = 2.0**-24 * (8 + 2 * exact**2)
    assert (np.abs(y - exact * gate) <= relative * np.abs(exact * gate) + 1e-45).all()
    assert (np.abs(slope - (gate + exact * density)) <= relative * (gate + np.abs(exact) * density) + 1e-45).all()
    assert (y[x < -5] <= 0).all() and (y[(x < -5) & (x > -12)] < 0).all()  # the left tail has digits


def test_gelu_of_what_is_not_a_number_or_very_large(scalar: ctypes.CDLL) -> None:
    y, slope = gelus(scalar, np.array([np.nan, np.inf, 1e38, -1e38, 0.0], np.float32))
    np.testing.assert_array_equal(y, np.array([np.nan, np.inf, 1e38, 0, 0], np.float32))
    np.testing.assert_array_equal(slope[[0, 2, 3, 4]], [np.nan, 1, 0, 0.5])


# ---------------------------------------------------------------- adam
@given(st.data())
def test_adam_is_the_optimizers_to_the_last_bit(scalar: ctypes.CDLL, data: st.DataObject) -> None:
    def drawn(least: float, most: float) -> Any:
        return data.draw(st.floats(least, most))

    beta1, beta2 = drawn(0, 0.999), drawn(0, 0.9999)
    rule = {"size": drawn(0, 1), "eps": drawn(0, 1e-3), "l2": data.draw(st.sampled_from([0.0, 0.1])), "decay": drawn(0.9, 1)}
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    p, g, m, v, w = (10.0 ** rng.uniform(-12, 3, (5, 200)) * rng.choice([-1, 1], (5, 200))).astype(np.float32)
    v, w = np.abs(v), np.abs(w)
    amsgrad = data.draw(st.booleans())
    ours = [a.copy() for a in (p, m, v, w)]
    numbers = np.array([beta1, 1 - beta1, beta2, 1 - beta2, *rule.values()], np.float64).astype(np.float32)
    scalar.adams(place(numbers), place(g), *[place(a) for a in ours[:3]], place(ours[3] if amsgrad else None), g.size)
    moments = [m, v, w] if amsgrad else [m, v]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        adam.body(numpy_namespace, p, g, moments, [np.empty_like(p), np.empty_like(p)], beta1=beta1, beta2=beta2, **rule)
    for mine, theirs in zip(ours, [p, m, v, w], strict=True):
        np.testing.assert_array_equal(mine, theirs)
