"""What the heads of the families have in common: a decoder that shares its parameters, and the way from scores and labels to the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigrad import functional as F
from minigrad.errors import ArgumentError
from minigrad.models.border import Encoded
from minigrad.models.losses import IGNORED, LabelledConfig, sequence_loss, span_loss, token_labels
from minigrad.models.outputs import LogitsOutput, QuestionAnsweringOutput
from minigrad.nn import Module
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor, TensorLike


class Decoder(Module):
    """x Wᵀ + b with parameters that have another name elsewhere. Shapes: (rows, hidden) → (rows, vocabulary)."""

    def __init__(self, weight: Parameter, bias: Parameter) -> None:
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def token_output(found: Encoded, logits: Tensor, labels: Any, num_items_in_batch: float | None) -> LogitsOutput:
    """Of a head on tokens. labels: as the caller brought them. Shapes: logits (rows, classes). Raises: as `token_labels`."""
    loss = None
    if labels is not None:
        ids = token_labels(labels, found.tokens, logits.shape[1])
        loss = F.cross_entropy(logits, ids, ignore_index=IGNORED, denominator=num_items_in_batch)
    return LogitsOutput(found.returned(logits), loss, found.hidden_states, found.attentions)


def word_output(
    found: Encoded,
    head: Callable[[Tensor], Tensor],
    labels: Any,
    vocab_size: int,
    num_items_in_batch: float | None,
    labelled_only: bool,
) -> LogitsOutput:
    """Of a head that scores every token of the vocabulary; with labelled_only, computed and returned for labelled tokens alone.

    Raises: as `token_labels`; ArgumentError for labelled_only without labels.
    """
    if not labelled_only:
        return token_output(found, head(found.rows), labels, num_items_in_batch)
    if labels is None:
        raise ArgumentError("labelled_only=True needs labels")
    ids = token_labels(labels, found.tokens, vocab_size)
    rows = (ids != IGNORED).nonzero()[0]
    logits = head(F.take_rows(found.rows, rows))
    loss = F.cross_entropy(logits, ids[rows], ignore_index=IGNORED, denominator=num_items_in_batch)
    return LogitsOutput(logits, loss, found.hidden_states, found.attentions)


def sequence_output(config: LabelledConfig, found: Encoded, logits: Tensor, labels: TensorLike | None) -> LogitsOutput:
    """Of a head on whole sequences. Shapes: logits (batch, labels). Raises: as `sequence_loss`."""
    loss = None if labels is None else sequence_loss(config, logits, labels)
    return LogitsOutput(logits, loss, found.hidden_states, found.attentions)


def span_output(found: Encoded, logits: Tensor, start_positions: Any, end_positions: Any) -> QuestionAnsweringOutput:
    """Of a head that scores where an answer starts and ends. Shapes: logits (rows, 2). Raises: as `span_loss`."""
    loss = None
    if start_positions is not None or end_positions is not None:
        loss = span_loss(logits[:, 0], logits[:, 1], start_positions, end_positions, found.tokens)
    both = found.returned(logits)
    return QuestionAnsweringOutput(both[..., 0], both[..., 1], loss, found.hidden_states, found.attentions)
