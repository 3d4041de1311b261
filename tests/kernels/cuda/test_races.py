"""Races: the emulator finds those that are planted, and none in the kernels.

Here each kernel is run once or a few times. With `EMULATED_RACES=1` in the environment all tests of this folder look for races.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from kernels.cuda import (
    attention_cases,
    block_cases,
    test_blocks,
    test_embed_norm,
    test_embedding,
    test_loss,
    test_optimizer,
    test_rows,
    test_sequences,
)
from kernels.cuda.emulation import RACES, EmulationError, Emulator, guarded
from kernels.cuda.parity import evaluate

import minigrad as mg
from minigrad.backend.precision import PRECISIONS
from minigrad.kernels.cuda import launch
from minigrad.kernels.cuda.build import SOURCES
from minigrad.kernels.cuda.table import TABLE
from minigrad.optim.adam import AdamW


@pytest.fixture(scope="session")
def _racing(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("racing"), flags=RACES)


@pytest.fixture
def racing(_racing: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Kernels run on the CPU, and end at a race."""
    monkeypatch.setattr(launch, "kernel_of", _racing.kernel)
    yield _racing
    _racing.left_out = ""


# ---------------------------------------------------------------- what the emulator finds
SOURCE = """
inline void between(int how) {
    if (how == 0) __syncthreads();
    if (how == 1) __syncwarp();
    if (how == 2) __syncwarp(3u << threadIdx.x % 32 / 2 * 2);
    if (how == 3) __shfl_sync(~0u, 1, 0);
}
extern "C" __global__ void turned_round(const float* x, float* out, int how, int far) {
    __shared__ float all[64];
    all[threadIdx.x] = 0.0f;
    __syncthreads();
    all[threadIdx.x] = x[threadIdx.x];
    between(how);
    out[threadIdx.x] = all[threadIdx.x ^ far];
}
extern "C" __global__ void overwritten(const float* x, float* out, int how, int far) {
    __shared__ float all[64];
    all[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = all[threadIdx.x ^ far];
    between(how);
    all[threadIdx.x] = 1.0f;
}
extern "C" __global__ void copied(const float* x, float* out, int how, int far) {
    __shared__ __align__(16) float all[256];
    copy_16(all + 4 * threadIdx.x, x, true);
    if (how == 0) await_copies();
    __syncthreads();
    out[threadIdx.x] = all[4 * (threadIdx.x ^ far)];
    await_copies();
}
extern "C" __global__ void unwritten(const float* x, float* out, int, int) {
    __shared__ float all[64];
    if (blockIdx.x == 0) all[threadIdx.x] = x[threadIdx.x];
    out[blockIdx.x * 64 + threadIdx.x] = all[threadIdx.x];
}
extern "C" __global__ void of_all_blocks(const float* x, float* out, int, int) { out[threadIdx.x] = x[threadIdx.x]; }
extern "C" __global__ void in_place(float* x, float* out, int, int) {
    out[blockIdx.x * 64 + threadIdx.x] = x[threadIdx.x];
    if (blockIdx.x == 1) x[threadIdx.x] = 1.0f;
}
"""

NAMES = ["turned_round", "overwritten", "copied", "unwritten", "of_all_blocks", "in_place"]

BARRIER, WARP_BARRIER, OF_PAIRS, SHUFFLE, NOTHING = range(5)
"""What `between` is asked for."""

