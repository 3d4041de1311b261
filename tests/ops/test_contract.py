"""The five rules of `op.py`, checked on every operation: purity, one meaning in every interpreter, dtypes, layouts; and planted errors.

A planted error is a wrong pullback that gradcheck must reject: a checker that accepts everything would pass every other test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ops.cases import CASES, Sample
from strategies import LAYOUTS, Layout

import minigrad as mg
from minigrad import autograd
from minigrad.autograd import sum_to
from minigrad.backend import numpy as np_namespace
from minigrad.backend.gradients import dense
from minigrad.errors import GradientCheckError, MinigradError
from minigrad.op import REGISTRY

every_operation = pytest.mark.parametrize("name", sorted(REGISTRY))


def weights_like(out: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """An incoming gradient without symmetries."""
    return np.random.default_rng(out.size).uniform(0.5, 1.5, out.shape).astype(dtype)


def called(name: str, sample: Sample) -> tuple[mg.Tensor, list[mg.Tensor]]:
    """The operation's output and its floating inputs as leaves, without copying the arrays (their layout matters)."""
    leaves = {i: mg.Tensor.wrap(sample.args[i]).requires_grad_() for i in sample.floating}
    return REGISTRY[name](*[leaves.get(i, a) for i, a in enumerate(sample.args)], **sample.constants), list(leaves.values())


def gradients(name: str, sample: Sample, g: np.ndarray | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Value and gradients; an input that nothing depends on has the gradient 0."""
    out, leaves = called(name, sample)
    found = mg.grad(out, leaves, weights_like(out.numpy(), out.dtype) if g is None else mg.Tensor.wrap(g))
    return out.numpy(), [np.zeros(leaf.shape, leaf.dtype) if f is None else f.numpy() for f, leaf in zip(found, leaves, strict=True)]


# ---------------------------------------------------------------- purity
def frozen(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    return array


def pulled(pullback: Any, g: np.ndarray, floating: list[int]) -> list[np.ndarray]:
    """The gradients of the differentiable inputs (the others' functions are never called)."""
    parts = {i: pullback[i](g) for i in floating} if type(pullback) is tuple else pullback(g)
    return [np.array(dense(parts[i] if isinstance(parts, dict | tuple) else parts)) for i in floating]


@every_operation
@given(data=st.data())
def test_nothing_received_or_captured_is_written_to(name: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[name])
    for args in (sample.args, sample.in_float32().args):  # float32 takes the kernel where there is one
        args = [np.array(a, order=data.draw(st.sampled_from("CF"))) if isinstance(a, np.ndarray) else a for a in args]
        before = [np.array(a) if isinstance(a, np.ndarray) else a for a in args]
        out, pullback = REGISTRY[name].run(np_namespace, [frozen(a) for a in args], sample.constants, keep=True)
        out = frozen(np.asarray(out))
        value = out.copy()
        g = frozen(weights_like(out, out.dtype))
        g_before = g.copy()
        first = pulled(pullback, g, sample.floating)
        second = pulled(pullback, g, sample.floating)  # a pullback that changed what it captured gives something else now
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(args, before, strict=True):
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(out, value)
        np.testing.assert_array_equal(g, g_before)


# ---------------------------------------------------------------- interpreters
@every_operation
@given(data=st.data())
def test_pullback_on_tensors_equals_pullback_on_arrays(name: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[name])
    value, plain = gradients(name, sample)
    with mg.higher_order():
        out, leaves = called(name, sample)
        replayed = mg.grad(out, leaves, weights_like(value), create_graph=True)
    np.testing.assert_array_equal(out.numpy(), value)
    for expected, found in zip(plain, replayed, strict=True):
        actual = np.zeros(expected.shape) if found is None else found.detach().numpy()
        assert actual.shape == expected.shape and actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)  # the same formula, summed in another order


# ---------------------------------------------------------------- dtypes
@every_operation
@given(data=st.data())
def test_float32_stays_float32(name: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[name])
    value, expected = gradients(name, sample)
    value32, found = gradients(name, sample.in_float32())
    assert value32.dtype == np.float32 and value32.shape == value.shape
    np.testing.assert_allclose(
        value32, value, rtol=2e-4, atol=2e-4
    )  # seven digits, less what sums and quotients cost; a wrong formula is far off
    for i, g32, g64 in zip(sample.floating, found, expected, strict=True):
        assert g32.dtype == np.float32 and g32.shape == sample.args[i].shape
        np.testing.assert_allclose(
            g32, g64, rtol=1e-2, atol=1e-2 * max(1.0, np.abs(g64).max(initial=0.0))
        )  # 1/σ of a layer norm multiplies rounding


# ---------------------------------------------------------------- layouts
@every_operation
@given(data=st.data())
def test_layout_of_inputs_and_gradient_does_not_matter(name: str, data: st.DataObject) -> None:
    sample = data.draw(CASES[name])

    def laid_out(array: np.ndarray) -> np.ndarray:
        layout: Layout = data.draw(st.sampled_from(LAYOUTS))
        return np.asarray(layout.view(layout.store(array)))

    value, expected = gradients(name, sample)
    g = laid_out(weights_like(value))
    moved, found = gradients(name, sample.with_args(laid_out(a) if isinstance(a, np.ndarray) else a for a in sample.args), g)
    np.testing.assert_allclose(moved, value, rtol=1e-13, atol=1e-13)  # BLAS may add in another order
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@every_operation
@given(data=st.data())
def test_gradient_repeated_without_a_copy(name: str, data: st.DataObject) -> None:
    """The gradient of a sum is one number seen at every place (strides 0), and read-only."""
    sample = data.draw(CASES[name])
    value, repeated = gradients(name, sample, np.broadcast_to(np.float64(1.5), called(name, sample)[0].shape))
    for a, b in zip(repeated, gradients(name, sample, np.full(value.shape, 1.5))[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


ELEMENTWISE = sorted(name for name, operation in REGISTRY.items() if operation.spec.endswith("*s -> *s") and name != "astype")


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0)])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_zero_dimensions_and_no_elements(name: str, shape: tuple[int, ...]) -> None:
    count = REGISTRY[name].spec.split("->")[0].count("*s")
    constants = {"device": "cpu"} if name == "transfer" else {}
    args = [np.full(shape, 0.5 + i) for i in range(count)]
    if name == "where":
        args[0] = args[0] > 0.2
    value, found = gradients(name, Sample(tuple(args), constants))
    assert value.shape == shape
    assert [g.shape for g in found] == [shape] * (count - (name == "where"))


