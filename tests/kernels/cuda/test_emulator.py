"""The emulator itself: what would hang or be undefined on a GPU ends a run, and a missing barrier shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kernels.cuda.emulation import EmulationError, Emulator, check_guards, guarded

SOURCE = """
extern "C" __global__ void turned_round(const float* x, float* out) {
    __shared__ float all[64];
    all[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    BARRIER;
    out[blockIdx.x * 64 + threadIdx.x] = all[63 - threadIdx.x];
}
extern "C" __global__ void lanes(float* out) {
    const int lane = threadIdx.x % 32;
    float x = lane;
    for (int far = 16; far; far /= 2) x += __shfl_xor_sync(~0u, x, far);
    out[threadIdx.x * 4] = x;
    out[threadIdx.x * 4 + 1] = __shfl_sync(~0u, lane, (lane + 1) % 32);
    out[threadIdx.x * 4 + 2] = __shfl_down_sync(~0u, lane, 3);
    out[threadIdx.x * 4 + 3] = __ballot_sync(~0u, lane == 3 || threadIdx.x == 40) + 0.5f * __any_sync(~0u, threadIdx.x == 40);
}
extern "C" __global__ void some_leave(float*) { if (threadIdx.x > 10) __syncthreads(); }
extern "C" __global__ void some_elsewhere(float*) {
    if (threadIdx.x > 10) __syncthreads();
    else
        __syncthreads();
}
extern "C" __global__ void half_a_warp(float* out) { if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_sync(~0u, 1.0f, 0); }
extern "C" __global__ void of_another_half(float* out) {
    const unsigned mask = threadIdx.x % 32 < 16 ? 0xFFFFu : 0xFFFF0000u;
    out[threadIdx.x] = __shfl_sync(mask, 1.0f, 16);
}
extern "C" __global__ void too_far(float* out) { out[threadIdx.x + 1] = 1.0f; }
extern "C" __global__ void four_at_once(const float* x, float* out) {
    const int at = 4 * threadIdx.x;
    *(float4*)(out + at) = *(const float4*)(x + at);
}
extern "C" __global__ void grid_of_three_axes(float* out) {
    __shared__ float scratch[32];
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    scratch[thread] = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    __syncthreads();
    out[(int)scratch[thread] * blockDim.x * blockDim.y * blockDim.z + thread] = scratch[0] * 100 + thread;
}
"""

NAMES = [
    "turned_round", "lanes", "some_leave", "some_elsewhere", "half_a_warp", "of_another_half", "too_far", "four_at_once",
    "grid_of_three_axes",
]  # fmt: skip


def made(folder: Path, barrier: str = "__syncthreads()") -> Emulator:
    (folder / "trial.cu").write_text(SOURCE.replace("BARRIER", barrier), encoding="utf-8")
    emulator = Emulator(folder, folder)
    emulator.library("trial.cu", NAMES)
    return emulator


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return made(tmp_path_factory.mktemp("trial"))


def run(emulator: Emulator, name: str, *arguments: np.ndarray, grid: tuple[int, int, int] = (1, 1, 1), threads: int = 64) -> None:
    emulator.kernel_in(emulator.library("trial.cu", NAMES), name)(grid, (threads, 1, 1), arguments)


def test_threads_meet_at_barriers(trial: Emulator) -> None:
    x = np.arange(192, dtype=np.float32)
    for trial.backwards in (False, True):
        out = guarded(shape=(192,))
        run(trial, "turned_round", x, out, grid=(3, 1, 1))
        np.testing.assert_array_equal(out.reshape(3, 64), x.reshape(3, 64)[:, ::-1])
        check_guards(out)
    trial.backwards = False


@pytest.mark.parametrize(("read", "written"), [(0, 0), (1, 0), (0, 2)])
def test_four_numbers_begin_at_a_multiple_of_sixteen_bytes(read: int, written: int, trial: Emulator) -> None:
    x, out = guarded(np.arange(256, dtype=np.float32), offset=read), guarded(shape=(256,), offset=written)
    if read or written:
        with pytest.raises(EmulationError, match=r"four_at_once: trial.cu, line \d+: 0x\w+ is not aligned"):
            run(trial, "four_at_once", x, out)
    else:
        run(trial, "four_at_once", x, out)
        np.testing.assert_array_equal(out, x)


def test_a_missing_barrier_shows(tmp_path: Path) -> None:
    emulator, x, outs = made(tmp_path, ""), np.arange(64, dtype=np.float32), []
    for emulator.backwards in (False, True):
        outs.append(guarded(shape=(64,)))
        run(emulator, "turned_round", x, outs[-1])
    assert not np.array_equal(*outs)


def test_lanes_exchange_numbers(trial: Emulator) -> None:
    out = guarded(shape=(64, 4))
    run(trial, "lanes", out)
    lane = np.arange(64) % 32
    np.testing.assert_array_equal(out[:, 0], np.full(64, 496))
    np.testing.assert_array_equal(out[:, 1], (lane + 1) % 32)
    np.testing.assert_array_equal(out[:, 2], np.where(lane < 29, lane + 3, lane))
    np.testing.assert_array_equal(out[:, 3], np.repeat([8, 8 + 256 + 0.5], 32))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some_leave", "53 threads wait at a barrier that 11 have left without"),
        ("some_elsewhere", "threads of one block wait at the barriers of lines"),
        ("half_a_warp", "not reached by all lanes of its mask"),
        ("of_another_half", "lane 0 asks lane 16, which is not in the mask"),
    ],
)
def test_what_would_hang_ends(name: str, message: str, trial: Emulator) -> None:
    with pytest.raises(EmulationError, match=message):
        run(trial, name, guarded(shape=(64,)))


def test_what_is_written_elsewhere_or_not_at_all_is_found(trial: Emulator) -> None:
    out = guarded(shape=(64,))
    run(trial, "too_far", out)
    with pytest.raises(AssertionError, match="written outside of an array"):
        check_guards(out)
    out = guarded(shape=(66,))
    run(trial, "too_far", out)
    with pytest.raises(AssertionError, match="2 elements were never written"):
        check_guards(out)


def test_a_grid_has_three_axes(trial: Emulator) -> None:
    out = guarded(shape=(2 * 3 * 4, 4 * 2 * 4))
    kernel = trial.kernel_in(trial.library("trial.cu", NAMES), "grid_of_three_axes")
    kernel((2, 3, 4), (4, 2, 4), (out,))
    np.testing.assert_array_equal(out, np.arange(24)[:, None] * 100 + np.arange(32))
    check_guards(out)
