"""Calls of cuBLAS, made by a small interpreter on NumPy's memory: they read and write what they may, and give NumPy's products.

The interpreter knows addresses, leading dimensions and strides, as cuBLAS does, and nothing of arrays. An address outside of the arrays
that exist is an error; so is writing outside of the output, or reading what nobody has written, which is NaN here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.cuda.short_arrays import shortened

from minigrad.backend import gemm
from minigrad.backend.gemm import Gemm, Layout, Plan, plan_of
from minigrad.backend.layout import address
from minigrad.errors import ArgumentError, ShapeError

GUARD = 64
"""Elements of NaN around every buffer."""

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
"""Sums of up to 12 products of numbers around 1, in another order than NumPy's."""

TYPES = {"float32": np.float32, "float64": np.float64, "bf16": np.uint16, "fp16": np.float16}


class Memory:
    """The namespace of the arrays of one test, and the device on which calls are made: every buffer is known, with NaN around it."""

    may_share_memory, expand_dims = staticmethod(np.may_share_memory), staticmethod(np.expand_dims)

    def __init__(self) -> None:
        self.buffers: list[np.ndarray] = []
        self.calls: list[Gemm] = []
        self.copies = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape))
        nothing = np.nan if np.dtype(dtype).kind == "f" else 0x7FC1  # as bf16, NaN
        self.buffers.append(np.full(size + 2 * GUARD, nothing, dtype))
        return self.buffers[-1][GUARD : GUARD + size].reshape(shape)

    def holding(self, x: np.ndarray) -> np.ndarray:
        array = self.empty(x.shape, x.dtype)
        array[...] = x
        return array

    def array(self, x: np.ndarray, order: str) -> np.ndarray:
        assert order == "C"
        return self.holding(x)

    def ascontiguousarray(self, x: np.ndarray) -> np.ndarray:
        self.copies += 1
        return self.holding(x)

    # ---------------------------------------------------------------- what cuBLAS does
    def run(self, call: Gemm, a: np.ndarray, b: np.ndarray, c: np.ndarray, starts: tuple[int, int, int]) -> None:
        self.calls.append(call)
        assert a.dtype == b.dtype == TYPES[call.operands] and c.dtype == TYPES[call.result]
        assert min(call.m, call.n, call.k, call.batch) > 0
        assert call.lda >= (call.k if call.transpose_a else call.m)
        assert call.ldb >= (call.n if call.transpose_b else call.k)
        assert call.ldc >= call.m
        at_a, at_b, at_c = (address(x) + start * x.itemsize for x, start in zip((a, b, c), starts, strict=True))
        results = []
        for i in range(call.batch):
            op_a = self.matrix(at_a, call.operands, call.m, call.k, call.lda, i * call.stride_a, call.transpose_a)
            op_b = self.matrix(at_b, call.operands, call.k, call.n, call.ldb, i * call.stride_b, call.transpose_b)
            results.append(op_a @ op_b)
        places = [self.places(at_c, call.result, call.m, call.n, call.ldc, i * call.stride_c) for i in range(call.batch)]
        flat = self.buffer_at(at_c)
        assert not np.shares_memory(a, c) and not np.shares_memory(b, c), "an operand may be written before it is read"
        assert len(np.unique(places)) == call.batch * call.m * call.n, "the output overlaps itself"
        for where, result in zip(places, results, strict=True):
            total = result if call.beta == 0 else result + call.beta * meant(flat[where], call.result)  # with beta 0, C is not read
            flat[where] = stored_as(total, call.result)

    def buffer_at(self, at: int) -> np.ndarray:
        for buffer in self.buffers:
            if address(buffer) <= at < address(buffer) + buffer.nbytes:
                return buffer
        raise AssertionError("an address outside of every buffer")

    def places(self, at: int, kind: str, rows: int, columns: int, ld: int, offset: int) -> np.ndarray:
        """Where in its buffer each element of a matrix lies, column by column."""
        buffer = self.buffer_at(at)
        first = (at - address(buffer)) // buffer.itemsize + offset
        found = first + np.arange(rows)[:, None] + ld * np.arange(columns)
        assert found.min() >= GUARD and found.max() < buffer.size - GUARD, "an element outside of the buffer"
        return found

    def matrix(self, at: int, kind: str, rows: int, columns: int, ld: int, offset: int, transpose: bool) -> np.ndarray:
        rows, columns = (columns, rows) if transpose else (rows, columns)
        found = meant(self.buffer_at(at)[self.places(at, kind, rows, columns, ld, offset)], kind)
        return found.T if transpose else found

    def check_guards(self) -> None:
        for buffer in self.buffers:
            edges = np.concatenate([buffer[:GUARD], buffer[-GUARD:]])
            assert np.isnan(edges).all() if buffer.dtype.kind == "f" else (edges == 0x7FC1).all()


