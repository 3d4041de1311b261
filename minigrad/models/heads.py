"""What the families' heads share: modules, and functions that turn scores and labels into outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from minigrad import functional as F
from minigrad.errors import ArgumentError, ShapeError
from minigrad.models.blocks import activated
from minigrad.models.config import PretrainedConfig
from minigrad.models.encoding import Encoded
from minigrad.models.losses import IGNORED, sequence_loss, span_loss, token_labels, token_loss
from minigrad.models.outputs import LogitsOutput, QuestionAnsweringOutput
from minigrad.nn import Dropout, Linear, Module, init
from minigrad.packing import IntArray, PackedTokens, host_array
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor, TensorLike


# ---------------------------------------------------------------- parts
class Decoder(Module):
    """x Wᵀ + b with parameters that may be shared with other modules. Shapes: (rows, hidden) → (rows, vocabulary)."""

    def __init__(self, weight: Parameter, bias: Parameter) -> None:
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class WordScores(Module):
    """Base of the heads that score every token of the vocabulary: the decoder shares the table of word embeddings, unless the
    configuration unties them.

    The bias is one parameter with two published names, saved under the one that other libraries read: the decoder's, if that is untied.
    """

    def __init__(self, config: PretrainedConfig, table: Parameter) -> None:
        if config.tie_word_embeddings:
            self.bias = init.zeros(config.vocab_size)
            self.decoder = Decoder(table, self.bias)
        else:
            self.decoder = Decoder(init.normal(table.shape, config.initializer_range), init.zeros(config.vocab_size))
            self.bias = self.decoder.bias


class ClassificationHead(Module):
    """out_proj(dropout(activation(dense(dropout(x))))). Shapes: the first row of each sequence (batch, hidden) → (batch, labels)."""

    def __init__(self, config: PretrainedConfig, hidden_act: str) -> None:
        h, std = config.hidden_size, config.initializer_range
        self.dropout = Dropout(config.head_dropout_prob)
        self.dense = Linear(h, h, std=std)
        self.out_dropout = Dropout(config.head_dropout_prob)  # a second one, so that it drops other units
        self.out_proj = Linear(h, config.num_labels, std=std)
        self.hidden_act = hidden_act

    def forward(self, encoded: Encoded) -> Tensor:
        packing = encoded.tokens.packing.first
        x = activated(self.dropout(encoded.first, packing), self.dense, self.hidden_act)
        return self.out_proj(self.out_dropout(x, packing))  # type: ignore[no-any-return]


# ---------------------------------------------------------------- heads on tokens
def token_output(
    encoded: Encoded,
    logits: Tensor,
    labels: Any,
    num_items_in_batch: float | None,
    row_labels: Callable[[Any, PackedTokens, int], IntArray] = token_labels,
) -> LogitsOutput:
    """Output of a head on tokens. labels: as passed by the caller; row_labels: `next_token_labels` for a head that predicts what follows.

    Shapes: logits (rows, classes). Raises: as `token_labels`.
    """
    loss = None if labels is None else token_loss(logits, row_labels(labels, encoded.tokens, logits.shape[1]), num_items_in_batch)
    return LogitsOutput(encoded.repadded(logits), loss, encoded.hidden_states, encoded.attentions)


def word_output(
    encoded: Encoded,
    head: Callable[[Tensor], Tensor],
    labels: Any,
    vocab_size: int,
    num_items_in_batch: float | None,
    labelled_only: bool,
    rows: Any,
) -> LogitsOutput:
    """Output of a head that scores every token of the vocabulary; with labelled_only or rows, only of those tokens.

    Raises: as `token_labels`; ArgumentError for labelled_only without labels, and rows with labels; as `take_rows`.
    """
    if rows is not None:
        if labels is not None or labelled_only:
            raise ArgumentError("rows asks for logits alone: pass no labels beside them")
        return LogitsOutput(head(F.take_rows(encoded.rows, rows)), None, encoded.hidden_states, encoded.attentions)
    if not labelled_only:
        return token_output(encoded, head(encoded.rows), labels, num_items_in_batch)
    if labels is None:
        raise ArgumentError("labelled_only=True needs labels")
    ids = token_labels(labels, encoded.tokens, vocab_size)
    labelled = (ids != IGNORED).nonzero()[0]
    logits = head(F.take_rows(encoded.rows, labelled))
    return LogitsOutput(logits, token_loss(logits, ids[labelled], num_items_in_batch), encoded.hidden_states, encoded.attentions)


def span_output(encoded: Encoded, logits: Tensor, start_positions: Any, end_positions: Any) -> QuestionAnsweringOutput:
    """Output of a head that scores where an answer starts and ends. Shapes: logits (rows, 2). Raises: as `span_loss`."""
    loss = None
    if start_positions is not None or end_positions is not None:
        loss = span_loss(logits[:, 0], logits[:, 1], start_positions, end_positions, encoded.tokens)
    both = encoded.repadded(logits)
    return QuestionAnsweringOutput(both[..., 0], both[..., 1], loss, encoded.hidden_states, encoded.attentions)


# ---------------------------------------------------------------- heads on whole sequences
def sequence_output(config: PretrainedConfig, encoded: Encoded, logits: Tensor, labels: TensorLike | None) -> LogitsOutput:
    """Output of a head with the configuration's `problem_type`. Shapes: logits (batch, labels). Raises: as `sequence_loss`."""
    loss = None if labels is None else sequence_loss(config, logits, labels)
    return LogitsOutput(logits, loss, encoded.hidden_states, encoded.attentions)


