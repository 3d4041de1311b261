"""Einstein summation, composed of transpose, sum, multiply and (batched) matmul.

Every axis of an operand has a label. A label that occurs in only one operand and not in the result is summed first. For two operands the
other labels fall into four groups, by where they occur:

    batch        x, y and the result        rows        x and the result
    contracted   x and y only               columns     y and the result

so that the product is the matmul of x as (*batch, rows, contracted) and y as (*batch, contracted, columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.op import composite
from minigrad.ops.linalg import matmul
from minigrad.ops.shape import moveaxis, transpose
from minigrad.tensor import Tensor, TensorLike, as_tensors

Labels = list[str]
"""One letter per axis; the axes under an ellipsis are labelled "-1", "-2", … from the last one backwards."""


@composite("spec, *s, *t -> *u")
def einsum(spec: str, *operands: TensorLike) -> Tensor:
    """The sum of products that `spec` describes for one or two operands: "ij,jk->ik", "...ij->...ji", "ii".

    Without "->" the result has the ellipsis and then every letter that occurs once, in alphabetical order. A letter that occurs twice in
    one operand selects the diagonal; axes of length 1 broadcast.
    Raises: ArgumentError for an invalid spec or one with another number of operands; ShapeError if the lengths of axes do not fit;
    DTypeError for a spec that is not a string.
    """
    if not isinstance(spec, str):
        raise DTypeError(f'einsum: the first argument is a string such as "ij,jk->ik", got {type(spec).__name__}')
    inputs, arrow, result = spec.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands) or len(terms) > 2:
        raise ArgumentError(f"einsum({spec!r}): the spec names {len(terms)} operands, given are {len(operands)}; it takes one or two")
    tensors = as_tensors(*operands)
    named = [_input_labels(spec, term, x) for term, x in zip(terms, tensors, strict=True)]
    out = _output_labels(spec, result, named) if arrow else _implied_labels(named)
    parts = [_diagonal(spec, x, labels) for x, labels in zip(tensors, named, strict=True)]
    if len(parts) == 2:
        parts = _broadcast(spec, *parts[0], *parts[1])
    elsewhere = [parts[1][1], parts[0][1]] if len(parts) == 2 else [[]]
    parts = [_summed(x, labels, {*out, *others}) for (x, labels), others in zip(parts, elsewhere, strict=True)]
    x, labels = parts[0] if len(parts) == 1 else _product(*parts[0], *parts[1], out)
    return _ordered(x, labels, out)


# ---------------------------------------------------------------- reading the spec
def _letters(spec: str, term: str) -> tuple[str, bool, str]:
    """The letters before the ellipsis, whether there is one, and the letters after it."""
    head, dots, tail = term.partition("...")
    if not all(letter.isascii() and letter.isalpha() for letter in head + tail):
        raise ArgumentError(f"einsum({spec!r}): {term!r} is not made of letters and at most one ellipsis '...'")
    return head, bool(dots), tail


def _input_labels(spec: str, term: str, x: Tensor) -> Labels:
    head, dots, tail = _letters(spec, term)
    extra = x.ndim - len(head) - len(tail)
    if extra < 0 or (extra and not dots):
        raise ShapeError(f"einsum({spec!r}): {term!r} does not fit an operand of shape {x.shape}")
    return [*head, *_dotted(extra), *tail]


def _dotted(count: int) -> Labels:
    return [str(place) for place in range(-count, 0)]


def _hidden(named: list[Labels]) -> int:
    """How many axes of the result the operands' ellipses account for."""
    return max(sum(not label.isalpha() for label in labels) for labels in named)


def _output_labels(spec: str, term: str, named: list[Labels]) -> Labels:
    head, dots, tail = _letters(spec, term)
    hidden = _hidden(named)
    if hidden and not dots:
        raise ShapeError(f"einsum({spec!r}): the result needs an ellipsis '...' for the axes that the operands' ellipses stand for")
    out = [*head, *_dotted(hidden), *tail]
    for label in out:
        if label.isalpha() and not any(label in labels for labels in named):
            raise ArgumentError(f"einsum({spec!r}): no operand has the label {label!r} of the result")
        if out.count(label) > 1:
            raise ArgumentError(f"einsum({spec!r}): the result names {label!r} twice")
    return out


