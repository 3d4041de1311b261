"""Every kernel of the launch table on a GPU, compared with its operation's body in float64: the cases that tests/kernels/cuda runs on the
CPU.

Arrays are surrounded by poison, outputs are filled with it, and each operation runs twice and must give identical bits. This shows what a
run on a CPU cannot: unordered memory accesses, warps that diverge, writes not yet visible to other threads.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from kernels.cuda import block_cases
from kernels.cuda.attention_cases import FORMS, assert_close, body, sample
from kernels.cuda.emulation import check_guards, guarded
from kernels.cuda.parity import TOLERANCE, normal
from kernels.cuda.test_attention_tensor_cores import MANY, SHORT
from kernels.cuda.test_loss import CONSTANTS, labels
from kernels.cuda.test_optimizer import RULES, arrays
from support import absolute_error

import minigrad as mg
from minigrad.backend import cuda_namespace
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import dense
from minigrad.backend.random import Draw
from minigrad.kernels.cuda import build, launch, optimizer, shortening
from minigrad.kernels.cuda.embedding import NO_ROW, SummedRows
from minigrad.kernels.cuda.sequences import count_ids
from minigrad.kernels.cuda.table import HEAD_SIZES, TABLE
from minigrad.op import REGISTRY
from minigrad.optim.adam import adam
from minigrad.optim.clip import clip_coefficient
from minigrad.packing import Packing

ATTENTION = {"float32": 1e-5} | {name: MANY * step for name, step in SHORT.items()}
"""Relative to the largest entry: float32's guaranteed accuracy, or the rounding of numbers that are short already."""

launched: set[str] = set()


