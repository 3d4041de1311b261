"""Arrays of two bytes a number, as far as that goes without a GPU: the kernels that round are compiled for one, and run on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.cuda import short_arrays
from kernels.cuda.architectures import ARCHITECTURES
from kernels.cuda.emulation import Emulator, check_guards, guarded

from minigrad.backend import gemm
from minigrad.backend.gradients import Product
from minigrad.errors import MissingExtraError
from minigrad.kernels.cuda.build import compile_source, resources, supports

cupy = pytest.importorskip("cupy", reason="CuPy is not installed (the `gpu` extra)")

from minigrad.backend import cupy as namespace  # noqa: E402 - needs CuPy

SPECIAL = [0, 1, 0x7FFF, 0x8000, 0x18000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000]
"""Bits: zeros, ties, the largest number, infinities, and NaN of all kinds."""

each = pytest.mark.parametrize("name", gemm.SHORT)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The kernels, run on the CPU."""
    folder = tmp_path_factory.mktemp("short")
    emulator = Emulator(folder, folder)

    def kernel(name: str) -> Any:
        (folder / f"{name}.cu").write_text(f"#define pair {name}_pair\n{namespace.SHORTEN}", encoding="utf-8")
        run = emulator.kernel_in(emulator.library(f"{name}.cu", ["shorten"]), "shorten")
        return lambda grid, block, arguments: run((*grid, 1, 1), (*block, 1, 1), arguments)

    return {name: kernel(name) for name in gemm.SHORT}


@pytest.fixture
def emulated(kernels: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside: `namespace.shortened` takes arrays of NumPy, and makes guarded ones."""
    monkeypatch.setattr(namespace, "_shorten", kernels)
    monkeypatch.setattr(namespace.cupy, "ascontiguousarray", np.ascontiguousarray)
    monkeypatch.setattr(namespace.cupy, "empty", lambda shape, dtype: guarded(shape=shape, dtype=dtype))


@each
def test_numbers_are_rounded_as_on_numpy(name: str, emulated: None) -> None:
    raw = np.concatenate([np.random.default_rng(0).integers(0, 2**32, 20_000), SPECIAL]).astype(np.uint32)
    x = raw.view(np.float32)
    found, expected = (short_arrays.widened(y) for y in (namespace.shortened(x, name), short_arrays.shortened(x, name)))
    np.testing.assert_array_equal(found, expected)  # NaN where NaN is
    np.testing.assert_array_equal(np.signbit(found)[found == found], np.signbit(expected)[found == found])


@each
@pytest.mark.parametrize("offset", [0, 1, 4])  # where the start is no multiple of 16 bytes, and where it is one but not of 32
@pytest.mark.parametrize("shape", [(0,), (), (1,), (7,), (8,), (9,), (3, 5), (16,), (2, 1024), (4099,)])
def test_every_number_is_rounded_and_nothing_else_is_written(name: str, shape: tuple[int, ...], offset: int, emulated: None) -> None:
    x = guarded(np.random.default_rng(0).standard_normal(shape).astype(np.float32), offset=offset)
    y = namespace.shortened(x, name)
    check_guards(x, y)
    np.testing.assert_array_equal(y, short_arrays.shortened(x, name), strict=True)


@each
def test_a_view_of_rounded_numbers_lies_as_the_view_that_was_given(name: str, emulated: None) -> None:
    whole = np.random.default_rng(0).standard_normal((4, 6, 10)).astype(np.float32)
    views = [whole, whole[1], whole[1].T, whole.swapaxes(0, 1), whole.swapaxes(0, 1).swapaxes(1, 2), whole[1, :, 2:5], whole[1, :, 2:5].T]
    for x in [*views, whole[0, ::-1], np.broadcast_to(whole[0, 0], (3, 10))]:
        y = namespace._shortened_view(x, name)
        np.testing.assert_array_equal(y, short_arrays.shortened(np.ascontiguousarray(x), name), strict=True)
        assert gemm.is_readable(gemm.layout_of(y))
    for x in views[:5]:
        assert [2 * step for step in namespace._shortened_view(x, name).strides] == list(x.strides), "the array itself, not a copy of it"


@pytest.mark.parametrize(("name", "architecture"), [(name, a) for name in gemm.SHORT for a in ARCHITECTURES if supports(a, name)])
def test_the_kernel_compiles_and_keeps_all_in_registers(name: str, architecture: int) -> None:
    try:
        cubin, said = compile_source("short", namespace.PAIR % namespace.ROUNDING[name] + namespace.SHORTEN, architecture)
    except MissingExtraError as error:
        pytest.skip(f"no compiler for GPUs here: {error}")
    assert cubin.startswith(b"\x7fELF") and "warning" not in said, said
    [kernel] = resources(said)
    assert kernel.kernel == "shorten" and (kernel.stack, kernel.spills) == (0, 0) and kernel.registers <= 32, said


@each
@pytest.mark.parametrize(
    ("out", "alike", "result"), [(None, False, "float32"), (None, True, "short"), ("float32", False, "float32"), ("short", False, "short")]
)
def test_products_of_short_arrays_are_as_long_as_asked(
    name: str, out: str | None, alike: bool, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(namespace.gemm, "matmul", lambda xp, run, *arguments: seen.append(arguments))
    a = np.zeros((2, 3), gemm.DTYPES[name])
    given = None if out is None else np.zeros((2, 2), gemm.DTYPES[name if out == "short" else out])
    namespace.matmul_stored(a, a.T, given, accumulate=out == "float32", alike=alike)
    [(left, _, target, accumulate, *how)] = seen
    assert left is a and target is given and accumulate is (out == "float32")
    assert how == [name, "float32", name if result == "short" else result]


def test_a_lazy_product_of_short_matrices_is_float32() -> None:
    a, b = (short_arrays.shortened(np.ones(shape, np.float32), "bf16") for shape in ((2, 3), (3, 4)))
    product = namespace.product_stored(a, b)
    assert product.dtype == np.float32 and product.shape == (2, 4) and product.matmul is namespace.matmul_stored
    ours = Product(a, b, short_arrays.matmul_stored, np.dtype(np.float32))
    np.testing.assert_array_equal(ours.into(np.ones((2, 4), np.float32), accumulate=True), np.full((2, 4), 4.0))
    assert ours.astype(np.float64).dtype == np.float64


@each
def test_short_numbers_become_wide_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace.cupy, "left_shift", np.left_shift)
    bits = np.arange(2**16, dtype=np.uint16)
    x = bits if name == "bf16" else bits.view(np.float16)
    np.testing.assert_array_equal(namespace.widened(x), short_arrays.widened(x), strict=True)
