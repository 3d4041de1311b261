"""The compiled passes against NumPy's, pass by pass: shapes, layouts, numbers that are not finite, and the same bits every time."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator

from minigrad.kernels import passes
from minigrad.optim.adam import adam

pytest.importorskip("numba", reason="Numba is not installed (the `fast` extra)")


from minigrad.kernels import compiled

TOLERANCE = 3e-6
"""Relative to 1 and to the largest entry: two float32 sums of some hundred products in different orders, two exponentials good to 2e-7."""

SCALE = np.float32(1.25)

Arguments = dict[str, Any]


@pytest.fixture(autouse=True)
def passes_used() -> None:
    """Both are called here by name: once is enough."""


def rows(rng: np.random.Generator, n: int, d: int, *, drops: bool) -> dict[str, Arguments]:
    """The arguments of every pass over rows."""

    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    survives = rng.random((n, d)) < 0.8
    mask = survives if drops else None
    centre, rstd = x(n, d), np.abs(x(n)) + np.float32(0.5)
    gx = x(n, d)
    total = {name: x(d) for name in ("dgamma", "dbeta", "dbias")}
    two = {name: total[name] for name in ("dgamma", "dbeta")}
    small = np.float32(0.1)
    spread = small * x(n, d) + np.linspace(-2, 2, d, dtype=np.float32)  # 1/σ of nearly equal numbers would not be worth comparing
    affine = {"gamma": x(d), "beta": x(d), "eps": 1e-5}
    outputs = {"out": x(n, d), "rstd": x(n)}
    return {
        "add_bias": {"y": x(n, d), "bias": x(d)},
        "add_column_sums": {"g": x(n, d), "total": x(d)},
        "drop": {"x": x(n, d), "survives": survives, "scale": SCALE, "out": x(n, d)},
        "bias_gelu": {"h": 3 * x(n, d), "bias": x(d), "out": x(n, d), "slope": drops},
        "bias_gelu_pullback": {"g": x(n, d), "slope": x(n, d), "dh": x(n, d), "dbias": x(d)},
        "norm": {"x": spread, **affine, "out": x(n, d), "xhat": x(n, d), "rstd": x(n)},
        "add_norm": {"y": small * x(n, d), "bias": small * x(d), "survives": mask, "scale": SCALE, "residual": spread, **affine, **outputs},
        "norm_pullback": {"g": x(n, d), "gamma": x(d), "xhat": centre, "rstd": rstd, "gx": gx, **two},
        "add_norm_pullback": {
            **{"g": x(n, d), "gamma": x(d), "xhat": centre, "rstd": rstd, "survives": mask, "scale": SCALE},
            **{"gx": gx, "dy": x(n, d) if drops else gx, **total},
        },
    }  # fmt: skip


def weights(rng: np.random.Generator, n: int, queries: int, keys: int, *, drops: bool) -> dict[str, Arguments]:
    """The arguments of the passes inside attention; the views have the strides that attention gives them."""

    def x(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    p = 5 * x(n, queries, keys)
    survives = (rng.random((queries, n, keys)) < 0.8).swapaxes(0, 1) if drops else None
    kept = x(n, queries, keys)
    return {
        "softmax_drop": {"p": p, "survives": survives, "scale": SCALE, "dropped": x(n, queries, keys) if drops else p},
        "softmax_drop_pullback": {
            **{"ds": x(n, queries, keys), "p": kept, "dropped": x(n, queries, keys) if drops else kept},
            **{"delta": x(queries, n).T, "scale": SCALE},
        },
    }


ROW_PASSES, WEIGHT_PASSES = (list(f(np.random.default_rng(0), *sizes, drops=True)) for f, sizes in ((rows, (1, 1)), (weights, (1, 1, 1))))
WRITTEN = {
    "add_bias": ["y"], "add_column_sums": ["total"], "drop": ["out"], "bias_gelu": ["h", "out"], "bias_gelu_pullback": ["dh", "dbias"],
    "norm": ["out", "xhat", "rstd"], "add_norm": ["y", "out", "rstd"], "norm_pullback": ["gx", "dgamma", "dbeta"],
    "add_norm_pullback": ["gx", "dy", "dgamma", "dbeta", "dbias"], "softmax_drop": ["p", "dropped"], "softmax_drop_pullback": ["ds"],
}  # fmt: skip


def copied(arguments: Arguments) -> Arguments:
    """Copies of all arrays, in their memory layouts; what was one array under two names stays one."""
    copies = {id(a): a.copy(order="K") for a in arguments.values() if isinstance(a, np.ndarray)}
    return {name: copies.get(id(a), a) for name, a in arguments.items()}


def run(function: Callable[..., None], arguments: Arguments) -> dict[str, np.ndarray]:
    """What is written, of copies; gelu's input holds nothing of use unless its slope is asked for."""
    arguments = copied(arguments)
    with np.errstate(all="ignore"):  # compiled code warns of nothing
        function(*arguments.values())
    names = [name for name in WRITTEN[function.__name__] if not (name == "h" and not arguments["slope"])]
    return {name: arguments[name] for name in names}


