"""Inputs and outputs of every encoder: a caller's arrays become packed rows, and results return in the caller's layout."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, TypedDict

from minigrad import functional as F
from minigrad.errors import ArgumentError, ShapeError
from minigrad.models.blocks import Trace
from minigrad.models.config import PretrainedConfig
from minigrad.nn import Module
from minigrad.nn.attention import pad_rows
from minigrad.packing import PackedTokens, pack, pack_mask
from minigrad.tensor import Tensor, TensorLike


class OutputOptions(TypedDict, total=False):
    """output_hidden_states, output_attentions: also return the embeddings and every layer's output, and the attention weights."""

    output_hidden_states: bool
    output_attentions: bool


class Extras(OutputOptions, total=False):
    """Keywords that every model takes in addition to its inputs and labels.

    inputs_embeds: word vectors in place of input_ids, (batch, longest, hidden); with PackedTokens (rows, hidden), whose ids are then
    ignored. The others: as `OutputOptions`.
    """

    inputs_embeds: TensorLike | None


@dataclass(frozen=True)
class Encoded:
    """An encoder's result for a batch, still packed, with what is needed to pad it again.

    Shapes: rows (rows, hidden), or (sequences, hidden) if only the first row of each sequence was computed.
    """

    tokens: PackedTokens
    rows: Tensor
    first_only: bool
    trace: Trace

    @property
    def first(self) -> Tensor:
        """The first row of each sequence. Shapes: (sequences, hidden)."""
        return self.rows if self.first_only else F.take_rows(self.rows, self.tokens.packing.first_rows)

    def repadded(self, rows: Tensor) -> Tensor:
        """Rows in the caller's layout: padded for padded input, with zeros at the pads. Shapes: → (rows, d) or (batch, longest, d)."""
        return rows if self.tokens.padded_shape is None else pad_rows(rows, self.tokens)

    @property
    def hidden_states(self) -> tuple[Tensor, ...] | None:
        """The embeddings and every layer's output; None unless asked for. Shapes: as `repadded`."""
        return None if self.trace.hidden_states is None else tuple(self.repadded(rows) for rows in self.trace.hidden_states)

    @property
    def attentions(self) -> tuple[Any, ...] | None:
        """Every layer's attention weights; None unless asked for.

        Shapes: (batch, heads, longest, longest) for padded input with zeros at the pads, else a tuple of (heads, n, n) per sequence.
        """
        if self.trace.attentions is None:
            return None
        return tuple(w if self.tokens.padded_shape is None else _padded_weights(w, self.tokens) for w in self.trace.attentions)


def run_encoder(
    config: PretrainedConfig,
    encoder: Module,
    x: Tensor,
    tokens: PackedTokens,
    first_only: bool,
    *,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    **unknown: object,
) -> Encoded:
    """Run an encoder's layers on embeddings. first_only: the caller reads only the first row of each sequence, so the last layer computes
    no others (unless hidden states or attentions are returned, or a decoder's first row must attend to itself alone).

    Shapes: x (rows, hidden). Raises: ArgumentError naming a keyword that no model takes: all unknown keywords end up here.
    """
    if unknown:
        known = "inputs_embeds, output_hidden_states and output_attentions"
        raise ArgumentError(f"a model takes no {' and no '.join(unknown)}; beside inputs and labels these keywords are known: {known}")
    trace = Trace([] if output_hidden_states else None, [] if output_attentions else None)
    first_only = first_only and not (output_hidden_states or output_attentions or config.is_decoder)
    return Encoded(tokens, encoder(x, tokens.packing, first_only, trace), first_only, trace)


def _padded_weights(weights: tuple[Tensor, ...], tokens: PackedTokens) -> Tensor:
    """Shapes: per sequence (heads, n, n) → (batch, heads, longest, longest)."""
    longest = tokens.padded_shape[1] if tokens.padded_shape else 0
    padded = []
    for own, (first, _), (a, b) in zip(weights, tokens.packing.spans, tokens.packing.key_spans, strict=True):
        places, masked, heads = tokens.positions[a:b], a - first, own.shape[0]
        real = own[:, masked:, masked:].transpose((2, 0, 1)).reshape((b - a, -1))
        keys = F.put_rows(real, places, longest).reshape((longest, heads, b - a)).transpose((2, 1, 0))
        padded.append(F.put_rows(keys.reshape((b - a, -1)), places, longest).reshape((longest, heads, longest)).swapaxes(0, 1))
    return F.stack(padded)


def as_tokens(
    input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, inputs_embeds: Any = None, pad_token_id: int | None = None
) -> tuple[PackedTokens, Tensor | None]:
    """Packed tokens from any input that models take, and the rows of `inputs_embeds` that belong to them.

    Warns (once) if padded ids without a mask begin or end with `pad_token_id`: their padding would be read as text.
    Raises: ArgumentError if packed tokens come with a separate mask or token types, or both ids and vectors are given; ShapeError for
    vectors that are not (batch, longest, hidden); otherwise as `pack`.
    """
    words = None if inputs_embeds is None else F.as_tensor(inputs_embeds)
    if isinstance(input_ids, PackedTokens):
        if attention_mask is not None or token_type_ids is not None:
            raise ArgumentError(
                "PackedTokens carry their own structure and token types: pass no attention_mask or token_type_ids beside them"
            )
        return input_ids, words
    if words is None:
        tokens = pack(input_ids, attention_mask, token_type_ids)
        if attention_mask is None and _looks_padded(tokens, pad_token_id):
            warnings.warn(
                f"input_ids begin or end with the padding id {pad_token_id}, and no attention_mask says that it is padding: "
                "it is read as text; pass attention_mask",
                stacklevel=2,
            )
        return tokens, None
    if input_ids is not None:
        raise ArgumentError("input_ids and inputs_embeds exclude each other: pass one of them")
    if words.ndim != 3:
        raise ShapeError(f"inputs_embeds must have shape (batch, longest, hidden), got {words.shape}")
    tokens = pack_mask(words.shape[:2], attention_mask, token_type_ids)
    return tokens, F.take_rows(words.reshape((-1, words.shape[2])), tokens.places())


def _looks_padded(tokens: PackedTokens, pad_token_id: int | None) -> bool:
    """Whether a sequence begins or ends with padding (inside a text, the id may be intended)."""
    edges = tokens.packing.offsets
    ends = tokens.input_ids[edges[1:] - 1]
    return pad_token_id is not None and bool(((tokens.input_ids[edges[:-1]] == pad_token_id) | (ends == pad_token_id)).any())
