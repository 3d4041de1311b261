"""Outputs of the models, with Hugging Face's field names and only the fields that the head has.

`loss` is None without labels; `hidden_states` and `attentions` are None unless the model was called with output_hidden_states=True or
output_attentions=True. Padded input gives padded results with zeros at the pads; packed input gives packed rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from minigrad.errors import DTypeError, FieldError, IndexRangeError
from minigrad.files import listing, quoted
from minigrad.tensor import Tensor


@dataclass(frozen=True)
class ModelOutput:
    """Fields that are read as attributes, by key or by index, as the outputs of transformers are.

    Keys and indices count only the fields that are not None, `loss` first. Iterating gives the names.
    Raises: from `[]`, FieldError for an unknown name, IndexRangeError for an index and DTypeError for any other type.
    """

    def keys(self) -> list[str]:
        """The names of the fields that are not None."""
        names = sorted((field.name for field in fields(self)), key=lambda name: name != "loss")
        return [name for name in names if getattr(self, name) is not None]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values of the fields that are not None."""
        return tuple(getattr(self, name) for name in self.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        names = self.keys()
        if isinstance(key, str):
            if key not in names:
                raise FieldError(f"this {type(self).__name__} has {listing(names)} and no {quoted(key)}")
            return getattr(self, key)
        try:
            return self.to_tuple()[key]
        except IndexError:
            raise IndexRangeError(f"this {type(self).__name__} has {listing(names)} and no number {key}, counted from 0") from None
        except TypeError:
            raise DTypeError(f"a {type(self).__name__} is read by names, places and slices, got {quoted(key)}") from None


@dataclass(frozen=True)
class EncoderOutput(ModelOutput):
    """Shapes: last_hidden_state (batch, longest, hidden) for padded input, (rows, hidden) for packed; pooler_output (batch, hidden).

    hidden_states: the embeddings, then each layer's output, shaped like last_hidden_state. attentions: per layer
    (batch, heads, longest, longest), or for packed input a tuple of (heads, n, n), one for each sequence.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class LogitsOutput(ModelOutput):
    """Output of every head with one set of logits.

    Shapes: logits (batch, labels) for a head on whole sequences, (batch, choices) for multiple choice; for a head on tokens
    (batch, longest, labels), packed (rows, labels); loss ().
    """

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class PreTrainingOutput(ModelOutput):
    """Shapes: prediction_logits (batch, longest, vocabulary) or packed (rows, vocabulary); seq_relationship_logits (batch, 2); loss ()."""

    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class QuestionAnsweringOutput(ModelOutput):
    """Shapes: start_logits, end_logits (batch, longest), packed (rows,); loss ()."""

    start_logits: Tensor
    end_logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None