def meant(stored: np.ndarray, kind: str) -> np.ndarray:
    """The numbers that an array of this type holds, in float64."""
    return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64) if kind == "bf16" else stored.astype(np.float64)


def stored_as(exact: np.ndarray, kind: str) -> np.ndarray:
    """Sums of float64 as an array of this type holds them: a short one rounds what float32 has summed up."""
    return shortened(exact.astype(np.float32), kind) if kind in ("bf16", "fp16") else exact.astype(kind)


# ---------------------------------------------------------------- arrays of all kinds
sides = st.sampled_from([0, 1, 1, 2, 3, 5])


@st.composite
def laid_out(draw: Any, memory: Memory, shape: tuple[int, ...], dtype: Any, *, output: bool = False) -> np.ndarray:
    """An array of that shape in any layout: transposed, with gaps, reversed, repeated, part of another."""
    order = draw(st.permutations(range(len(shape)))) if draw(st.booleans()) else list(range(len(shape)))
    if draw(st.booleans()) and len(shape) >= 2:  # as attention splits off its heads
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2] if draw(st.booleans()) else order
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1] if draw(st.booleans()) else [1])) for _ in shape]
    extra = [draw(st.sampled_from([0, 0, 1, 3])) for _ in shape]
    repeated = [not output and n > 1 and draw(st.integers(0, 9)) == 0 for n in shape]
    stored = [1 if repeated[i] else shape[i] * abs(steps[i]) + extra[i] for i in order]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    whole = memory.holding(rng.uniform(0.5, 1.5, stored).astype(dtype) * rng.choice([-1, 1], stored).astype(dtype))
    view = whole.transpose(np.argsort(order))
    for axis, (n, step, again) in enumerate(zip(shape, steps, repeated, strict=True)):
        index: list[Any] = [slice(None)] * len(shape)
        index[axis] = slice(None) if again else slice(0, n * step, step) if step > 0 or n == 0 else slice(n - 1, None, -1)
        view = view[tuple(index)]
    return np.broadcast_to(view, shape) if any(repeated) else view


@st.composite
def products(draw: Any) -> tuple[Memory, np.ndarray, np.ndarray, np.ndarray | None, bool, str]:
    memory, kind = Memory(), draw(st.sampled_from(["float32", "float64"]))
    m, n, k = draw(sides), draw(sides), draw(sides)
    batch = draw(st.lists(st.sampled_from([1, 2, 3]), max_size=3))

    def leading() -> list[int]:
        """The batch, or less of it: fewer axes, axes of length 1."""
        some = batch[draw(st.integers(0, len(batch))) :]
        return [1 if draw(st.integers(0, 3)) == 0 else side for side in some]

    a = draw(laid_out(memory, (*leading(), m, k), kind))
    b = draw(laid_out(memory, (*leading(), k, n), kind))
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n)
    out = draw(laid_out(memory, shape, kind, output=True)) if draw(st.booleans()) else None
    return memory, a, b, out, out is not None and draw(st.booleans()), kind