def _implied_labels(named: list[Labels]) -> Labels:
    every = [label for labels in named for label in labels if label.isalpha()]
    return [*_dotted(_hidden(named)), *sorted(label for label in every if every.count(label) == 1)]


# ---------------------------------------------------------------- one operand
def _diagonal(spec: str, x: Tensor, labels: Labels) -> tuple[Tensor, Labels]:
    """x without repeated labels: two axes with the same label are replaced by their diagonal, every (n + 1)th of the n · n elements."""
    while len(set(labels)) < len(labels):
        label = next(label for label in labels if labels.count(label) > 1)
        first = labels.index(label)
        second = labels.index(label, first + 1)
        n, m = x.shape[first], x.shape[second]
        if n != m:
            raise ShapeError(f"einsum({spec!r}): label {label!r} has lengths {n} and {m} in one operand")
        square = moveaxis(x, (first, second), (0, 1))
        x = square.reshape((n * n, *square.shape[2:]))[:: n + 1]
        labels = [label, *(other for place, other in enumerate(labels) if place not in (first, second))]
    return x, labels


def _summed(x: Tensor, labels: Labels, wanted: set[str]) -> tuple[Tensor, Labels]:
    """x summed over the labels that are not in `wanted`, in x's dtype."""
    places = tuple(place for place, label in enumerate(labels) if label not in wanted)
    if not places:
        return x, labels
    return x.sum(axis=places).astype(x.dtype), [label for label in labels if label in wanted]


def _ordered(x: Tensor, labels: Labels, order: Sequence[str], shape: tuple[int, ...] | None = None) -> Tensor:
    """x with its axes in the order of `order`, then reshaped to `shape`; steps that change nothing are skipped."""
    if labels != list(order):
        x = transpose(x, axes=tuple(labels.index(label) for label in order))
    return x if shape is None or shape == x.shape else x.reshape(shape)


# ---------------------------------------------------------------- two operands
def _broadcast(spec: str, x: Tensor, x_labels: Labels, y: Tensor, y_labels: Labels) -> list[tuple[Tensor, Labels]]:
    """Both operands, without those axes of length 1 that are longer in the other operand: the product broadcasts over them anyway."""
    x_sides, y_sides = dict(zip(x_labels, x.shape, strict=True)), dict(zip(y_labels, y.shape, strict=True))
    parts = []
    for tensor, sides, others in ((x, x_sides, y_sides), (y, y_sides, x_sides)):
        for label, n in sides.items():
            if others.get(label, n) != n and 1 not in (n, others[label]):
                lengths = f"{x_sides[label]} and {y_sides[label]}"
                raise ShapeError(f"einsum({spec!r}): label {label!r} has lengths {lengths} (shapes {x.shape} and {y.shape})")
        kept = [label for label, n in sides.items() if n != 1 or others.get(label, 1) == 1]
        shape = tuple(sides[label] for label in kept)
        parts.append((tensor if shape == tensor.shape else tensor.reshape(shape), kept))
    return parts


def _product(x: Tensor, x_labels: Labels, y: Tensor, y_labels: Labels, out: Labels) -> tuple[Tensor, Labels]:
    """Both operands multiplied and summed over the labels that are not in the result."""
    sides = dict(zip(x_labels + y_labels, x.shape + y.shape, strict=True))

    def shape(labels: Labels) -> tuple[int, ...]:
        return tuple(sides[label] for label in labels)

    batch = [label for label in x_labels if label in y_labels and label in out]
    contracted = [label for label in x_labels if label in y_labels and label not in out]
    rows = [label for label in x_labels if label not in y_labels]
    columns = [label for label in y_labels if label not in x_labels]
    if not contracted:
        left = _ordered(x, x_labels, batch + rows, (*shape(batch), *shape(rows), *(1,) * len(columns)))
        right = _ordered(y, y_labels, batch + columns, (*shape(batch), *(1,) * len(rows), *shape(columns)))
        return left * right, batch + rows + columns
    m, k, n = (prod(shape(labels)) for labels in (rows, contracted, columns))
    left = _ordered(x, x_labels, batch + rows + contracted, (*shape(batch), m, k))
    right = _ordered(y, y_labels, batch + contracted + columns, (*shape(batch), k, n))
    return matmul(left, right).reshape((*shape(batch), *shape(rows), *shape(columns))), batch + rows + columns
