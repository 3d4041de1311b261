"""Precision: operands are rounded as the formats say, nothing else is, and what is built on products follows."""

from __future__ import annotations

import ast
import threading
from fractions import Fraction
from math import floor, inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minigrad as mg
from minigrad import functional as F
from minigrad.backend import numpy as xp
from minigrad.backend.precision import PRECISIONS, product_precision, rounded
from minigrad.errors import ArgumentError
from minigrad.packing import Packing

SHORT = PRECISIONS[1:]

FRACTION_BITS = {"tf32": 10, "bf16": 7, "fp16": 10}
LEAST_EXPONENT = {"tf32": -126, "bf16": -126, "fp16": -14}
LARGEST_EXPONENT = {"tf32": 127, "bf16": 127, "fp16": 15}


def nearest(x: float, name: str) -> float:
    """The number of the format that is nearest to x, ties to even, by exact arithmetic and not by bits."""
    if x == 0 or abs(x) == inf:
        return x
    exact = Fraction(x)
    exponent = max(floor(np.frexp(abs(x))[1]) - 1, LEAST_EXPONENT[name])
    step = Fraction(2) ** (exponent - FRACTION_BITS[name])
    result = round(exact / step) * step  # round of a Fraction: to the nearest integer, of a half to the even one
    if abs(result) >= Fraction(2) ** (LARGEST_EXPONENT[name] + 1):
        return inf if x > 0 else -inf
    return float(result)


bits = st.integers(0, 2**32 - 1)


def test_precision_is_float32_unless_somebody_asks_and_ends_with_its_block() -> None:
    assert product_precision.get() == "float32"
    with mg.precision("bf16"):
        assert product_precision.get() == "bf16"
        with mg.precision("fp16"):
            assert product_precision.get() == "fp16"
        assert product_precision.get() == "bf16"
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(product_precision.get()))
        thread.start()
        thread.join()
        assert seen == ["float32"]
    assert product_precision.get() == "float32"


@pytest.mark.parametrize("name", ["float64", "", None, 16])
def test_another_name_is_refused(name: Any) -> None:
    with pytest.raises(ArgumentError, match="float32, tf32, bf16, fp16"):
        mg.precision(name)


@pytest.mark.parametrize("name", SHORT)
@given(raw=st.lists(bits, min_size=1, max_size=20))
@example(raw=[0x00000001, 0x80000001, 0x007FFFFF, 0x00008000, 0x00018000, 0x00001000, 0x00003000])  # subnormals, ties among them
@example(raw=[0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF, 0x7F800001, 0x7FFFFFFF])  # infinities and NaN, whose fraction would carry
@example(raw=[0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x477FF000, 0x477FEFFF, 0x477FE000])  # around the largest numbers
@example(
    raw=[0x33000000, 0x33000001, 0x32FFFFFF, 0x38800000, 0x387FFFFF, 0x387FE000]
)  # fp16's smallest number, and its smallest normal one
@example(raw=[0x3F808000, 0x3F818000, 0x3F801000, 0x3F803000, 0xBF808000, 0xBF818000])  # ties: down, up, down, up
@example(raw=[0, 0x80000000])
def test_rounding_is_to_the_nearest_and_of_ties_to_the_even_one(name: str, raw: list[int]) -> None:
    x = np.array(raw, np.uint32).view(np.float32)
    expected = np.array([v if np.isnan(v) else nearest(float(v), name) for v in x], np.float32)
    found = rounded(x, name)
    assert found.dtype == np.float32 and found.shape == x.shape
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(x)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(x[numbers]))
    np.testing.assert_array_equal(rounded(found, name), found)
    assert x.view(np.uint32).tolist() == raw, "what is given stays as it is"


