"""The embedding layer of an encoder as one operation: rows of several tables, summed and normalised.

As in `blocks.py`, the body runs the operations that it consists of; it exists for backends that can optimise the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrad.backend import Array
from minigrad.backend.random import Draw
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import op
from minigrad.ops.dense import dropout_mask
from minigrad.ops.index import embedding
from minigrad.ops.normalisation import layer_norm


@op("d, d, (v d)*, (n:int<v)* -> n d")
def embed_norm(
    xp: Any,
    gamma: Array,
    beta: Array,
    *parts: Array,
    untrained: Sequence[int | None],
    draw: Draw | None = None,
    eps: float = 1e-12,
    keep: bool = True,
) -> Any:
    """dropout(layer_norm(table₁[ids₁] + table₂[ids₂] + …)). parts: all tables, then the ids for each.

    untrained: for each table the row that receives no gradient, or None. draw: dropout of the result.
    Raises: ArgumentError unless every table has ids; ShapeError for ids of different shapes; IndexRangeError for an id outside its table.
    """
    count = len(untrained)
    if not 0 < 2 * count == len(parts):
        raise ArgumentError(f"embed_norm: {len(parts)} tables and arrays of ids for {count} untrained rows; pass one of each per table")
    if len(shapes := {tuple(ids.shape) for ids in parts[count:]}) > 1:
        raise ShapeError(f"embed_norm: the ids of all tables have one shape, these have {', '.join(map(str, sorted(shapes)))}")
    x, through_tables = None, []
    for table, ids, row in zip(parts[:count], parts[count:], untrained, strict=True):
        rows, (through_table, _) = embedding.run(xp, (table, ids), {"padding_idx": row}, keep=keep)
        x = rows if x is None else x + rows
        through_tables.append(through_table)
    y, through_norm = layer_norm.run(xp, (x, gamma, beta), {"eps": eps}, keep=keep)
    mask = None if draw is None else dropout_mask(xp, draw, y)

    def pullback(g: Array) -> Any:
        dx, dgamma, dbeta = through_norm(g if mask is None else g * mask)
        return dgamma, dbeta, *[through(dx) for through in through_tables], *[None] * count

    return y if mask is None else y * mask, pullback