def compare(name: str, arguments: Arguments) -> None:
    ours, theirs = run(getattr(compiled, name), arguments), run(getattr(passes, name), arguments)
    for written, expected in theirs.items():
        finite = expected[np.isfinite(expected)]
        largest = max(1.0, float(np.abs(finite).max(initial=0.0)))
        np.testing.assert_allclose(ours[written], expected, rtol=TOLERANCE, atol=TOLERANCE * largest, err_msg=f"{name}: {written}")


sizes = st.sampled_from([1, 2, 3, 15, 16, 17, 63, 64, 65, 130])
counts = st.sampled_from([0, 1, 2, 5, 70])


@pytest.mark.parametrize("name", ROW_PASSES)
@given(data=st.data(), n=counts, d=sizes, drops=st.booleans())
def test_passes_over_rows(name: str, data: st.DataObject, n: int, d: int, drops: bool) -> None:
    compare(name, rows(generator(data.draw), n, d, drops=drops)[name])


@pytest.mark.parametrize("name", WEIGHT_PASSES)
@given(data=st.data(), n=st.integers(0, 3), queries=st.sampled_from([0, 1, 2, 9]), keys=sizes, drops=st.booleans())
def test_passes_over_weights(name: str, data: st.DataObject, n: int, queries: int, keys: int, drops: bool) -> None:
    compare(name, weights(generator(data.draw), n, queries, keys, drops=drops)[name])


@pytest.mark.parametrize("name", ["add_bias", "add_column_sums", "drop", "bias_gelu", "bias_gelu_pullback"])
def test_rows_without_width(name: str) -> None:
    compare(name, rows(np.random.default_rng(0), 3, 0, drops=True)[name])


def test_names_and_parameters_are_those_of_numpys_passes() -> None:
    def parameters(module: Any) -> dict[str, list[str]]:
        return {name: list(inspect.signature(getattr(module, name)).parameters) for name in (*ROW_PASSES, *WEIGHT_PASSES)}

    assert parameters(compiled) == parameters(passes)


def test_every_pass_is_compared() -> None:
    """The functions of `passes` that return nothing are the passes."""
    functions = {name: f for name, f in vars(passes).items() if inspect.isfunction(f) and not name.startswith("_")}
    found = [name for name, f in functions.items() if f.__annotations__.get("return") == "None"]
    assert sorted(found) == sorted([*ROW_PASSES, *WEIGHT_PASSES])


