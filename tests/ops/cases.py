"""One row per operation of the registry: how to draw arrays and constants for it, with every number away from kinks.

`test_gradients.py` and `test_contract.py` run over these rows. An operation without a row fails the suite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import arrays, axes, broadcastable, generator, packings, pair_draws, row_draws, shapes

from minigrad.packing import Packing


@dataclass(frozen=True)
class Sample:
    """Positional arguments and constants of one call. Floating arrays are the inputs whose gradient is checked."""

    args: tuple[Any, ...]
    constants: dict[str, Any]

    @property
    def floating(self) -> list[int]:
        """The positions of the differentiable arguments."""
        return [i for i, a in enumerate(self.args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]

    def with_args(self, args: Any) -> Sample:
        return replace(self, args=tuple(args))

    def in_float32(self) -> Sample:
        """The same call in float32."""
        args = [a.astype(np.float32) if i in self.floating else a for i, a in enumerate(self.args)]
        return Sample(tuple(args), self.constants | ({"dtype": np.dtype("float32")} if "dtype" in self.constants else {}))


CASES: dict[str, st.SearchStrategy[Sample]] = {}


def case(function: Any) -> Any:
    """Register a composite strategy as the row of the operation it is named after."""
    strategy = st.composite(function)()
    CASES[function.__name__.rstrip("_")] = strategy
    return strategy


# ---------------------------------------------------------------- elementwise
def _unary(name: str, domain: str = "real") -> None:
    CASES[name] = arrays(shapes(), domain).map(lambda x: Sample((x,), {}))


for _name in ("negative", "exp", "tanh", "sigmoid", "erf", "erfc"):
    _unary(_name)
for _name, _domain in (("absolute", "nonzero"), ("relu", "nonzero"), ("log", "positive"), ("sqrt", "positive")):
    _unary(_name, _domain)


def _binary(name: str, left: str, right: str, numbers: tuple[Any, ...]) -> None:
    """Two arrays that broadcast, or an array and one of `numbers` (allowed on the right, and if not 0 on the left)."""

    @st.composite
    def sample(draw: Any) -> Sample:
        a, b = draw(broadcastable(2))
        if draw(st.integers(0, 3)):
            return Sample((draw(arrays(a, left)), draw(arrays(b, right))), {})
        number = draw(st.sampled_from(numbers))
        return Sample((draw(arrays(a, left)), number) if draw(st.booleans()) or number == 0 else (number, draw(arrays(a, right))), {})

    CASES[name] = sample()


_binary("add", "real", "real", (0, 2, -1.5))
_binary("subtract", "real", "real", (0, 2, -1.5))
_binary("multiply", "real", "real", (0, 2, -1.5))
_binary("divide", "real", "nonzero", (2, -1.5))
_binary("maximum", "tenths", "between tenths", (0.28, -0.72))
_binary("minimum", "tenths", "between tenths", (0.28, -0.72))


@case
def power(draw: Any) -> Sample:
    a, b = draw(broadcastable(2))
    how = draw(st.sampled_from(["both", "number exponent", "integer exponents", "number base"]))
    if how == "both":
        return Sample((draw(arrays(a, "positive")), draw(arrays(b))), {})
    if how == "number base":
        return Sample((draw(st.sampled_from([2, 0.5, 1.0])), draw(arrays(a))), {})
    if how == "integer exponents":  # any base, and 0 among the exponents
        return Sample((draw(arrays(a, "nonzero")), generator(draw).integers(-1, 4, b)), {})
    exponent = draw(st.sampled_from([0, 1, 2, 3, 2.0, -1, -0.5, 1.5]))
    return Sample((draw(arrays(a, "real" if exponent in (0, 1, 2, 3) else "positive")), exponent), {})


@case
def where(draw: Any) -> Sample:
    c, a, b = draw(broadcastable(3))
    x: Any = draw(arrays(a))
    y: Any = draw(arrays(b))
    if draw(st.integers(0, 3)) == 0:
        x, y = draw(st.sampled_from([(x, 0.0), (1.5, y)]))
    return Sample((generator(draw).random(c) < 0.5, x, y), {})


CASES["astype"] = arrays(shapes()).map(lambda x: Sample((x,), {"dtype": np.dtype("float64")}))
CASES["transfer"] = arrays(shapes()).map(lambda x: Sample((x,), {"device": "cpu"}))


# ---------------------------------------------------------------- reductions
def _reduction(name: str, domain: str, least: int) -> None:
    """Axes over which at least `least` elements are reduced."""

    @st.composite
    def sample(draw: Any) -> Sample:
        shape = draw(shapes() if draw(st.booleans()) or not least else shapes(min_side=1))
        axis = draw(axes(len(shape), lambda reduced: prod(shape[i] for i in reduced) >= least))
        constants = {"axis": axis, "keepdims": draw(st.booleans())}
        if name == "var":
            count = prod(shape) if axis is None else prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))
            constants["ddof"] = draw(st.integers(0, min(count - 1, 2)))
        return Sample((draw(arrays(shape, domain)),), constants)

    CASES[name] = sample()


_reduction("sum", "real", 0)
_reduction("mean", "real", 1)
_reduction("var", "real", 1)
_reduction("max", "distinct", 1)
_reduction("min", "distinct", 1)


@st.composite
def _along_axis(draw: Any) -> tuple[np.ndarray, int]:
    """An array and one of its axes that is not empty."""
    shape = draw(shapes(min_dims=1).filter(any))
    axis = draw(st.sampled_from([i for i, n in enumerate(shape) if n]))
    return draw(arrays(shape)), axis - len(shape) if draw(st.booleans()) else axis


@case
def logsumexp(draw: Any) -> Sample:
    x, axis = draw(_along_axis())
    return Sample((x,), {"axis": axis, "keepdims": draw(st.booleans())})


@case
def log_softmax(draw: Any) -> Sample:
    x, axis = draw(_along_axis())
    return Sample((x,), {"axis": axis})


@case
def softmax(draw: Any) -> Sample:
    x, axis = draw(_along_axis())
    mask = generator(draw).random(x.shape) < draw(st.sampled_from([0.3, 0.8])) if draw(st.booleans()) else None
    return Sample((x, mask), {"axis": axis})


# ---------------------------------------------------------------- shape
@case
def reshape(draw: Any) -> Sample:
    x = draw(arrays(shapes()))
    sides = list(draw(st.permutations(x.shape)))
    if len(sides) > 1 and draw(st.booleans()):
        sides[:2] = [sides[0] * sides[1]]
    if x.size and sides and draw(st.booleans()):
        sides[draw(st.integers(0, len(sides) - 1))] = -1
    return Sample((x,), {"shape": tuple(sides)})


@case
def transpose(draw: Any) -> Sample:
    x = draw(arrays(shapes()))
    order = draw(st.permutations(range(x.ndim)))
    return Sample((x,), {"axes": tuple(i - x.ndim if draw(st.booleans()) else i for i in order)})


@case
def swapaxes(draw: Any) -> Sample:
    x = draw(arrays(shapes(min_dims=1)))
    axis = st.integers(-x.ndim, x.ndim - 1)
    return Sample((x,), {"a": draw(axis), "b": draw(axis)})


@case
def broadcast_to(draw: Any) -> Sample:
    part, whole = draw(broadcastable(2))
    return Sample((draw(arrays(part)),), {"shape": np.broadcast_shapes(part, whole)})


@case
def concatenate(draw: Any) -> Sample:
    shape = draw(shapes(min_dims=1, max_size=12))
    axis = draw(st.integers(0, len(shape) - 1))
    sides = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = [draw(arrays((*shape[:axis], n, *shape[axis + 1 :]))) for n in sides]
    return Sample(tuple(parts), {"axis": axis - len(shape) if draw(st.booleans()) else axis})


# ---------------------------------------------------------------- indexing
@st.composite
def _keys(draw: Any, shape: tuple[int, ...]) -> Any:
    """Basic indices, integer arrays with repetitions and negative places, masks, and mixtures of them."""
    kinds = ["basic", "mask"]
    if shape and all(shape):
        kinds += ["integers", "first axis", "mixed"]
    kind = draw(st.sampled_from(kinds))
    if kind == "basic":
        return draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    if kind == "mask":
        return generator(draw).random(shape[: draw(st.integers(0, len(shape)))]) < 0.5
    if kind == "integers":
        return draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=3)))
    rows = generator(draw).integers(-shape[0], shape[0], draw(st.integers(0, 4)))
    if kind == "first axis":
        return rows
    return draw(
        st.sampled_from(
            [(rows, None), (rows, ...), (..., rows % shape[-1]), (slice(None, None, -1), ..., rows % shape[-1])][
                : 4 if len(shape) > 1 else 3
            ]
        )
    )


@case
def getitem(draw: Any) -> Sample:
    x = draw(arrays(shapes()))
    return Sample((x,), {"key": draw(_keys(x.shape))})


@case
def zeros_at(draw: Any) -> Sample:
    shape = draw(shapes())
    key = draw(_keys(shape))
    return Sample((draw(arrays(np.zeros(shape)[key].shape)),), {"key": key, "shape": shape})


@case
def embedding(draw: Any) -> Sample:
    rows, width = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    ids = generator(draw).integers(0, rows, draw(shapes(max_dims=3, max_size=8)))
    return Sample((draw(arrays((rows, width))), ids), {})


@case
def take_rows(draw: Any) -> Sample:
    count, width = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    return Sample((draw(arrays((count, width))), generator(draw).permutation(count)[: draw(st.integers(0, count))]), {})


@case
def put_rows(draw: Any) -> Sample:
    count, width = draw(st.integers(0, 5)), draw(st.integers(0, 3))
    rows = generator(draw).permutation(count)[: draw(st.integers(0, count))]
    return Sample((draw(arrays((len(rows), width))), rows), {"count": count})


# ---------------------------------------------------------------- matrix products
@case
def matmul(draw: Any) -> Sample:
    m, k, n = (draw(st.integers(0, 3)) for _ in range(3))
    left, right = draw(broadcastable(2, max_dims=2, max_side=3))
    a = (k,) if draw(st.booleans()) and draw(st.booleans()) else (*left, m, k)
    b = (k,) if draw(st.booleans()) and draw(st.booleans()) else (*right, k, n)
    return Sample((draw(arrays(a)), draw(arrays(b))), {})


@case
def linear(draw: Any) -> Sample:
    k, m = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    lead = draw(shapes(max_dims=3, max_size=8))
    bias = draw(arrays((m,))) if draw(st.booleans()) else None
    return Sample((draw(arrays((*lead, k))), draw(arrays((m, k))), bias), {})


@case
def linears(draw: Any) -> Sample:
    n, k = draw(st.integers(0, 4)), draw(st.integers(1, 4))
    sides = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    return Sample((draw(arrays((n, k))), *[draw(arrays((m, k))) for m in sides], *[draw(arrays((m,))) for m in sides]), {})


# ---------------------------------------------------------------- building blocks
epsilons = st.sampled_from([1e-12, 1e-5, 0.1])
forms = st.sampled_from(["none", "tanh"])


@case
def layer_norm(draw: Any) -> Sample:
    d = draw(st.integers(1, 5))
    lead = draw(shapes(max_dims=3, max_size=6))
    return Sample((draw(arrays((*lead, d), "distinct")), draw(arrays((d,))), draw(arrays((d,)))), {"eps": draw(epsilons)})


@case
def gelu(draw: Any) -> Sample:
    return Sample((draw(arrays(shapes())),), {"approximate": draw(forms)})


@case
def cross_entropy(draw: Any) -> Sample:
    n, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng, ignored = generator(draw), draw(st.sampled_from([-100, -1, 0]))
    labels = rng.integers(0, classes, n)
    labels[rng.random(n) < 0.3] = ignored
    denominator = draw(st.sampled_from([None, 1, 7]))
    if (labels == ignored).all() and denominator is None:  # the loss of no label is NaN: a test of its own
        denominator = 2
    constants = {"ignore_index": ignored, "label_smoothing": draw(st.sampled_from([0.0, 0.1])), "denominator": denominator}
    return Sample((draw(arrays((n, classes))), labels), constants)


@case
def dropout(draw: Any) -> Sample:
    packing, width = draw(packings()), draw(st.integers(1, 4))
    lead = draw(st.sampled_from([(packing.rows,), (1, packing.rows), (packing.rows, 1)]))
    return Sample((draw(arrays((*lead, width))),), {"draw": draw(row_draws(packing, width))})


@case
def dense_gelu(draw: Any) -> Sample:
    n, k, m = draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return Sample((draw(arrays((n, k))), draw(arrays((m, k))), draw(arrays((m,)))), {"approximate": draw(forms)})


@case
def dense_add_norm(draw: Any) -> Sample:
    packing, k, d = draw(packings()), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    n = packing.rows
    recipe = draw(row_draws(packing, d)) if draw(st.booleans()) else None
    # The residual's numbers lie far enough apart that no row comes close to constant, where the derivative explodes.
    parts = [((n, k), "small"), ((d, k), "small"), ((d,), "small"), ((n, d), "distinct"), ((d,), "real"), ((d,), "real")]
    args = [draw(arrays(shape, domain)) for shape, domain in parts]
    args[3] = args[3] * 4.0
    return Sample(tuple(args), {"draw": recipe, "eps": draw(epsilons)})


@case
def attention(draw: Any) -> Sample:
    packing, heads, d = draw(packings()), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    form = draw(st.sampled_from(["q in kv", "all rows", "first rows"]))
    asking: Packing = packing.first if form == "first rows" else packing
    constants = {
        "packing": packing,
        "queries": asking if form == "first rows" or draw(st.booleans()) else None,
        "heads": heads,
        "draw": draw(pair_draws(asking, packing, heads)) if draw(st.booleans()) else None,
    }
    if form == "q in kv":
        return Sample((None, draw(arrays((packing.rows, 3 * heads * d)))), constants)
    return Sample((draw(arrays((asking.rows, heads * d))), draw(arrays((packing.rows, 2 * heads * d)))), constants)