@settings(max_examples=500)  # a wrong plan may take a rare layout to show; two seconds
@given(products())
def test_calls_give_numpys_products(case: tuple[Memory, np.ndarray, np.ndarray, np.ndarray | None, bool, str]) -> None:
    memory, a, b, out, accumulate, kind = case
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64)) + (out if accumulate else 0.0)
    before = [buffer.copy() for buffer in memory.buffers]
    found = gemm.matmul(memory, memory.run, a, b, out, accumulate, kind, kind)
    assert out is None or found is out
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[kind], atol=20 * TOLERANCE[kind], strict=False)
    assert found.dtype == kind and found.shape == expected.shape
    memory.check_guards()
    for buffer, old in zip(memory.buffers, before, strict=False):
        changed = np.flatnonzero((buffer != old) & ~(np.isnan(buffer) & np.isnan(old)))
        if len(changed):  # only in the output, and nothing beside it
            assert out is not None
            first = (address(out) - address(buffer)) // out.itemsize
            inside = first + sum(stride // out.itemsize * along for stride, along in zip(out.strides, np.indices(out.shape), strict=True))
            assert np.isin(changed, inside).all()


@pytest.mark.parametrize(("axes", "shapes"), [((1, 1), [(4,), (4,)]), ((1, 2), [(4,), (4, 3)]), ((2, 1), [(3, 4), (4,)]),
                                              ((1, 3), [(4,), (2, 4, 3)]), ((3, 1), [(2, 3, 4), (4,)])])  # fmt: skip
def test_vectors_are_rows_or_columns(axes: tuple[int, int], shapes: list[tuple[int, ...]]) -> None:
    memory, rng = Memory(), np.random.default_rng(0)
    a, b = (memory.holding(rng.standard_normal(shape)) for shape in shapes)
    found = gemm.matmul(memory, memory.run, a, b, None, False, "float64", "float64")
    expected = np.matmul(a, b)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    out = memory.holding(np.ones(np.shape(expected)))
    gemm.matmul(memory, memory.run, a, b, out, True, "float64", "float64")
    np.testing.assert_allclose(out, expected + 1, rtol=1e-13)


def short_operands(memory: Memory, kind: str, *shapes: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    """Arrays of a short type, and their product in float64."""
    rng = np.random.default_rng(0)
    arrays = [memory.holding(shortened(rng.standard_normal(shape).astype(np.float32), kind)) for shape in shapes]
    return arrays, np.matmul(*(meant(x, kind) for x in arrays))


shorts = pytest.mark.parametrize("kind", ["bf16", "fp16"])


@shorts
def test_operands_of_sixteen_bits(kind: str) -> None:
    """bf16 goes in as bits, fp16 as NumPy's own; both are added in float32 into a float32 output, also on top of what is there."""
    memory = Memory()
    operands, exact = short_operands(memory, kind, (5, 7), (7, 3))
    out = memory.holding(np.ones((5, 3), np.float32))
    assert gemm.matmul(memory, memory.run, *operands, out, True, kind, "float32") is out
    np.testing.assert_array_equal(out, (exact + 1).astype(np.float32))
    assert (memory.calls[-1].operands, memory.calls[-1].result, memory.calls[-1].compute) == (kind, "float32", "float32")


@shorts
@pytest.mark.parametrize("gap", [1, 2])  # cuBLAS cannot write where there are gaps
@pytest.mark.parametrize(
    "shapes", [((5, 7), (7, 3)), ((2, 5, 7), (7, 3)), ((7,), (7, 3)), ((5, 7), (7,)), ((7,), (7,)), ((5, 0), (0, 3)), ((0, 7), (7, 3))]
)
def test_sums_of_sixteen_bits(kind: str, shapes: tuple[tuple[int, ...], ...], gap: int) -> None:
    """They are rounded once, when everything is added up, to the nearest, of two equally near numbers to the even one."""
    memory = Memory()
    operands, exact = short_operands(memory, kind, *shapes)
    room = memory.holding(shortened(np.linspace(-3, 3, 60, dtype=np.float32), kind))
    out = room[: gap * exact.size : gap].reshape(exact.shape)
    assert gemm.matmul(memory, memory.run, *operands, out, False, kind, "float32", kind) is out
    np.testing.assert_array_equal(out, stored_as(exact, kind))
    fresh = gemm.matmul(memory, memory.run, *operands, None, False, kind, "float32", kind)
    np.testing.assert_array_equal(fresh, stored_as(exact, kind), strict=True)
    assert all((call.operands, call.result, call.compute) == (kind, kind, "float32") for call in memory.calls)
    memory.check_guards()


@shorts
def test_nothing_is_added_to_short_numbers(kind: str) -> None:
    memory = Memory()
    operands, exact = short_operands(memory, kind, (5, 7), (7, 3))
    out = memory.holding(shortened(np.ones(exact.shape, np.float32), kind))
    with pytest.raises(ArgumentError, match="before it adds it"):
        gemm.matmul(memory, memory.run, *operands, out, True, kind, "float32", kind)


def test_a_tie_goes_to_the_even_number() -> None:
    """1 + 2^-8 lies between two numbers of bf16, and so does 1 + 3 · 2^-8."""
    memory, one = Memory(), np.float32(1)
    a = memory.holding(shortened(np.array([[1, 2**-8], [1, 3 * 2**-8]], np.float32), "bf16"))
    b = memory.holding(shortened(np.full((2, 1), one), "bf16"))
    found = gemm.matmul(memory, memory.run, a, b, None, False, "bf16", "float32", "bf16")
    np.testing.assert_array_equal(meant(found, "bf16"), [[1.0], [1 + 4 * 2**-8]])


# ---------------------------------------------------------------- how many calls and copies
def plan(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Plan:
    return plan_of(*map(gemm.layout_of, (a, b, out)), False, "float32", "float32", "float32")


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_a_matrix_and_its_transpose_are_multiplied_where_they_lie() -> None:
    x, w = zeros(5, 7), zeros(3, 7)
    call = plan(x, w.T, zeros(5, 3)).gemm  # x Wᵀ: outᵀ = W xᵀ; W read by columns is Wᵀ, which is transposed back
    assert (call.m, call.n, call.k) == (3, 5, 7)
    assert (call.transpose_a, call.lda, call.transpose_b, call.ldb, call.ldc) == (True, 7, False, 7, 3)
    g = zeros(5, 3)
    call = plan(g.T, x, zeros(3, 7)).gemm  # a weight's gradient
    assert (call.m, call.n, call.k, call.transpose_a, call.transpose_b) == (7, 3, 5, False, True)
    arena = np.zeros(40, np.float32)
    assert gemm.is_writable(gemm.layout_of(arena[4:25].reshape(3, 7)))


def test_a_batch_of_matrices_times_one_is_one_tall_product() -> None:
    found = plan(zeros(4, 5, 7), zeros(7, 3), zeros(4, 5, 3))
    assert (found.gemm.n, found.gemm.batch, len(found.starts)) == (20, 1, 1)
    found = plan(zeros(6, 4, 5, 7), zeros(7, 3), zeros(6, 4, 5, 3))
    assert (found.gemm.n, found.gemm.batch, len(found.starts)) == (120, 1, 1)
    found = plan(zeros(4, 2, 7)[:, :1], zeros(7, 3), zeros(4, 2, 3)[:, :1])
    assert (found.gemm.n, found.gemm.batch, found.gemm.ldb, found.gemm.ldc) == (4, 1, 14, 6), "matrices of one row are rows"
    found = plan(zeros(4, 6, 7)[:, :5], zeros(7, 3), zeros(4, 5, 3))
    assert (found.gemm.n, found.gemm.batch, found.gemm.stride_b, found.gemm.stride_a) == (5, 4, 42, 0), "rows with gaps are a batch"


def test_contiguous_and_repeated_batches_are_one_call() -> None:
    found = plan(zeros(4, 2, 5, 7), zeros(4, 2, 7, 3), zeros(4, 2, 5, 3))
    assert (found.gemm.batch, found.gemm.stride_a, found.gemm.stride_b, found.gemm.stride_c, len(found.starts)) == (8, 21, 35, 15, 1)
    found = plan(zeros(5, 7), zeros(4, 7, 3), zeros(4, 5, 3))
    assert (found.gemm.batch, found.gemm.stride_a, found.gemm.stride_b) == (4, 21, 0)


@pytest.mark.parametrize(("sequences", "calls"), [(32, 12), (4, 4), (1, 1)])
def test_heads_split_off_take_one_call_for_each_head_or_sequence(sequences: int, calls: int) -> None:
    heads, length, d = 12, 6, 4
    q, k, o = (zeros(sequences, length, heads, d).swapaxes(1, 2) for _ in range(3))
    scores = plan(q, k.swapaxes(2, 3), zeros(sequences, heads, length, length))
    mixed = plan(zeros(sequences, heads, length, length), k, o)
    for found in (scores, mixed):
        assert len(found.starts) == calls and found.gemm.batch * calls == sequences * heads
    assert scores.gemm.lda == scores.gemm.ldb == mixed.gemm.ldc == heads * d


def test_an_output_that_lies_by_columns_is_written_where_it_lies() -> None:
    found = plan(zeros(5, 7), zeros(7, 3), zeros(3, 5).T)
    assert found.a_first and (found.gemm.m, found.gemm.n, found.gemm.ldc) == (5, 3, 5)


@pytest.mark.parametrize(
    ("x", "readable"),
    [
        (zeros(5, 7), True),
        (zeros(5, 7).T, True),
        (zeros(5, 14)[:, :7], True),
        (zeros(5, 14)[:, ::2], False),
        (zeros(1, 14)[:, ::2], True),
        (zeros(5, 7)[::2], True),
        (zeros(5, 7)[::-1], False),
        (zeros(3, 5, 7)[::-1], False),
        (np.broadcast_to(zeros(1, 7), (5, 7)), False),
        (np.broadcast_to(zeros(5, 7), (4, 5, 7)), True),
        (np.broadcast_to(np.float32(1), (5, 7)), False),
    ],
)
def test_what_must_be_copied(x: np.ndarray, readable: bool) -> None:
    assert gemm.is_readable(gemm.layout_of(x)) is readable
    memory = Memory()
    gemm.matmul(memory, lambda *call: None, x, zeros(x.shape[-1], 2), None, False, "float32", "float32")
    assert memory.copies == (not readable)


def test_an_output_that_shares_memory_receives_a_copy() -> None:
    memory, rng = Memory(), np.random.default_rng(0)
    a, b = (memory.holding(rng.standard_normal((4, 4))) for _ in range(2))
    expected = a @ b
    gemm.matmul(memory, memory.run, a, b, a, False, "float64", "float64")
    np.testing.assert_allclose(a, expected, rtol=1e-13)
    assert not gemm.is_writable(Layout((3, 4), (2, 1))) and not gemm.is_writable(Layout((2, 3, 4), (0, 4, 1)))
    assert not gemm.is_writable(Layout((2, 3, 4), (8, 4, 1))) and gemm.is_writable(Layout((2, 3, 4), (12, 4, 1)))


# ---------------------------------------------------------------- nothing, and too much
@pytest.mark.parametrize("accumulate", [False, True])
def test_an_empty_sum_is_zero_and_an_empty_product_is_nothing(accumulate: bool) -> None:
    memory = Memory()
    out = memory.holding(np.ones((2, 3), np.float32))
    gemm.matmul(memory, memory.run, zeros(2, 0), zeros(0, 3), out, accumulate, "float32", "float32")
    np.testing.assert_array_equal(out, np.full((2, 3), float(accumulate)))
    for a, b in ((zeros(0, 4), zeros(4, 3)), (zeros(2, 4), zeros(4, 0)), (zeros(0, 2, 4), zeros(4, 3))):
        assert gemm.matmul(memory, memory.run, a, b, None, False, "float32", "float32").shape == (a @ b).shape
    assert memory.calls == []


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [((2, 3), (4, 5), None), ((2, 3, 4), (3, 4, 5), None), ((), (4, 5), None), ((4,), (), None), ((2, 3), (3, 4), (4, 2))],
)
def test_shapes_that_do_not_fit(a: tuple[int, ...], b: tuple[int, ...], out: tuple[int, ...] | None) -> None:
    with pytest.raises(ShapeError, match="matmul: "):
        gemm.matmul(Memory(), lambda *call: None, zeros(*a), zeros(*b), None if out is None else zeros(*out), False, "float32", "float32")


def test_a_side_beyond_32_bits_is_refused() -> None:
    a, b, out = Layout((2**31, 1), (1, 1)), Layout((1, 4), (4, 1)), Layout((2**31, 4), (4, 1))
    with pytest.raises(ArgumentError, match="2147483648 is more than cuBLAS can count"):
        plan_of(a, b, out, False, "float32", "float32", "float32")


def test_a_layout_that_was_not_copied_is_refused() -> None:
    with pytest.raises(ArgumentError, match="copy it first"):
        plan_of(Layout((5, 7), (14, 2)), Layout((7, 3), (3, 1)), Layout((5, 3), (3, 1)), False, "float32", "float32", "float32")