def class_output(encoded: Encoded, logits: Tensor, labels: TensorLike | None) -> LogitsOutput:
    """Output of a head that picks one class. Shapes: logits (batch, classes), labels (batch,). Raises: as `cross_entropy`."""
    loss = None if labels is None else F.cross_entropy(logits, labels)
    return LogitsOutput(logits, loss, encoded.hidden_states, encoded.attentions)


class Choices(NamedTuple):
    """Inputs of a multiple-choice model: the choices of all examples as consecutive sequences."""

    number: int
    """Choices per example."""
    input_ids: Any
    attention_mask: Any
    token_type_ids: Any
    inputs_embeds: Any


def flat_choices(input_ids: Any, attention_mask: Any, token_type_ids: Any, inputs_embeds: Any, number: int | None) -> Choices:
    """Flatten the axis of choices of padded arrays; PackedTokens are kept as they are and need `number`, the choices per example.

    Shapes: (batch, choices, longest) → (batch * choices, longest); inputs_embeds with a further axis (hidden).
    Raises: ShapeError for arrays without an axis of choices, or a number of sequences that `number` does not divide.
    """
    if isinstance(input_ids, PackedTokens):
        count = len(input_ids.packing)
        if type(number) is not int or number < 1 or count % number:
            raise ShapeError(f"PackedTokens of {count} sequences do not divide among num_choices={number!r:.80} choices")
        return Choices(number, input_ids, attention_mask, token_type_ids, inputs_embeds)
    given = {
        "input_ids": None if inputs_embeds is not None and input_ids is None else host_array("input_ids", input_ids),
        "attention_mask": None if attention_mask is None else host_array("attention_mask", attention_mask, "biuf"),
        "token_type_ids": None if token_type_ids is None else host_array("token_type_ids", token_type_ids),
        "inputs_embeds": None if inputs_embeds is None else F.as_tensor(inputs_embeds),
    }
    shown = {name: array.shape for name, array in given.items() if array is not None}
    for name, shape in shown.items():
        wanted = "(batch, choices, longest" + (", hidden)" if name == "inputs_embeds" else ")")
        if len(shape) != wanted.count(",") + 1 or 0 in shape:
            raise ShapeError(f"{name} must have shape {wanted} and hold something, got {shape}")
    numbers = {shape[1] for shape in shown.values()}
    if len(numbers) > 1 or number not in (None, *numbers):
        raise ShapeError(f"the numbers of choices differ: {shown}, num_choices={number!r:.80}")
    return Choices(numbers.pop(), *(None if array is None else array.reshape((-1, *array.shape[2:])) for array in given.values()))