@pytest.mark.parametrize("name", SHORT)
def test_rounding_takes_arrays_of_any_layout(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    expected = rounded(x, name)
    for view in (x.T, x[::-1, ::2], x[:0], np.broadcast_to(x[:1], (4, 8))):
        index = np.array([nearest(float(v), name) for v in view.reshape(-1)], np.float32).reshape(view.shape)
        np.testing.assert_array_equal(rounded(view, name), index)
    assert np.abs(expected - x).max() > 0


def operands(*shapes: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_product_is_that_of_rounded_operands(name: str, accumulate: bool) -> None:
    a, b, out = operands((2, 5, 7), (7, 3), (2, 5, 3))
    expected = rounded(a, name) @ rounded(b, name) + (out if accumulate else 0)
    with mg.precision(name):
        np.testing.assert_array_equal(xp.matmul(a, b), rounded(a, name) @ rounded(b, name))
        into = out.copy()
        assert xp.matmul(a, b, out=into, accumulate=accumulate) is into
    np.testing.assert_array_equal(into, expected)
    assert not np.array_equal(xp.matmul(a, b), rounded(a, name) @ rounded(b, name)), "outside of the block nothing is rounded"


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("dtypes", [("f8", "f8"), ("f8", "f4"), ("i8", "i8"), ("f2", "f2")])
def test_only_products_of_float32_are_rounded(name: str, dtypes: tuple[str, str]) -> None:
    a, b = (x * 100 for x in operands((4, 6), (6, 5), dtype=np.float64))
    a, b = a.astype(dtypes[0]), b.astype(dtypes[1])
    with mg.precision(name):
        np.testing.assert_array_equal(xp.matmul(a, b), a @ b)


def test_fp16_overflows_without_a_warning() -> None:
    with mg.precision("fp16"):
        np.testing.assert_array_equal(xp.matmul(np.float32([[65520.0, 65519.0]]), np.eye(2, dtype=np.float32) * 0 + 1), [[inf, inf]])


ROUNDING = {"tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}
"""How far rounding moves a number of ordinary size, relative to it."""


def layers(x: Any, w: Any, b: Any, gamma: Any, beta: Any) -> Any:
    """Every product that BERT makes, in the operations that have fast versions: linear layers, attention, feed-forward."""
    packing = Packing([3, 4])
    qkv = F.linears(x, w, w, w, b, b, b)
    y = F.attention(None, qkv, packing=packing, heads=2)
    y = F.dense_add_norm(y, w, b, x, gamma, beta)
    return F.linear(F.dense_gelu(y, w, b), w, b)


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("higher", [False, True], ids=["kernels", "bodies"])
def test_gradients_are_off_by_no_more_than_the_format_is(name: str, higher: bool) -> None:
    arrays = operands((7, 8), (8, 8), (8,), (8,), (8,))

    def value_and_gradients(precision: str, dtype: Any) -> list[np.ndarray]:
        leaves = [mg.Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
        with mg.precision(precision):
            out = mg.higher_order()(layers)(*leaves) if higher else layers(*leaves)
            (out * mg.Tensor(np.cos(np.arange(56.0)).reshape(7, 8).astype(dtype))).sum().backward()
        return [out.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    exact = value_and_gradients("float32", np.float64)
    errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(value_and_gradients(name, np.float32), exact, strict=True)]
    print(f"\n{name}: relative errors {', '.join(f'{e:.1e}' for e in errors)}")
    assert max(errors) < 16 * ROUNDING[name]  # up to eight roundings one after the other, which mostly cancel; a wrong term is of order 1
    assert min(errors) > ROUNDING[name] / 100, "no product was left unrounded"


@pytest.mark.parametrize("name", SHORT)
def test_second_derivatives(name: str) -> None:
    """Of the sum of squares of A x: its Hessian is 2 AᵀA, here by rounded products."""
    a, x = operands((4, 3), (3,), seed=1)

    def f(t: mg.Tensor) -> mg.Tensor:
        return F.sum(F.square(F.matmul(mg.Tensor(a), t)))

    with mg.precision(name):
        found = mg.hessian(f, mg.Tensor(x)).numpy()
    r = rounded(a, name)
    np.testing.assert_allclose(found, 2 * r.T @ r, rtol=16 * ROUNDING[name], atol=16 * ROUNDING[name])
    assert not np.allclose(found, 2 * a.T @ a, rtol=1e-6, atol=0)


def test_an_update_too_small_for_bf16_is_not_lost() -> None:
    """Weights stay float32: 1000 updates of 1e-5 add up, each of which would vanish beside 1 in bf16, whose steps are 2⁻⁷ there."""
    weight = mg.Parameter(np.ones((1, 1), np.float32))
    optimizer = mg.optim.SGD([weight], lr=1e-5)
    with mg.precision("bf16"):
        for _ in range(1000):
            optimizer.zero_grad()
            F.linear(mg.ones((1, 1)), weight, None).sum().backward()
            optimizer.step()
    np.testing.assert_allclose(weight.numpy(), 0.99, rtol=3e-5)  # a thousand subtractions, each within half a step of float32, 3e-8


def test_bodies_and_kernels_multiply_by_matmul_only() -> None:
    """`@` on arrays would escape precision, and on a GPU the namespace's own product."""
    package = Path(mg.__file__).parent
    for path in [*(package / "ops").glob("*.py"), package / "kernels" / "cpu.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.args.args and node.args.args[0].arg == "xp":
                found = [n.lineno for n in ast.walk(node) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult)]
                assert not found, f"{path}:{found}: write xp.matmul"
