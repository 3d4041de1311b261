"""Rows of the building blocks: `ops/normalisation.py`, `ops/dense.py`, `ops/attention.py`, `ops/blocks.py`, `ops/embeddings.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from ops.cases.base import Sample, case
from strategies import arrays, generator, packings, pair_draws, row_draws, shapes

from minigrad.op import REGISTRY
from minigrad.packing import Packing

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
def dropout(draw: Any) -> Sample:
    packing, width = draw(packings()), draw(st.integers(1, 4))
    lead = draw(st.sampled_from([(packing.rows,), (1, packing.rows), (packing.rows, 1)]))
    return Sample((draw(arrays((*lead, width))),), {"draw": draw(row_draws(packing, width))})


@case
def dense_gelu(draw: Any) -> Sample:
    n, k, m = draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return Sample((draw(arrays((n, k))), draw(arrays((m, k))), draw(arrays((m,)))), {"approximate": draw(forms)})


@case
def dense_tanh(draw: Any) -> Sample:
    n, k, m = draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return Sample((draw(arrays((n, k))), draw(arrays((m, k))), draw(arrays((m,)))), {})


@case
def dense_add_norm(draw: Any) -> Sample:
    packing, k, d = draw(packings()), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    n = packing.rows
    recipe = draw(row_draws(packing, d)) if draw(st.booleans()) else None
    parts = [((n, k), "small"), ((d, k), "small"), ((d,), "small"), ((n, d), "distinct"), ((d,), "real"), ((d,), "real")]
    args = [draw(arrays(shape, domain)) for shape, domain in parts]
    args[3] = args[3] * 4.0
    return _of_rows_that_vary("dense_add_norm", tuple(args), {"draw": recipe, "eps": draw(epsilons)}, gamma=4)


def _of_rows_that_vary(name: str, args: tuple[Any, ...], constants: dict[str, Any], gamma: int) -> Sample:
    """Reject a sample in which a normalised row is nearly constant: derivatives explode there. gamma: its position, before beta's.

    A row of variance v comes out with the mean square v / (v + eps). Rows of a single number are constant, with derivative 0.
    """
    plain = [np.ones_like(a) if i == gamma else np.zeros_like(a) if i == gamma + 1 else a for i, a in enumerate(args)]
    rows = REGISTRY[name](*plain, **constants | {"eps": 1.0}).numpy()
    assume(rows.shape[-1] == 1 or (np.square(rows).mean(axis=-1) > 0.05).all())
    return Sample(args, constants)


def _of_block(draw: Any, n: int, d: int, *inner: tuple[int, ...]) -> tuple[Any, ...]:
    """x, parameters of these shapes, then gamma and beta. The numbers of x are far apart, so that few samples have nearly constant rows."""
    small = [draw(arrays(shape, "small")) for shape in inner]
    return draw(arrays((n, d), "distinct")) * 4.0, *small, draw(arrays((d,))), draw(arrays((d,)))


@case
def feed_forward(draw: Any) -> Sample:
    packing, d, m = draw(packings()), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    recipe = draw(row_draws(packing, d)) if draw(st.booleans()) else None
    args = _of_block(draw, packing.rows, d, (m, d), (m,), (d, m), (d,))
    return _of_rows_that_vary("feed_forward", args, {"approximate": draw(forms), "draw": recipe, "eps": draw(epsilons)}, gamma=5)


@case
def attention_block(draw: Any) -> Sample:
    packing, heads, d = draw(packings()), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    h, first_only = heads * draw(st.integers(1, 2)), draw(st.booleans())
    asking: Packing = packing.first if first_only else packing
    constants = {
        "packing": packing,
        "first_only": first_only,
        "heads": heads,
        "mixing": draw(pair_draws(asking, packing, heads)) if draw(st.booleans()) else None,
        "draw": draw(row_draws(asking, d)) if draw(st.booleans()) else None,
        "causal": not first_only and draw(st.booleans()),
        "eps": draw(epsilons),
    }
    x, queries, keys, *others = _of_block(draw, packing.rows, d, *[(h, d)] * 3, *[(h,)] * 3, (d, h), (d,))
    args = x, 0.2 * queries, 0.2 * keys, *others  # large scores would bend more than second differences follow
    return _of_rows_that_vary("attention_block", args, constants, gamma=9)


@case
def embed_norm(draw: Any) -> Sample:
    """The numbers of the first table are far apart, as in `_of_block`; no untrained row is read, because it has no gradient to compare."""
    packing, d, count = draw(packings()), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rows, heights = generator(draw), [draw(st.integers(1, 4)) for _ in range(count)]
    ids = [rows.integers(0, height, packing.rows) for height in heights]
    unused = [sorted(set(range(height)) - set(places.tolist())) for height, places in zip(heights, ids, strict=True)]
    tables = [draw(arrays((height, d), "small")) for height in heights[1:]]
    constants = {
        "untrained": tuple(draw(st.sampled_from([None, *rest])) for rest in unused),
        "draw": draw(row_draws(packing, d)) if draw(st.booleans()) else None,
        "eps": draw(epsilons),
    }
    first = draw(arrays((heights[0], d), "distinct")) * 4.0
    args = (draw(arrays((d,))), draw(arrays((d,))), first, *tables, *ids)
    _of_rows_that_vary("embed_norm", args, constants | {"draw": None}, gamma=0)
    return Sample(args, constants)


@case
def attention(draw: Any) -> Sample:
    packing, heads, d = draw(packings()), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    form = draw(st.sampled_from(["q in kv", "all rows", "first rows", "other rows"]))
    asking: Packing = packing.first if form == "first rows" else packing
    if form == "other rows":  # fewer or more queries than keys
        asking = Packing(draw(st.lists(st.integers(1, 4), min_size=len(packing), max_size=len(packing))), packing.numbers)
    constants = {
        "packing": packing,
        "queries": asking if asking is not packing or draw(st.booleans()) else None,
        "heads": heads,
        "causal": draw(st.booleans()),
        "draw": draw(pair_draws(asking, packing, heads)) if draw(st.booleans()) else None,
    }
    if form == "q in kv":
        return Sample((None, draw(arrays((packing.rows, 3 * heads * d)))), constants)
    return Sample((draw(arrays((asking.rows, heads * d))), draw(arrays((packing.rows, 2 * heads * d)))), constants)


@case
def scaled_dot_product_attention(draw: Any) -> Sample:
    lead = draw(shapes(max_dims=2, max_side=2))
    queries, keys, d, width = (draw(st.integers(1, 3)) for _ in range(4))
    mask = generator(draw).random((queries, keys)) < 0.6 if draw(st.booleans()) else None
    q, k, v = (draw(arrays((*lead, n, m))) for n, m in ((queries, d), (keys, d), (keys, width)))
    return Sample((q, k, v), {"mask": mask, "causal": draw(st.booleans())})
