"""What models return: Hugging Face's field names, and only the fields that the head has.

`loss` is None without labels; `hidden_states` and `attentions` are None unless the model was called with output_hidden_states=True or
output_attentions=True. Padded input gives padded results with zeros at the pads; packed input gives packed rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigrad.tensor import Tensor


@dataclass(frozen=True)
class EncoderOutput:
    """Shapes: last_hidden_state (batch, longest, hidden) for padded input, (rows, hidden) for packed; pooler_output (batch, hidden).

    hidden_states: the embeddings, then each layer's output, shaped like last_hidden_state. attentions: per layer
    (batch, heads, longest, longest), or for packed input a tuple of (heads, n, n), one for each sequence.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class LogitsOutput:
    """Of every head with one set of logits.

    Shapes: logits (batch, labels) for a head on whole sequences, (batch, choices) for multiple choice; for a head on tokens
    (batch, longest, labels), packed (rows, labels); loss ().
    """

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class PreTrainingOutput:
    """Shapes: prediction_logits (batch, longest, vocabulary) or packed (rows, vocabulary); seq_relationship_logits (batch, 2); loss ()."""

    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class QuestionAnsweringOutput:
    """Shapes: start_logits, end_logits (batch, longest), packed (rows,); loss ()."""

    start_logits: Tensor
    end_logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None
