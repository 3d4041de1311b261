"""`check_op`: test that one call of an operation keeps the contract of all operations (right derivatives, no side effects).

minigrad's own tests run it on samples of every operation; run it on an operation of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.backend import random
from minigrad.backend.dtypes import numbers
from minigrad.derivatives import grad
from minigrad.errors import ArgumentError, ContractError, DTypeError, MinigradError
from minigrad.gradcheck import GradientCheck, gradcheck
from minigrad.tape import higher_order, no_grad
from minigrad.tensor import Tensor

NumpyArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layout:
    """A memory layout for the same numbers: `view(store(x))` equals x. Both functions take arrays, `view` also Tensors."""

    name: str
    store: Callable[[NumpyArray], NumpyArray]
    view: Callable[[Any], Any]


def _backwards(ndim: int) -> tuple[Any, ...]:
    return (..., *[slice(None, None, -1)] * ndim)


def _with_gaps(x: NumpyArray) -> NumpyArray:
    return x.copy() if x.ndim == 0 else np.repeat(x, 2, axis=-1)


LAYOUTS = (
    Layout("contiguous", lambda x: np.array(x, order="C"), lambda x: x),
    Layout("transposed", lambda x: np.array(x.T, order="C"), lambda x: x.T),
    Layout("negative strides", lambda x: np.array(x[_backwards(x.ndim)], order="C"), lambda x: x[_backwards(x.ndim)]),
    Layout("step-sliced", _with_gaps, lambda x: x[..., ::2] if x.ndim else x),
)


ROUNDING: dict[type[np.floating[Any]], tuple[float, float]] = {np.float64: (1e-11, 1e-11), np.float32: (1e-3, 1e-3)}
"""(rtol, atol) between two ways of computing the same. float32 is checked because fused kernels, where there are any, run in it."""


def check_op(
    function: Callable[..., Any], args: Sequence[Any], constants: Mapping[str, Any] | None = None, *, seed: int = 0, same_dtype: bool = True
) -> GradientCheck:
    """Check the contract of an operation (or any function of tensors) for `function(*args, **constants)`.

    - First and second derivatives equal central differences (`gradcheck`), whatever the memory layout of the inputs.
    - Inputs, outputs and incoming gradients are not written to, and running the pullback twice gives the same bits.
    - On Tensors (`higher_order`) value and gradient are those on arrays; when no gradient is required, the value is the same.
    - float32 in, float32 out; a gradient has its input's shape and dtype (`same_dtype=False` for a function that changes the dtype).
    - Transposed, reversed and sliced arrays, as inputs and as incoming gradients, change neither value nor gradient; nor do broadcast
      incoming gradients.

    The tolerances are for values and derivatives of order 1. float32 is compared with float64 to about three digits.
    args: arrays (or lists) of floats are the inputs whose gradients are checked, in float64; everything else is passed through.
    seed: determines layouts, directions and incoming gradients.
    Raises: GradientCheckError for a wrong derivative; ContractError for any other broken rule; ArgumentError without a floating input;
    DTypeError for a list that cannot become an array, or a result that is not a Tensor.
    """
    call = _Call(function, [_in_float64(a) for a in args], dict(constants or {}), np.random.default_rng(seed))
    if not call.floating:
        raise ArgumentError("check_op: no argument is an array of floats, there is no gradient to check")
    try:
        for dtype in ROUNDING:
            call.check_purity(dtype)
        values, gradients = call.run(call.args)
        call.check_tensors(values, gradients)
        if same_dtype:
            call.check_float32(values, gradients)
        for dtype in ROUNDING:
            call.check_layouts(dtype)
        return call.check_derivatives(seed)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise ContractError(f"it writes to an array that it was given: {error}", code="contract-purity") from error


def _in_float64(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        arg = arg.detach().numpy()
    if isinstance(arg, list | tuple | np.generic):
        arg = numbers(arg)
    return np.asarray(arg, np.float64) if isinstance(arg, np.ndarray) and arg.dtype.kind == "f" else arg


class _Call:
    """One call of the function, which the checks repeat with other dtypes and memory layouts."""

    def __init__(self, function: Callable[..., Any], args: list[Any], constants: dict[str, Any], rng: np.random.Generator) -> None:
        self.function, self.args, self.constants, self.rng = function, args, constants, rng
        self.floating = [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]

    def outputs(self, args: Sequence[Any]) -> list[Tensor]:
        with random.replay():
            result = self.function(*args, **self.constants)
        results = list(result) if isinstance(result, tuple | list) else [result]
        for found in results:
            if not isinstance(found, Tensor):
                raise DTypeError(f"check_op: the function must return a Tensor or a tuple of them, it returned {type(found).__name__}")
        return results

    def run(
        self, args: Sequence[Any], incoming: Callable[[Tensor], NumpyArray] | None = None, *, twice: bool = False, **how: bool
    ) -> tuple[list[NumpyArray], list[NumpyArray]]:
        """Values and gradients. The arrays are not copied, because their layout and flags matter.

        incoming: makes the incoming gradient of an output. twice: run the pullbacks a second time and compare.
        """
        leaves = {i: Tensor.wrap(args[i]).requires_grad_() for i in self.floating}
        outputs = self.outputs([leaves.get(i, a) for i, a in enumerate(args)])
        values = [out.array for out in outputs]
        watched = [*values, *(a for a in args if isinstance(a, np.ndarray))]
        before = [np.array(a) for a in watched]
        found = [self._gradients(outputs, list(leaves.values()), incoming or _random_gradient, **how) for _ in range(1 + twice)]
        if not all(np.array_equal(now, then, equal_nan=now.dtype.kind == "f") for now, then in zip(watched, before, strict=True)):
            raise ContractError("an input or an output was changed", code="contract-purity")
        if twice and not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*found, strict=True)):
            raise ContractError("pulling a second time gives another gradient: the pullback changes what it keeps", code="contract-purity")
        return values, found[0]

    def _gradients(
        self, outputs: list[Tensor], leaves: list[Tensor], incoming: Callable[[Tensor], NumpyArray], **how: bool
    ) -> list[NumpyArray]:
        totals = [np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
        for out in outputs:
            if not out.requires_grad:
                continue
            g = incoming(out)
            g.flags.writeable = False
            for i, found in enumerate(self._grad(out, leaves, g, **how)):
                if found is None:
                    continue
                if found.shape != leaves[i].shape or found.dtype != leaves[i].dtype:
                    raise ContractError(
                        f"the gradient of floating input {i} is {found.dtype} of shape {found.shape}, the input {leaves[i].dtype} of shape "
                        f"{leaves[i].shape}",
                        code="contract-dtype",
                    )
                totals[i] = totals[i] + found.detach().numpy()
        return totals

    def _grad(self, out: Tensor, leaves: list[Tensor], g: NumpyArray, **how: bool) -> tuple[Tensor | None, ...]:
        """The gradients of one output. Exceptions in a pullback become a ContractError that says what a pullback takes and returns."""
        try:
            return grad(out, leaves, Tensor.wrap(g), retain_graph=True, **how)
        except MinigradError:
            raise
        except Exception as error:
            if "read-only" in str(error):
                raise
            raise ContractError(
                f"the pullback failed: {type(error).__name__}: {error}. It receives a gradient (of several outputs a tuple, with None for "
                "those that have none) and returns a tuple with one array, or None, per input",
                code="contract-pullback",
            ) from error

    def with_floating(self, change: Callable[[NumpyArray], NumpyArray]) -> list[Any]:
        return [change(a) if i in self.floating else a for i, a in enumerate(self.args)]

    # ---------------------------------------------------------------- checks
    def check_purity(self, dtype: type[np.floating[Any]]) -> None:
        order: Any = self.rng.choice(["C", "F"])
        args = [np.array(a, dtype if i in self.floating else None, order=order) if isinstance(a, np.ndarray) else a
                for i, a in enumerate(self.args)]  # fmt: skip
        for a in args:
            if isinstance(a, np.ndarray):
                a.flags.writeable = False
        values, _ = self.run(args, twice=True)
        with no_grad():
            unrecorded = [out.array for out in self.outputs([Tensor.wrap(a) if i in self.floating else a for i, a in enumerate(args)])]
        _close(unrecorded, values, "without a gradient wanted it has another value", "contract-keep", *ROUNDING[dtype])

    def check_tensors(self, values: list[NumpyArray], gradients: list[NumpyArray]) -> None:
        with higher_order():
            replayed, found = self.run(self.args, create_graph=True)
        same = "run on Tensors it has another"
        _close(replayed, values, f"{same} value", "contract-tensors", 1e-12, 1e-12)
        _close(found, gradients, f"{same} gradient", "contract-tensors", 1e-12, 1e-12)  # not bit for bit: the order of sums may differ

    def check_float32(self, values: list[NumpyArray], gradients: list[NumpyArray]) -> None:
        values32, found = self.run(self.with_floating(lambda a: a.astype(np.float32)))
        for now, then in zip(values32, values, strict=True):
            wanted = np.dtype(np.float32) if then.dtype.kind == "f" else then.dtype
            if now.dtype != wanted:
                raise ContractError(f"float32 inputs gave {now.dtype}, not {wanted}", code="contract-dtype")
        # float32 has seven digits, some of which sums and quotients cost (in a gradient also the factor 1/σ of a norm); a wrong formula
        # differs by far more.
        _close(values32, values, "in float32 it has another value", "contract-dtype", 2e-4, 2e-4)
        for a, b in zip(found, gradients, strict=True):
            _close([a], [b], "in float32 it has another gradient", "contract-dtype", 1e-3, 1e-3 * max(1.0, np.abs(b).max(initial=0.0)))

    def check_layouts(self, dtype: type[np.floating[Any]]) -> None:
        plain = self.with_floating(lambda a: a.astype(dtype))
        expected = self.run(plain)
        what, code = "with arrays in another memory layout it has another", "contract-layout"
        for shift in range(len(LAYOUTS)):  # every array gets every layout once, in a different combination each time

            def incoming(out: Tensor, layout: int = -1 - shift) -> NumpyArray:
                return _in_layout(_random_gradient(out), layout)

            found = self.run([_in_layout(a, i + shift) if isinstance(a, np.ndarray) else a for i, a in enumerate(plain)], incoming)
            _close(found[0], expected[0], f"{what} value", code, *ROUNDING[dtype])  # the order of sums in BLAS may differ
            _close(found[1], expected[1], f"{what} gradient", code, *ROUNDING[dtype])
        _, repeated = self.run(plain, lambda out: np.broadcast_to(out.dtype.type(1.5), out.shape))  # strides 0
        _, written_out = self.run(plain, lambda out: np.full(out.shape, 1.5, out.dtype))
        _close(repeated, written_out, "with a repeated incoming gradient it has another gradient", code, *ROUNDING[dtype])

    def check_derivatives(self, seed: int) -> GradientCheck:
        layouts = {i: LAYOUTS[int(self.rng.integers(len(LAYOUTS)))] for i in self.floating}
        stored = [Tensor(layouts[i].store(a), requires_grad=True) if i in layouts else a for i, a in enumerate(self.args)]

        def seen(*arguments: Any) -> Any:
            views = [layouts[i].view(a) if i in layouts else a for i, a in enumerate(arguments)]
            for i in layouts:
                views[i].array.flags.writeable = False
            return self.function(*views, **self.constants)

        return gradcheck(seen, stored, order=2, seed=seed)


def _in_layout(array: NumpyArray, number: int) -> NumpyArray:
    layout = LAYOUTS[number % len(LAYOUTS)]
    return np.asarray(layout.view(layout.store(array)))


def _random_gradient(out: Tensor) -> NumpyArray:
    """A random incoming gradient, the same for every output of one shape."""
    return np.random.default_rng(out.size).uniform(0.5, 1.5, out.shape).astype(out.dtype)


def _close(found: list[NumpyArray], expected: list[NumpyArray], what: str, code: str, rtol: float, atol: float) -> None:
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            raise ContractError(f"{what} shape: {a.shape}, not {b.shape}", code=code)
        if not np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
            place = tuple(int(k) for k in np.unravel_index(int(np.argmax(~np.isclose(a, b, rtol, atol, equal_nan=True))), a.shape))
            raise ContractError(f"{what} at {place}: {a[place]!r}, not {b[place]!r}", code=code)