# ---------------------------------------------------------------- planted errors
PLANTED = settings(
    max_examples=60,
    derandomize=True,  # what it asserts at the end is that some drawn call exposed each error
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
SCALE = 1.001


class Corrupted:
    """`operation.run` with one argument's gradient scaled by 1.001; `largest` is the greatest gradient it has changed."""

    def __init__(self, name: str, position: int) -> None:
        self.original, self.position, self.largest = REGISTRY[name].run, position, 0.0

    def __call__(self, xp: Any, arrays: Any, constants: Any, **how: Any) -> Any:
        output, pullback = self.original(xp, arrays, constants, **{**how, "generic": True})

        def wrong(g: Any) -> Any:
            parts = [f(g) if f is not None else None for f in pullback] if type(pullback) is tuple else pullback(g)
            parts = list(parts) if isinstance(parts, list | tuple) else [parts]
            true = dense(parts[self.position])
            self.largest = float(np.abs(sum_to(true, arrays[self.position].shape)).max(initial=0.0))
            parts[self.position] = true * SCALE
            return tuple(parts)

        return output, wrong


@every_operation
def test_a_gradient_off_by_a_thousandth_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    caught: set[int] = set()

    @PLANTED
    @given(CASES[name])
    def run(sample: Sample) -> None:
        for position in sample.floating:
            seen.add(position)
            if position in caught:
                continue
            inputs = [mg.Tensor(a, requires_grad=i == position) if i in sample.floating else a for i, a in enumerate(sample.args)]
            corrupted = Corrupted(name, position)
            with monkeypatch.context() as patch:
                patch.setattr(REGISTRY[name], "run", corrupted)
                try:
                    mg.gradcheck(lambda *a: REGISTRY[name](*a, **sample.constants), inputs)
                    assert corrupted.largest < 2e-4, f"gradient up to {corrupted.largest} was wrong by a thousandth, unnoticed"
                except GradientCheckError:
                    caught.add(position)

    run()
    assert seen and caught == seen


@pytest.mark.parametrize("shapes", [((3,), (2, 3)), ((2, 1), (2, 3)), ((), (2,)), ((1, 1, 3), (2, 2, 1))], ids=str)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum", "power"])
def test_missing_sum_over_broadcast_axes_is_caught(name: str, shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    inputs = [mg.Tensor(rng.uniform(0.5, 1.5, shape), requires_grad=True) for shape in shapes]
    assert mg.gradcheck(REGISTRY[name], inputs)
    monkeypatch.setattr(autograd, "sum_to", lambda gradient, shape: gradient)
    with pytest.raises(GradientCheckError):
        mg.gradcheck(REGISTRY[name], inputs)


def test_missing_sum_for_a_bias_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    inputs = [mg.Tensor(rng.standard_normal(shape), requires_grad=True) for shape in ((4, 3), (2, 3), (2,))]
    assert mg.gradcheck(REGISTRY["linear"], inputs)
    monkeypatch.setattr(autograd, "sum_to", lambda gradient, shape: gradient)
    with pytest.raises(GradientCheckError):
        mg.gradcheck(REGISTRY["linear"], inputs)


# ---------------------------------------------------------------- messages
def test_a_shape_error_names_operation_shapes_and_rule() -> None:
    with pytest.raises(MinigradError, match=r"add\(float64\[2\], float64\[3\]\).*\*s, \*s -> \*s"):
        REGISTRY["add"](np.zeros(2), mg.Tensor(np.zeros(3)))