Trial = Callable[..., None]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Runs one of the kernels above."""
    folder = tmp_path_factory.mktemp("trial")
    (folder / "trial.cu").write_text(SOURCE, encoding="utf-8")
    emulator = Emulator(folder, folder, RACES)
    library = emulator.library("trial.cu", NAMES)

    def run(name: str, how: int = BARRIER, far: int = 0, blocks: int = 1) -> None:
        x, out = guarded(np.arange(64, dtype=np.float32)), guarded(shape=(blocks * 64,))
        emulator.kernel_in(library, name)((blocks, 1, 1), (64, 1, 1), (x, out, np.int32(how), np.int32(far)))

    return run


@pytest.mark.parametrize("name", ["turned_round", "overwritten"])
@pytest.mark.parametrize(
    ("how", "far", "is_race"),
    [
        (BARRIER, 32, False),
        (WARP_BARRIER, 1, False),
        (WARP_BARRIER, 32, True),
        (OF_PAIRS, 1, False),
        (OF_PAIRS, 2, True),
        (SHUFFLE, 1, True),  # no memory is ordered by it
        (NOTHING, 1, True),
        (NOTHING, 0, False),
    ],
)
def test_what_orders_threads(name: str, how: int, far: int, is_race: bool, trial: Trial) -> None:
    if not is_race:
        trial(name, how, far)
    else:
        with pytest.raises(
            EmulationError, match=rf"{name}: a race in shared memory between trial.cu\S*:\d+ \(thread \d+\) and trial.cu\S*:\d+ "
        ):
            trial(name, how, far)


def test_a_copy_goes_on_until_it_is_awaited(trial: Trial) -> None:
    trial("copied", BARRIER, 1)
    with pytest.raises(EmulationError, match="copied: a race in shared memory"):
        trial("copied", NOTHING, 1)


def test_nothing_orders_blocks(trial: Trial) -> None:
    for name in ("of_all_blocks", "in_place"):
        trial(name)
        with pytest.raises(EmulationError, match=rf"{name}: a race in global memory between .* of another block\) and trial.cu\S*:\d+ "):
            trial(name, blocks=2)


def test_every_block_writes_its_own_shared_memory(trial: Trial) -> None:
    trial("unwritten")
    with pytest.raises(EmulationError, match=r"unwritten: trial.cu\S*:\d+ \(thread 0\) reads shared memory that its block has not written"):
        trial("unwritten", blocks=2)


# ---------------------------------------------------------------- the kernels
def attention(precision: str, emulator: Emulator) -> None:
    for size, form in ((32, "training"), (32, "decoder"), (32, "sequence head"), (64, "training"), (128, "training")):
        given = attention_cases.sample(form, size, (3, 33, 70), precision=precision)
        if f"attention_dq_{precision}_{size}" in TABLE:
            with mg.precision(precision):
                attention_cases.kernels(given, emulator)


def blocks(precision: str, emulator: Emulator) -> None:
    for block, form in (("attention_block", "first rows"), ("feed_forward", "training"), ("feed_forward", "odd")):
        test_blocks.kernels(block_cases.case(block, form), precision, emulator)


def rows(emulator: Emulator) -> None:
    for width in (1, 5, 132, 768):
        test_rows.test_layer_norm(3, width, emulator)
        test_rows.test_dense_add_norm(3, width, 0.1, emulator)
    test_rows.test_linears(130, emulator)
    test_rows.test_dense_gelu(130, 33, emulator)
    test_rows.test_dense_tanh(130, 33, emulator)
    test_rows.test_dropout_drops_the_units_of_the_draw(132, emulator)
    blocks("float32", emulator)


def embedding(emulator: Emulator) -> None:
    for copies in (2, 33, 300):
        test_embedding.test_rows_are_added_to_a_gradient_without_a_count(copies, 130, emulator)
    test_embedding.test_ids_are_ordered_and_equal_ones_stay_as_they_came(5000, emulator)
    test_embedding.test_rows_are_added_to_those_that_are_named(emulator)
    test_embedding.test_embedding(132, emulator)


def embeddings(emulator: Emulator) -> None:
    for width in (5, 128, 770):
        evaluate("embed_norm", test_embed_norm.arrays(9, width), test_embed_norm.constants(9, width, 0.1), False, emulator)


def losses(emulator: Emulator) -> None:
    test_loss.test_class_weights(5, 128, {"label_smoothing": 0.1}, emulator)
    test_loss.test_class_weights(3, 2051, {"label_smoothing": 0.1}, emulator)


def sequences(emulator: Emulator) -> None:
    for name in ("segment_mean", "segment_max"):
        test_sequences.test_pooling(name, 132, (1, 40, 3), emulator)
    test_sequences.test_counting_writes_its_rows_alone(emulator)


def optimizers(emulator: Emulator) -> None:
    test_optimizer.test_adam_is_the_optimizers_to_the_last_bit(1025, 1, 3, test_optimizer.RULES[0], emulator)
    test_optimizer.test_a_captured_update_is_the_optimizers(AdamW, True, emulator)
    test_optimizer.test_squares_of_pieces_are_added_up_as_a_plain_step_does(600, emulator)
    test_optimizer.test_a_captured_average_is_numpys_to_the_last_bit(1025, 0, 0, emulator)
    test_optimizer.test_sum_of_squares(40001, 0, emulator)


WORK: dict[str, Callable[[Emulator], None]] = {
    **{f"attention_{precision}.cu": partial(attention, precision) for precision in PRECISIONS},
    "rows_float32.cu": rows,
    "rows_bf16.cu": partial(blocks, "bf16"),
    "rows_fp16.cu": partial(blocks, "fp16"),
    "embedding.cu": embedding,
    "embed_norm.cu": embeddings,
    "loss.cu": losses,
    "sequences.cu": sequences,
    "optimizer.cu": optimizers,
}
"""What launches all kernels of a source."""


@pytest.mark.parametrize("source", sorted({entry.source for entry in TABLE.values()}))
def test_the_kernels_have_no_race(source: str, racing: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: set[str] = set()

    def kernel_of(name: str) -> Callable[..., None]:
        launched.add(name)
        return racing.kernel(name)

    monkeypatch.setattr(launch, "kernel_of", kernel_of)
    WORK[source](racing)
    assert launched >= {name for name, entry in TABLE.items() if entry.source == source}


ORDERING = re.compile(r"(?<!HALVED<N> && i == N / 2\) )__sync(?:threads|warp)\(\);(?!  // (?:or the compiler|`add_norm_pullback`))")
"""Those that order what threads read and write: others order what the compiler does, or one thread's copies and what it has written."""

USED_BY = {
    "attention_tiles.cuh": ("attention_bf16.cu", "attention_float32.cu"),
    "products_float32.cuh": ("attention_float32.cu",),
    "products_tensor.cuh": ("attention_bf16.cu",),
    "strips.cuh": ("rows_float32.cu",),
    "warp.cuh": ("loss.cu",),
}
"""The sources that a header's kernels are looked for in."""

BARRIERS = [  # files and lines
    (path.name, text.count("\n", 0, found.start()) + 1)
    for path in sorted(SOURCES.iterdir())
    for text in [path.read_text(encoding="utf-8")]
    for found in ORDERING.finditer(text)
]


def test_a_line_has_one_barrier() -> None:
    assert len({*BARRIERS}) == len(BARRIERS)


@pytest.mark.parametrize(("file", "line"), BARRIERS)
def test_every_barrier_is_missed(file: str, line: int, racing: Emulator) -> None:
    racing.left_out = f"/{file}:{line}"
    with pytest.raises(EmulationError, match=r"a race in shared memory|its block has not written"):
        for source in USED_BY.get(file, (file,)):
            WORK[source](racing)