@pytest.fixture(autouse=True)
def noted(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note which kernels run; there are none on a CPU."""
    if device == "cpu":
        pytest.skip("kernels run on the CPU in tests/kernels/cuda")
    kernel_of = launch.kernel_of

    def watched(name: str) -> Any:
        launched.add(name)
        return kernel_of(name)

    monkeypatch.setattr(launch, "kernel_of", watched)


class Namespace:
    """CuPy as the GPU overrides see it. What they allocate is poisoned and guarded, and remembered until `check`."""

    NAME = "cupy"

    def __init__(self) -> None:
        self._made: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(cuda_namespace(), name)

    def empty(self, shape: Any, dtype: Any) -> Any:
        self._made.append(uploaded(guarded(shape=(shape,) if isinstance(shape, int) else tuple(shape), dtype=dtype)))
        return self._made[-1]

    def empty_like(self, x: Any) -> Any:
        return self.empty(x.shape, x.dtype)

    def check(self) -> None:
        """Fails if a kernel wrote outside an array, or left part of one unwritten."""
        check_guards(*map(fetched, self._made))


def uploaded(host: np.ndarray) -> Any:
    """An array of `guarded`, with all the memory around it, on the GPU."""
    room = cuda_namespace().asarray(host.base)
    start = (host.ctypes.data - host.base.ctypes.data) // host.itemsize
    return room[start : start + host.size].reshape(host.shape)


def fetched(array: Any) -> np.ndarray:
    """The inverse of `uploaded`."""
    room = array.base.get()
    start = (array.data.ptr - array.base.data.ptr) // array.itemsize if array.size else 0
    return room[start : start + array.size].reshape(array.shape)


def evaluate(name: str, host: list[Any], g: np.ndarray | None, constants: dict[str, Any], offset: int = 0) -> list[np.ndarray]:
    """The output and all gradients by the kernels. Inputs lie among poison, `offset` elements off alignment, and must stay unchanged."""
    xp, override = Namespace(), REGISTRY[name].overrides["cupy"]
    given = [None if a is None else uploaded(guarded(a, offset=offset)) for a in host]
    constants = {name: uploaded(guarded(value)) if isinstance(value, np.ndarray) else value for name, value in constants.items()}
    keep = {"keep": True} if REGISTRY[name]._asks_keep[override] else {}
    y, pullback = override(xp, *given, **constants, **keep)
    found = [y, *gradients(pullback, xp.asarray(cosines(y.shape) if g is None else g))]
    result = [x.get() for x in found]
    xp.check()
    for before, after in zip(host, given, strict=True):
        if before is not None:
            np.testing.assert_array_equal(before, after.get())
            check_guards(fetched(after))
    return result


def cosines(shape: tuple[int, ...]) -> np.ndarray:
    return np.cos(np.arange(np.prod(shape, dtype=int), dtype=np.float32)).reshape(shape)


def gradients(pullback: Any, g: Any) -> list[Any]:
    found = pullback(g) if callable(pullback) else [part(g) for part in pullback if part is not None]
    return [dense(gradient) for gradient in found if gradient is not None]


def compare(name: str, host: list[np.ndarray], constants: dict[str, Any], offset: int = 0) -> None:
    ours = evaluate(name, host, None, constants, offset)
    for once, again in zip(ours, evaluate(name, host, None, constants, offset), strict=True):
        np.testing.assert_array_equal(once, again)
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in host]
    y, pullback = REGISTRY[name].body(numpy_namespace, *exact, **constants)
    truths = [y, *gradients(pullback, cosines(np.shape(y)).astype(np.float64))]
    for i, (mine, truth) in enumerate(zip(ours, truths, strict=True)):
        assert mine.dtype == np.float32
        while truth.ndim > mine.ndim:  # the engine sums what was broadcast
            truth = truth.sum(axis=0)
        sums = len(host[0]) ** 0.5 if i else 1.0
        assert mine.shape == truth.shape
        assert absolute_error(mine, truth) <= TOLERANCE * sums * max(1.0, float(np.abs(truth).max(initial=0.0))), f"result {i}"


# ---------------------------------------------------------------- rows
@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (9, 33), (130, 132), (1000, 768), (4097, 1024)])
def test_layer_norm(rows: int, width: int, offset: int) -> None:
    x, gamma, beta = normal((rows, width), (width,), (width,))
    compare("layer_norm", [x if width > 1 else x * 0, gamma, beta], {"eps": 1e-5}, offset)


@pytest.mark.parametrize("rate", [None, 0.1, 1.0])
@pytest.mark.parametrize(("rows", "width"), [(3, 5), (9, 130), (1000, 768), (2049, 1024)])
def test_dense_add_norm(rows: int, width: int, rate: float | None) -> None:
    x, weight, bias, residual, gamma, beta = normal((rows, 3), (width, 3), (width,), (rows, width), (width,), (width,))
    draw = None if rate is None else Draw("a", rate, Packing([2, rows - 2], numbers=[5, 3]), width)
    compare("dense_add_norm", [x, weight, bias, residual, gamma, beta], {"draw": draw, "eps": 1e-5})


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (130, 4), (260, 129), (1000, 3072), (20000, 64)])
def test_dense_gelu(rows: int, width: int) -> None:
    compare("dense_gelu", normal((rows, 3), (width, 3), (width,)), {})


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (130, 4), (260, 129), (512, 768)])
def test_dense_tanh(rows: int, width: int) -> None:
    compare("dense_tanh", normal((rows, 3), (width, 3), (width,)), {})


@pytest.mark.parametrize("rows", [1, 129, 20000])
def test_linear(rows: int) -> None:
    compare("linear", normal((rows, 3), (132, 3), (132,)), {})


@pytest.mark.parametrize("rows", [1, 129, 20000])
def test_linears(rows: int) -> None:
    compare("linears", normal((rows, 3), (5, 3), (132, 3), (5,), (132,)), {})


@pytest.mark.parametrize("width", [1, 33, 770, 1600])
def test_dropout_drops_the_units_of_the_draw(width: int) -> None:
    packing = Packing([300, 1, 40], numbers=[7, 0, 1 << 19])
    draw = Draw("somewhere", 0.3, packing, width)
    out, gradient = evaluate("dropout", [np.ones((341, width), np.float32)], np.ones((341, width), np.float32), {"draw": draw})
    np.testing.assert_array_equal(out, draw.mask() * np.float32(draw.scale))
    np.testing.assert_array_equal(gradient, out)


# ---------------------------------------------------------------- loss and embeddings
@pytest.mark.parametrize("constants", CONSTANTS, ids=str)
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (8, 9), (1000, 2), (333, 30522)])
def test_cross_entropy(rows: int, classes: int, constants: dict[str, Any]) -> None:
    compare("cross_entropy", [4 * normal((rows, classes))[0], labels(rows, classes)], constants)


@pytest.mark.parametrize(("rows", "classes"), [(8, 9), (1000, 2), (333, 30522)])
def test_cross_entropy_with_class_weights(rows: int, classes: int) -> None:
    weight, denominator = 1 + normal((classes,))[0] ** 2, np.array(12.5, np.float32)
    for constants in ({"label_smoothing": 0.1}, {"denominator": denominator}, {"reduction": "none"}):
        compare("cross_entropy", [4 * normal((rows, classes))[0], labels(rows, classes)], {"weight": weight, **constants})


@pytest.mark.parametrize(("count", "height", "width"), [(8, 11, 1), (1000, 11, 132), (5000, 30522, 768), (4096, 4, 768), (70000, 50, 64)])
def test_embedding(count: int, height: int, width: int) -> None:
    """Ids in one run, in runs merged once, and in runs merged in rounds; rows named by few ids, and rows named by many."""
    ids = np.random.default_rng(0).integers(0, height, count)
    compare("embedding", [normal((height, width))[0], ids], {})
    compare("embedding", [normal((height, width))[0], ids], {"padding_idx": 3})


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (300, 132), (5000, 128), (4097, 768)])
@pytest.mark.parametrize("rate", [None, 0.1])
@pytest.mark.parametrize("tables", [2, 3])
def test_embed_norm(tables: int, rate: float | None, rows: int, width: int) -> None:
    """A vocabulary of which most words do not occur, positions shared by many rows, and two types shared by nearly all."""
    rng, heights = np.random.default_rng(rows), (30522, 512, 2)[:tables]
    ids = [rng.integers(0, min(height, 1 + rows // 4), rows) for height in heights]
    draw = None if rate is None else Draw("embeddings", rate, Packing([rows]), width)
    told = {"untrained": (3, None, None)[:tables], "draw": draw, "eps": 1e-5 if width > 1 else 1.0}
    arrays = [*normal((width,), (width,), *[(height, width) for height in heights]), *ids]
    compare("embed_norm", arrays, told)
    compare("embed_norm", arrays, told, offset=1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_products_find_the_rows_of_embed_norm_rounded(precision: str) -> None:
    xp, ids = cuda_namespace(), np.arange(40) % 7
    given = [xp.asarray(a) for a in (*normal((128,), (128,), (9, 128)), ids)]
    with mg.precision(precision):
        out, _ = REGISTRY["embed_norm"].overrides["cupy"](xp, *given, untrained=(None,), keep=True)
    found = shortening.shortened(None, out, precision)  # needs no namespace: the copy exists
    np.testing.assert_array_equal(found.get(), xp.shortened(out, precision).get())


def test_an_id_that_nobody_has_checked_reads_nothing() -> None:
    xp, table = Namespace(), uploaded(guarded(normal((4, 6))[0]))
    out = xp.empty((3, 6), np.float32)
    launch.launch("gather_rows", (3,), table, xp.asarray(np.array([4, 3, -1])), out, *[None] * 3, 3, 4, 6, NO_ROW)
    np.testing.assert_array_equal(out.get(), [[np.nan] * 6, table[3].get(), [np.nan] * 6])


def test_rows_are_added_to_what_is_there() -> None:
    ids = np.array([2, 0, NO_ROW, 4, 2, 4, 2])
    values, expected = normal((7, 130), (5, 130))
    xp = Namespace()
    out = xp.asarray(expected)
    SummedRows(xp.asarray(ids), xp.asarray(values), (5, 130)).into(out, accumulate=True)
    np.add.at(expected, ids[ids >= 0], values[ids >= 0])
    np.testing.assert_allclose(out.get(), expected, rtol=1e-6, atol=1e-6)  # three numbers of order 1 are added


@pytest.mark.parametrize("n", [1, 1023, 2048, 2049, 16384, 16385, 150_000])
def test_ids_are_ordered_and_equal_ones_stay_as_they_came(n: int) -> None:
    ids = np.random.default_rng(n).integers(NO_ROW, 1 + n // 3, n)
    xp = cuda_namespace()
    keys = SummedRows(xp.asarray(ids), xp.zeros((n, 1), np.float32), (1, 1)).keys.get()
    np.testing.assert_array_equal(keys & 0xFFFFFFFF, np.argsort(ids, kind="stable"))
    np.testing.assert_array_equal(keys >> 32, np.sort(ids))


# ---------------------------------------------------------------- whole sequences
@pytest.mark.parametrize("lengths", [(1,), (7, 1, 8, 9), (3, 64, 65, 1, 200), (512,) * 40])
@pytest.mark.parametrize("width", [1, 33, 384, 770])
@pytest.mark.parametrize("name", ["segment_mean", "segment_max"])
def test_rows_of_sequences_are_pooled(name: str, width: int, lengths: tuple[int, ...]) -> None:
    packing = Packing(lengths)
    x = normal((packing.rows, width))[0]
    compare(name, [x], {"packing": packing})
    compare(name, [np.round(x)], {"packing": packing}, offset=1)  # equal maxima


@pytest.mark.parametrize("lengths", [(1,), (7, 1, 32, 33, 64), (512, 511, 5) * 40])
def test_ids_are_counted(lengths: tuple[int, ...]) -> None:
    packing = Packing(lengths)
    ids = np.random.default_rng(0).integers(0, 3, packing.rows)
    found = count_ids(*(cuda_namespace().asarray(array) for array in (ids, packing.first_rows)), 1, 5)
    np.testing.assert_array_equal(found.get(), packing.counted(ids, 1, 5))


# ---------------------------------------------------------------- attention
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", HEAD_SIZES)
@pytest.mark.parametrize("precision", ATTENTION)
def test_attention(precision: str, size: int, form: str) -> None:
    host, g, constants = case = sample(form, size, precision=precision)
    with mg.precision(precision):
        ours = evaluate("attention", host, g, constants)
        for once, again in zip(ours, evaluate("attention", host, g, constants), strict=True):
            np.testing.assert_array_equal(once, again)
    assert_close(ours, body(case), ATTENTION[precision])


@pytest.mark.parametrize("precision", ATTENTION)
def test_attention_over_many_sequences(precision: str) -> None:
    """More blocks than a GPU runs at a time."""
    lengths = tuple(np.random.default_rng(0).integers(1, 200, 300).tolist())
    case = sample("training", 64, lengths, precision=precision)
    with mg.precision(precision):
        assert_close(evaluate("attention", *case), body(case), ATTENTION[precision])


# ---------------------------------------------------------------- the blocks of BERT
LENGTHS = tuple(np.random.default_rng(0).integers(1, 129, 40).tolist())


@pytest.mark.parametrize(("block", "form"), [*block_cases.FORMS, ("attention_block", "base"), ("feed_forward", "base")])
@pytest.mark.parametrize("precision", block_cases.STEP)
def test_layer_blocks(precision: str, block: str, form: str) -> None:
    name, host, constants, g = case = block_cases.case(block, form, LENGTHS if form == "base" else block_cases.LENGTHS)
    with mg.precision(precision):
        ours = evaluate(name, host, g, constants)
        for once, again in zip(ours, evaluate(name, host, g, constants), strict=True):
            np.testing.assert_array_equal(once, again)
    block_cases.assert_close(ours, block_cases.body(case), block, precision)


@pytest.mark.parametrize("precision", block_cases.STEP)
@pytest.mark.parametrize("block", block_cases.ROUNDINGS)
def test_layer_blocks_drop_the_units_of_the_draw(block: str, precision: str) -> None:
    name, host, constants, g = block_cases.dropping(block)
    with mg.precision(precision):
        y = evaluate(name, host, g, constants)[0]
    np.testing.assert_array_equal(y > 0, constants["draw"].mask())


# ---------------------------------------------------------------- optimizer
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("moments", [2, 3], ids=["adam", "amsgrad"])
@pytest.mark.parametrize(("n", "offset"), [(1, 0), (1025, 1), (100003, 0)])
def test_adam_is_the_optimizers_to_the_last_bit(n: int, offset: int, moments: int, rule: dict[str, float]) -> None:
    host = arrays(n, moments)
    ours = [uploaded(guarded(a, offset=offset)) for a in host]
    assert optimizer.adam(Namespace(), ours[0], ours[1], ours[2:], **rule) is None
    adam.body(numpy_namespace, host[0], host[1], host[2:], [np.empty_like(host[0]), np.empty_like(host[0])], **rule)
    for mine, theirs in zip(ours, host, strict=True):
        np.testing.assert_array_equal(mine.get(), theirs)
        check_guards(fetched(mine))


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, float("inf")])
def test_clipping_is_the_hosts_to_the_last_bit(max_norm: float) -> None:
    xp = Namespace()
    numbers, scale, stopped = xp.zeros(2), xp.zeros((), np.float32), xp.zeros((), np.int32)
    for squares in np.random.default_rng(0).random(100) * 10.0 ** np.arange(-50, 50):
        optimizer.begin_captured(xp.asarray(np.float32(0.5)), None, xp.asarray(squares), max_norm, numbers, scale, stopped)
        assert numbers.tolist() == [0.5, squares] and int(stopped) == 0
        assert float(scale) == np.float32(clip_coefficient(float(np.sqrt(squares)), max_norm))
    for loss, squares in ((np.nan, 1.0), (0.5, 1.0)):
        optimizer.begin_captured(None, xp.asarray(np.float64(loss)), xp.asarray(squares), max_norm, numbers, scale, stopped)
        assert int(stopped) == 1


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_captured_update_is_the_same(stopped: int) -> None:
    """The changing numbers are on the device; once `stopped` is set, nothing is updated."""
    host, xp = arrays(1000, 2), Namespace()
    p, g, m, v = (xp.asarray(a) for a in host)
    betas, changing = {"beta1": 0.9, "beta2": 0.999, "l2": 0.0}, {"size": 1e-3, "eps": 1e-8, "decay": 0.9999}
    row, scale, flag = (
        xp.asarray(np.array(list(changing.values()), np.float32)),
        xp.asarray(np.float32(0.37)),
        xp.asarray(np.int32(stopped)),
    )
    optimizer.adam_captured(p, g, [m, v], row, scale, flag, **betas)
    if not stopped:
        scratch = [np.empty_like(host[0]) for _ in range(2)]
        adam.body(numpy_namespace, host[0], host[1], host[2:], scratch, **betas, **changing, factor=0.37)
    for mine, theirs in zip((p, g, m, v), host, strict=True):
        np.testing.assert_array_equal(mine.get(), theirs)


@pytest.mark.parametrize("stopped", [0, 1])
@pytest.mark.parametrize(("n", "offset"), [(1, 0), (1025, 1), (100003, 0)])
def test_a_captured_average_is_numpys_to_the_last_bit(n: int, offset: int, stopped: int) -> None:
    weights, start = normal((n,), (n,))
    average = uploaded(guarded(start, offset=offset))
    optimizer.average_captured(uploaded(guarded(weights, offset=offset)), average, 0.05, Namespace().asarray(np.int32(stopped)))
    check_guards(fetched(average))
    np.testing.assert_array_equal(average.get(), start if stopped else start + 0.05 * (weights - start))


@pytest.mark.parametrize(("n", "offset"), [(0, 0), (5, 1), (40001, 1), (3_000_000, 0)])
def test_sum_of_squares(n: int, offset: int) -> None:
    x = guarded(normal((n,))[0] * np.float32(1e18), offset=offset)
    sums = [float(optimizer.sum_of_squares(Namespace(), uploaded(x))) for _ in range(2)]
    assert sums[0] == sums[1]
    np.testing.assert_allclose(sums[0], np.sum(x.astype(np.float64) ** 2), rtol=1e-13)


# ---------------------------------------------------------------- completeness
def test_every_kernel_of_the_table_has_run() -> None:
    """Every kernel has run in one of the tests above."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("other processes have run some of them")
    expected = build.sources(build.architecture())
    assert not {name for name, entry in TABLE.items() if entry.source in expected} - launched