@pytest.mark.parametrize("name", [*ROW_PASSES, *WEIGHT_PASSES])
def test_a_planted_error_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One part in ten thousand, in any of the arrays that are written."""
    good = getattr(compiled, name)
    rng = np.random.default_rng(8)
    arguments = {**rows(rng, 5, 40, drops=True), **weights(rng, 2, 4, 40, drops=True)}[name]
    for written in WRITTEN[name]:

        @wraps(good)
        def bad(*given: Any, written: str = written) -> None:
            good(*given)
            given[[*arguments].index(written)][...] *= np.float32(1.0001)

        with monkeypatch.context() as patch:
            patch.setattr(compiled, name, bad)
            with pytest.raises(AssertionError, match=f"{name}: {written}"):
                compare(name, arguments)


# ---------------------------------------------------------------- numbers
ODD = [math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, -1e-40, 1e10, -1e10, 1e30, -1e30]


@pytest.mark.parametrize("name", ROW_PASSES)
@pytest.mark.parametrize("odd", ODD)
def test_odd_numbers_go_through_as_in_numpy(name: str, odd: float) -> None:
    """One such number among ordinary ones, in each of the arrays in turn."""
    for drops in (True, False):
        arguments = rows(np.random.default_rng(1), 4, 37, drops=drops)[name]
        for place in [place for place, a in arguments.items() if isinstance(a, np.ndarray) and a.dtype == np.float32]:
            planted = copied(arguments)
            planted[place].flat[planted[place].size // 2] = odd
            compare(name, planted)


@pytest.mark.parametrize("odd", ODD)
def test_odd_scores_go_through_as_in_numpy(odd: float) -> None:
    arguments = weights(np.random.default_rng(2), 2, 3, 21, drops=True)
    for keys in ([4], [0, 20], [*range(20)]):  # -inf in some places is a masked key
        for name, place in (("softmax_drop", "p"), ("softmax_drop_pullback", "ds"), ("softmax_drop_pullback", "dropped")):
            planted = copied(arguments[name])
            planted[place][1, 1, keys] = odd
            compare(name, planted)


@pytest.mark.parametrize("name", [*ROW_PASSES, *WEIGHT_PASSES])
def test_the_same_bits_every_time_and_at_any_address(name: str) -> None:
    """A sum along a row is made in the order that its length says, wherever the row lies in memory."""
    rng = np.random.default_rng(3)
    arguments = {**rows(rng, 9, 203, drops=True), **weights(rng, 2, 5, 77, drops=True)}[name]
    first = run(getattr(compiled, name), arguments)
    for offset in (0, 1, 4, 36):  # bytes; an odd one makes unaligned arrays
        moved = {}
        for place, a in arguments.items():
            moved[place] = a
            if isinstance(a, np.ndarray) and a.flags.c_contiguous:
                moved[place] = np.empty(a.nbytes + 64, np.uint8)[offset : offset + a.nbytes].view(a.dtype).reshape(a.shape)
                moved[place][...] = a
        with np.errstate(all="ignore"):
            getattr(compiled, name)(*moved.values())
        for written, expected in first.items():
            np.testing.assert_array_equal(moved[written], expected)


def test_no_loop_sums_while_it_writes_to_another_array() -> None:
    """Such a loop adds in one order where its arrays lie far apart and in another where they lie close together, by chance of the heap."""
    loops = [node for node in ast.walk(ast.parse(inspect.getsource(compiled))) if isinstance(node, ast.For)]
    sums = 0
    for loop in loops:
        parts = [*ast.walk(loop)]
        if any(part in loops for part in parts[1:]) or not any(isinstance(part, ast.Name) and part.id == "plus" for part in parts):
            continue
        arrays = [part for part in parts if isinstance(part, ast.Subscript)]
        names = {ast.unparse(array.value) for array in arrays}
        written = {ast.unparse(array.value) for array in arrays if isinstance(array.ctx, ast.Store)}
        assert not written or names == written, f"compiled.py, line {loop.lineno}"
        sums += 1
    assert sums >= 5


# ---------------------------------------------------------------- memory
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "columns first": lambda a: np.asfortranarray(a),
    "backwards": lambda a: a[::-1].copy()[::-1],
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "one row for all": lambda a: np.broadcast_to(a[:1], a.shape),
    "one number for all": lambda a: np.broadcast_to(a.flat[0], a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*ROW_PASSES, *WEIGHT_PASSES])
def test_what_is_only_read_may_have_any_layout(name: str, layout: str) -> None:
    rng = np.random.default_rng(4)
    arguments = {**rows(rng, 6, 19, drops=True), **weights(rng, 3, 4, 19, drops=True)}[name]
    for place, a in arguments.items():
        if isinstance(a, np.ndarray) and place not in WRITTEN[name]:
            view = LAYOUTS[layout](a)
            view.flags.writeable = False
            plain = {**arguments, place: np.ascontiguousarray(view)}
            ours = run(getattr(compiled, name), plain)
            theirs = copied(arguments)
            theirs[place] = view
            getattr(compiled, name)(*theirs.values())
            for written, expected in ours.items():
                np.testing.assert_array_equal(theirs[written], expected)


def test_one_array_under_two_names() -> None:
    rng = np.random.default_rng(5)
    arguments = rows(rng, 5, 70, drops=False)
    for name, source in (("drop", "x"), ("bias_gelu", "h")):
        expected = run(getattr(compiled, name), arguments[name])["out"]
        joined = copied(arguments[name])
        joined["out"] = joined[source]
        getattr(compiled, name)(*joined.values())
        np.testing.assert_array_equal(joined["out"], expected)


def test_the_later_queries_of_causal_attention() -> None:
    for drops in (True, False):
        whole = weights(np.random.default_rng(6), 3, 5, 9, drops=drops)["softmax_drop"]
        part = copied(whole)
        view = {**part, "p": part["p"][:, 2:], "dropped": part["dropped"][:, 2:]}
        if drops:
            view["survives"] = part["survives"][:, 2:]
        compiled.softmax_drop(*view.values())
        expected = run(compiled.softmax_drop, whole)
        for written in expected:
            np.testing.assert_array_equal(part[written][:, 2:], expected[written][:, 2:])
            np.testing.assert_array_equal(part[written][:, :2], whole[written][:, :2])


@pytest.mark.parametrize("name", [*ROW_PASSES, *WEIGHT_PASSES])
def test_arrays_that_do_not_fit_together_are_refused(name: str) -> None:
    """Compiled code would read or write past their ends."""
    rng = np.random.default_rng(7)
    arguments = {**rows(rng, 3, 4, drops=True), **weights(rng, 2, 3, 4, drops=True)}[name]
    for place, a in [*arguments.items()][1:]:
        if isinstance(a, np.ndarray):
            with pytest.raises(ValueError, match=f"{place} has shape|broadcast"):
                getattr(compiled, name)(*{**arguments, place: a[..., :-1].copy()}.values())


# ---------------------------------------------------------------- Adam
@given(
    data=st.data(), size=st.integers(0, 100), l2=st.sampled_from([0.0, 0.01]), decay=st.sampled_from([1.0, 0.99]), steps=st.integers(1, 4)
)
def test_adam_makes_the_same_numbers_as_the_body(data: st.DataObject, size: int, l2: float, decay: float, steps: int) -> None:
    """To the last bit, over blocks of any size, with moments that underflow and gradients that are not finite."""
    rng = generator(data.draw)
    scales = np.float32(10.0) ** rng.integers(-30, 10, size).astype(np.float32)
    p, m = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    v = np.abs(rng.standard_normal(size)).astype(np.float32)
    theirs, ours = (p, m, v), (p.copy(), m.copy(), v.copy())
    constants = {"beta1": 0.9, "beta2": 0.999, "size": 1e-3, "eps": 1e-8, "l2": l2, "decay": decay}
    block = data.draw(st.integers(1, 100))
    for _ in range(3):
        g = rng.standard_normal(size).astype(np.float32) * scales
        g[: size // 10] = data.draw(st.sampled_from(ODD))
        with np.errstate(all="ignore"):
            adam.body(np, theirs[0], g, theirs[1:], (np.empty_like(g), np.empty_like(g)), **constants)
        for start in range(0, size, block):
            part = slice(start, start + block)
            compiled.adam(ours[0][part], g[part], ours[1][part], ours[2][part], *constants.values())
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_everything_can_be_compiled_ahead() -> None:
    """What `prepare` names is all that is compiled at a first call."""
    found = {name for name, value in vars(compiled).items() if hasattr(value, "compile_now") and value.__module__ == compiled.__name__}
    assert {function.__name__ for function in compiled._FORWARD + compiled._TRAINING} == found
    compiled.prepare(training=True)
