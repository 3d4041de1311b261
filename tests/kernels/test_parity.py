"""Every fast version against its operation's body: the output and every gradient, over shapes that cross the edges of blocks.

The judge is the body in float64 on the same float32 numbers. A new override without a row here fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops.cases import Sample
from strategies import generator, pair_draws, row_draws
from support import absolute_error, cpu_kernels, without_kernels

import minigrad as mg
from minigrad.backend import numpy as numpy_namespace
from minigrad.contract import LAYOUTS
from minigrad.kernels import passes
from minigrad.op import REGISTRY, Op
from minigrad.packing import Packing

cpu = cpu_kernels()

TOLERANCE = 1e-5
"""Relative to 1 and to the largest entry: sums of up to some hundred float32 products lose about 2e-6 either way, and gelu's polynomial
is good to 7.5e-8. A wrong term is off by far more: the samples are of order 1."""

SAMPLES: dict[str, Callable[..., Any]] = {}

rows = st.sampled_from([1, 2, 7, 40, 600])
widths = st.sampled_from([1, 2, 3, 16, 33])


def row(function: Callable[..., Sample]) -> Callable[..., Sample]:
    SAMPLES[function.__name__] = st.composite(function)
    return function


def normal(draw: Any, *shapes: tuple[int, ...], scale: float = 1.0) -> list[np.ndarray]:
    rng = generator(draw)
    return [(scale * rng.standard_normal(shape)).astype(np.float32) for shape in shapes]


def spread(draw: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers no two of which in a row are close: nearly constant rows have no derivative worth comparing in float32."""
    order = generator(draw).permuted(np.tile(np.arange(shape[1], dtype=np.float32), (shape[0], 1)), axis=1)
    return (order - shape[1] / 2) * np.float32(4.0 / shape[1] ** 0.5) + normal(draw, shape, scale=0.05)[0]


@st.composite
def many_packings(draw: Any) -> Packing:
    longest = draw(st.sampled_from([3, 20]))  # the shorter, the more neighbours of one length
    lengths = draw(st.lists(st.integers(1, longest), min_size=1, max_size=6)) if draw(st.booleans()) else [draw(rows)]
    masked = [n > 1 and draw(st.booleans()) for n in lengths]
    return Packing(lengths, masked_first=masked if draw(st.booleans()) else None)


@row
def dense_gelu(draw: Any) -> Sample:
    n, k, m = draw(rows), draw(widths), draw(widths)
    return Sample(tuple(normal(draw, (n, k), (m, k), (m,))), {})


@row
def layer_norm(draw: Any) -> Sample:
    n, d = draw(rows), draw(widths)
    return Sample((spread(draw, (n, d)), *normal(draw, (d,), (d,))), {"eps": draw(st.sampled_from([1e-12, 1e-5]))})


@row
def dense_add_norm(draw: Any) -> Sample:
    packing, k, d = draw(many_packings()), draw(widths), draw(widths)
    x, weight, bias, gamma, beta = normal(draw, (packing.rows, k), (d, k), (d,), (d,), (d,))
    recipe = draw(row_draws(packing, d)) if draw(st.booleans()) else None
    small = np.float32(0.05 / k**0.5)
    args = (x * small, weight * small, bias * small, spread(draw, (packing.rows, d)), gamma, beta)
    return Sample(args, {"draw": recipe, "eps": draw(st.sampled_from([1e-12, 1e-5]))})


@row
def linears(draw: Any) -> Sample:
    n, k, sides = draw(rows), draw(widths), draw(st.lists(widths, min_size=1, max_size=3))
    return Sample(tuple(normal(draw, (n, k), *[(m, k) for m in sides], *[(m,) for m in sides])), {})


@row
def dropout(draw: Any) -> Sample:
    packing, width = draw(many_packings()), draw(widths)
    return Sample(tuple(normal(draw, (packing.rows, width))), {"draw": draw(row_draws(packing, width))})


