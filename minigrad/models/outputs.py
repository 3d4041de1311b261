"""What models return: Hugging Face's field names, and only the fields that the head has."""

from __future__ import annotations

from dataclasses import dataclass

from minigrad.tensor import Tensor


@dataclass(frozen=True)
class EncoderOutput:
    """Shapes: last_hidden_state (batch, longest, hidden) for padded input, (rows, hidden) for packed; pooler_output (batch, hidden)."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None


@dataclass(frozen=True)
class ClassifierOutput:
    """Shapes: logits (batch, labels); loss () or None when no labels were given."""

    logits: Tensor
    loss: Tensor | None
