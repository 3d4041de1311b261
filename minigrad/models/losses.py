"""Losses of the heads of any family: those of the published models, over real tokens only.

Padding is never computed, so it cannot have a label: where a published model would count a label at padding, there is an error, and
where it would count padding as a possible answer, that is left out.
"""

from __future__ import annotations

from math import inf
from numbers import Real
from typing import Any

from minigrad import functional as F
from minigrad.backend import to_number
from minigrad.errors import ArgumentError, IndexRangeError, ShapeError
from minigrad.models.config import PretrainedConfig
from minigrad.ops.loss_arguments import IGNORED as IGNORED
from minigrad.packing import IntArray, PackedTokens, host_array
from minigrad.tensor import Tensor, TensorLike


def sequence_loss(config: PretrainedConfig, logits: Tensor, labels: TensorLike) -> Tensor:
    """The loss that `problem_type` asks for; if that is unset, the configuration's number of labels and the dtype of `labels` decide.

    One label: a regression (mean squared error). Several: class indices (cross-entropy, -100 ignored), or, for floats of the logits'
    shape, multi-label classification (binary cross-entropy). Shapes: logits (batch, labels).
    Raises: ArgumentError for integer labels when only the number of labels makes it a regression, since a single class is more likely a
    mistake in the data; ShapeError for labels of another shape; IndexRangeError for a label that is no class, or outside 0..1.
    """
    given = labels if isinstance(labels, Tensor) else Tensor(labels)
    kind = config.problem_type
    if kind is None and config.num_labels == 1:
        if given.dtype.kind != "f":
            raise ArgumentError(
                "this model has one label, which makes it a regression, but the labels are integers: for a regression pass floats or set "
                'problem_type="regression"; for classes the configuration needs two labels or more'
            )
        kind = "regression"
    elif kind is None and given.dtype.kind == "f" and given.shape == logits.shape:
        kind = "multi_label_classification"
    if kind not in ("regression", "multi_label_classification"):
        return F.cross_entropy(logits, labels)
    wanted = Tensor(labels, dtype=logits.dtype, device=logits.device)
    if wanted.shape != logits.shape and not (logits.shape[1] == 1 and wanted.shape == logits.shape[:1]):
        what = "a regression" if kind == "regression" else "several classes at once"
        raise ShapeError(f"the labels of {what} have shape {wanted.shape}, the logits {logits.shape}: they must be equal")
    wanted = wanted.reshape(logits.shape)
    if kind != "regression" and not to_number(((given.array >= 0) & (given.array <= 1)).all()):
        raise IndexRangeError(f"the labels of several classes at once are 0 (no) to 1 (yes) for each; {IGNORED} has no meaning among them")
    return F.mse_loss(logits, wanted) if kind == "regression" else F.bce_with_logits(logits, wanted)


def token_labels(labels: Any, tokens: PackedTokens, classes: int) -> IntArray:
    """One label for each packed row. Shapes: labels (batch, longest) for padded tokens, (rows,) for packed ones → (rows,).

    Raises: ShapeError; DTypeError; IndexRangeError for a label outside 0..classes-1, ArgumentError for a label of padding, both naming
    the place.
    """
    given = host_array("labels", labels)
    wanted = tokens.padded_shape or (tokens.packing.rows,)
    if given.shape != wanted:
        raise ShapeError(f"labels have shape {given.shape}, the tokens {wanted}: every token needs one ({IGNORED} to be ignored)")
    wrong = (given != IGNORED) & ((given < 0) | (given >= classes))
    if wrong.any():
        raise IndexRangeError(f"labels hold {int(given[wrong][0])} at {_position(wrong)}, this head knows 0..{classes - 1} and {IGNORED}")
    if tokens.padded_shape is None:
        return given
    real, places = tokens.padded_rows()
    left = given.reshape(-1).copy()
    left[places] = IGNORED
    if (left != IGNORED).any():
        raise ArgumentError(
            f"labels hold {int(left[left != IGNORED][0])} at {_position(left.reshape(wanted) != IGNORED)}, where attention_mask says "
            f"padding: labels of padding must be {IGNORED}"
        )
    found = tokens.input_ids * 0 + IGNORED
    found[real] = given.reshape(-1)[places]
    return found


def token_loss(logits: Tensor, ids: IntArray, num_items_in_batch: float | None) -> Tensor:
    """The mean cross-entropy of labelled tokens, or a micro-batch's share of the whole step's mean. Shapes: logits (rows, classes)."""
    return F.cross_entropy(logits, ids, ignore_index=IGNORED, denominator=checked_count(num_items_in_batch))


def checked_count(num_items_in_batch: float | None) -> float | None:
    """The number of labels in the whole step, checked. Raises: ArgumentError unless it is a finite number above 0."""
    if num_items_in_batch is None:
        return None
    if not isinstance(num_items_in_batch, Real) or isinstance(num_items_in_batch, bool) or not 0 < num_items_in_batch < inf:
        raise ArgumentError(f"num_items_in_batch is the number of labels of the whole step, above 0; got {num_items_in_batch!r:.80}")
    return float(num_items_in_batch)


def _position(where: Any) -> str:
    return "[" + ", ".join(str(int(axis[0])) for axis in where.nonzero()) + "]"


def next_token_labels(labels: Any, tokens: PackedTokens, classes: int) -> IntArray:
    """The label that each row is to predict: that of the next token in its sequence; none (-100) before padding or the end.

    A masked first row, itself padding, predicts none either. Shapes, Raises: as `token_labels`.
    """
    own, packing = token_labels(labels, tokens, classes), tokens.packing
    following = own * 0 + IGNORED
    followed = (tokens.positions[1:] == tokens.positions[:-1] + 1).nonzero()[0]  # true inside a sequence, because each begins at place 0
    following[followed] = own[followed + 1]
    if packing.masked_first is not None:
        following[packing.first_rows[list(packing.masked_first)]] = IGNORED
    return following


def span_loss(start_logits: Tensor, end_logits: Tensor, starts: Any, ends: Any, tokens: PackedTokens) -> Tensor:
    """The mean of two cross-entropies over the tokens of each sequence: of where the answer starts, and of where it ends.

    A position is that of a token in its sequence (the column of a padded array). Below 0 it counts as 0; one where the sequence has no
    token is ignored. Shapes: start_logits, end_logits (rows,); starts, ends (batch,) or (batch, 1).
    Raises: ArgumentError if one of the two is missing; ShapeError; DTypeError.
    """
    if starts is None or ends is None:
        raise ArgumentError("the loss of an answer needs both start_positions and end_positions")
    return (
        _position_loss("start_positions", start_logits, starts, tokens) + _position_loss("end_positions", end_logits, ends, tokens)
    ) * 0.5


def _position_loss(name: str, scores: Tensor, positions: Any, tokens: PackedTokens) -> Tensor:
    given, n = host_array(name, positions), len(tokens.packing)
    if given.shape not in ((n,), (n, 1)):
        raise ShapeError(f"{name} has shape {given.shape}: {n} sequences need one number each")
    answered = []
    for (a, b), position in zip(tokens.packing.key_spans, given.reshape(-1).tolist(), strict=True):
        found = (tokens.positions[a:b] == max(position, 0)).nonzero()[0]
        if len(found):
            answered.append((a, b, int(found[0])))
    if not answered:  # NaN with gradient 0, as every cross-entropy without labels
        return F.cross_entropy(scores.reshape((1, -1)), [IGNORED])
    losses = [F.cross_entropy(scores[a:b].reshape((1, -1)), [place]) for a, b, place in answered]
    return F.stack(losses).mean()