@row
def attention(draw: Any) -> Sample:
    packing, heads, d = draw(many_packings()), draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 3, 8]))
    form = draw(st.sampled_from(["q in kv", "all rows", "first rows", "other rows"]))
    asking = packing.first if form == "first rows" else packing
    if form == "other rows":  # fewer or more queries than keys
        asking = Packing([draw(st.integers(1, 20)) for _ in packing.lengths], packing.numbers)
    constants = {
        "packing": packing,
        "queries": asking if asking is not packing or draw(st.booleans()) else None,
        "heads": heads,
        "causal": draw(st.booleans()),
        "draw": draw(pair_draws(asking, packing, heads)) if draw(st.booleans()) else None,
    }
    if form == "q in kv":
        return Sample((None, *normal(draw, (packing.rows, 3 * heads * d))), constants)
    return Sample(tuple(normal(draw, (asking.rows, heads * d), (packing.rows, 2 * heads * d))), constants)


OVERRIDDEN = sorted(name for name, operation in REGISTRY.items() if "numpy" in operation.overrides)


def test_every_override_has_a_row() -> None:
    assert sorted(SAMPLES) == OVERRIDDEN


def accepts(operation: Op[Any], sample: Sample) -> bool:
    """Whether the fast version takes this call."""
    keep = {"keep": True} if operation._asks_keep[operation.overrides["numpy"]] else {}
    return operation.overrides["numpy"](numpy_namespace, *sample.args, **sample.constants, **keep) is not NotImplemented


def evaluate(operation: Op[Any], sample: Sample, dtype: Any, views: Any = None, summed: bool = False) -> list[np.ndarray]:
    """The output and the gradient of every floating input; inputs are read-only.

    summed: seed the backward pass with ones that are repeated, not stored.
    """
    leaves = []
    args: list[Any] = []
    for i, value in enumerate(sample.args):
        if i not in sample.floating:
            args.append(value)
            continue
        layout = LAYOUTS[0] if views is None else views[i]
        leaves.append(mg.Tensor(layout.store(value.astype(dtype)), requires_grad=True))
        args.append(layout.view(leaves[-1]))
        args[-1].array.flags.writeable = False
    y = operation(*args, **sample.constants)
    seed = np.cos(np.arange(y.size)).reshape(y.shape)
    total = y.sum() if summed else (y * seed.astype(dtype)).sum()
    return [np.array(y.numpy()), *[np.array(g.numpy()) for g in mg.grad(total, leaves)]]


def compare(operation: Op[Any], sample: Sample, views: Any = None, summed: bool = False) -> None:
    fast = evaluate(operation, sample, np.float32, views, summed)
    with without_kernels():
        exact = evaluate(operation, sample, np.float64, summed=summed)
    views = views or [LAYOUTS[0]] * len(sample.args)
    expected = [exact[0], *[views[i].store(g) for i, g in zip(sample.floating, exact[1:], strict=True)]]
    for i, (ours, truth) in enumerate(zip(fast, expected, strict=True)):
        if i and views[sample.floating[i - 1]].name == "step-sliced":  # between the steps the stored numbers are fillers without gradient
            ours, truth = ours[..., ::2] if ours.ndim else ours, truth[..., ::2] if truth.ndim else truth
        assert ours.dtype == np.float32
        partial_sums = len(fast[0]) ** 0.5 if i else 1.0  # a bias gradient is a sum over the rows, which may end near zero on its way
        assert absolute_error(ours, truth) <= TOLERANCE * max(partial_sums, float(np.abs(truth).max(initial=0.0))), f"result {i}"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_values_and_gradients_equal_the_body(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        sample = data.draw(SAMPLES[name]())
        monkeypatch.setattr(passes, "BLOCK", data.draw(st.sampled_from([1, 50, 16384])))  # many blocks, also where the arrays are small
        assert accepts(REGISTRY[name], sample)
        compare(REGISTRY[name], sample, summed=data.draw(st.booleans()))

    run()


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_any_memory_layout(name: str) -> None:
    """Transposed, reversed and strided inputs: taken by the fast version or declined, the result is the body's."""

    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        sample = data.draw(SAMPLES[name]())
        compare(REGISTRY[name], sample, [data.draw(st.sampled_from(LAYOUTS)) for _ in sample.args])

    run()


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_inference_gives_the_same_numbers(name: str) -> None:
    @given(sample=SAMPLES[name]())
    def run(sample: Sample) -> None:
        with_graph = evaluate(REGISTRY[name], sample, np.float32)[0]
        with mg.no_grad():
            tensors = [mg.Tensor(a) if i in sample.floating else a for i, a in enumerate(sample.args)]
            np.testing.assert_array_equal(REGISTRY[name](*tensors, **sample.constants).numpy(), with_graph)

    run()


@pytest.mark.parametrize("dtypes", [[np.float64], [np.float32, np.float64]], ids=["float64", "mixed"])
@pytest.mark.parametrize("name", OVERRIDDEN)
def test_other_dtypes_fall_back_to_the_body(name: str, dtypes: list[type]) -> None:
    @given(sample=SAMPLES[name]())
    def run(sample: Sample) -> None:
        kinds = {i: dtypes[j % len(dtypes)] for j, i in enumerate(sample.floating)}
        if set(kinds.values()) == {np.float32}:  # a single input cannot be mixed
            return
        other = sample.with_args(a.astype(kinds[i]) if i in kinds else a for i, a in enumerate(sample.args))
        assert not accepts(REGISTRY[name], other)
        ours = REGISTRY[name](*other.args, **other.constants).numpy()
        with without_kernels():
            np.testing.assert_array_equal(ours, REGISTRY[name](*other.args, **other.constants).numpy())

    run()


@pytest.mark.parametrize("place", ["output", "first gradient", "last gradient"])
@pytest.mark.parametrize("name", OVERRIDDEN)
def test_a_planted_error_is_caught(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One part in a thousand, in the output or in one of the gradients."""
    operation = REGISTRY[name]
    good = operation.overrides["numpy"]

    def bad(xp: Any, *arrays: Any, **constants: Any) -> Any:
        y, pullback = good(xp, *arrays, **constants)
        if place == "output":
            return y * np.float32(1.001), pullback

        def wrong(g: Any) -> Any:
            gradients = list(pullback(g))
            at = max(i for i, x in enumerate(gradients) if x is not None) if place == "last gradient" else 0
            at = next(i for i in range(at, len(gradients)) if gradients[i] is not None)
            gradients[at] = (gradients[at].dense() if hasattr(gradients[at], "dense") else gradients[at]) * np.float32(1.001)
            return tuple(gradients)

        return y, wrong

    monkeypatch.setitem(operation.overrides, "numpy", bad)
    monkeypatch.setitem(operation._asks_keep, bad, operation._asks_keep[good])
    rng = np.random.default_rng(0)

    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    packing = Packing([4, 2])
    sample = {
        "dense_gelu": lambda: Sample((x(6, 3), x(4, 3), x(4)), {}),
        "layer_norm": lambda: Sample((x(6, 4), x(4), x(4)), {}),
        "dense_add_norm": lambda: Sample((x(6, 3), x(4, 3), x(4), x(6, 4), x(4), x(4)), {}),
        "linears": lambda: Sample((x(6, 3), x(4, 3), x(2, 3), x(4), x(2)), {}),
        "dropout": lambda: Sample((x(6, 3),), {"draw": cpu.Draw("a", 0.5, packing, 3)}),
        "attention": lambda: Sample((x(6, 4), x(6, 8)), {"packing": packing, "heads": 2}),
    }[name]()
    with pytest.raises(AssertionError, match="result"):
        compare(operation, sample)


# ---------------------------------------------------------------- neighbours in an arena
def test_linears_read_a_joined_arena() -> None:
    """The view that an optimizer's layout makes possible and the copy give the same numbers."""
    weights, biases = [*np.arange(24, dtype=np.float32).reshape(2, 3, 4)], [np.full(3, 1.0, np.float32), np.full(3, 2.0, np.float32)]
    x = np.linspace(-1.0, 1.0, 8, dtype=np.float32).reshape(2, 4)
    joined = cpu._linears(numpy_namespace, x, *weights, *biases)
    copied = cpu._linears(numpy_namespace, x, *[w.copy() for w in weights], *biases)
    g = np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(joined[0], copied[0])
    for ours, theirs in zip(joined[1](g), copied[1](g), strict=True):
        np.testing.assert_array_equal(mg.backend.gradients.dense(ours), mg.backend.gradients.dense(theirs))
