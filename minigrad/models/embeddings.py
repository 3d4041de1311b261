"""Input embeddings of the encoders: word, position and segment embeddings, summed, normalised and with dropout."""

from __future__ import annotations

from typing import NamedTuple

from minigrad import functional as F
from minigrad.backend import device_of, to_device
from minigrad.errors import IndexRangeError, ShapeError
from minigrad.models.blocks import can_fuse
from minigrad.models.config import PretrainedConfig
from minigrad.nn import Dropout, Embedding, LayerNorm, Module
from minigrad.packing import IntArray, PackedTokens, Packing
from minigrad.tensor import Tensor


class Lookup(NamedTuple):
    """A look-up of ids in an embedding table. Shapes: ids (rows,).

    The row `untrained` receives no gradient: that of [PAD], as in the published models. [PAD] does occur: a first token may be padding
    and still be read by a pooled head.
    """

    name: str
    """Name of the ids in error messages."""
    ids: IntArray
    table: Embedding
    untrained: int | None = None

    def check(self) -> None:
        """Check ids on the CPU. Those on a GPU were checked before the transfer, and do not change until the backward pass.

        Raises: IndexRangeError for an id without a row in the table.
        """
        ids, rows = self.ids, self.table.weight.shape[0]
        if device_of(ids) == "cpu" and (int(ids.min()) < 0 or int(ids.max()) >= rows):
            bad = int(ids[(ids < 0) | (ids >= rows)][0])
            raise IndexRangeError(f"{self.name} holds {bad}, this model knows 0..{rows - 1}: was it encoded with this model's tokenizer?")


def look_up(lookup: Lookup) -> Tensor:
    """The rows of one look-up. Shapes: → (rows, width). Raises: as `Lookup.check`."""
    lookup.check()
    _, ids, table, untrained = lookup
    if device_of(ids) != "cpu":
        placed = Tensor.wrap(ids)
        return table(placed) if untrained is None else F.embedding(placed, table.weight, untrained)
    found, left = table(ids), ids == untrained
    if not left.any():
        return found  # type: ignore[no-any-return]
    return F.where(Tensor(left[:, None], device=found.device), found.detach(), found)


def embed(words: Tensor | None, packing: Packing, norm: LayerNorm, dropout: Dropout, *lookups: Lookup) -> Tensor:
    """dropout(norm(sum of the look-ups)). `words`, if given, replace the first look-up.

    Shapes: words (rows, width) → the same. Raises: as `Lookup.check`; ShapeError for words of another shape.
    """
    parts = (norm, LayerNorm), (dropout, Dropout), *((lookup.table, Embedding) for lookup in lookups)
    # The device is taken from the norm, because accessing a table's array would apply the updates that an optimizer deferred.
    if words is None and isinstance(norm, LayerNorm) and can_fuse(F.embed_norm, norm.weight, *parts):
        for lookup in lookups:
            lookup.check()
        tables, device = [lookup.table.weight for lookup in lookups], norm.weight.device
        untrained = tuple(lookup.table.padding_idx if lookup.untrained is None else lookup.untrained for lookup in lookups)
        ids, draw = [Tensor.wrap(to_device(lookup.ids, device)) for lookup in lookups], dropout.draw(packing, norm.weight.shape[0])
        return F.embed_norm(norm.weight, norm.bias, *tables, *ids, untrained=untrained, draw=draw, eps=norm.eps)
    x = look_up(lookups[0]) if words is None else _checked_words(lookups[0], words)
    for lookup in lookups[1:]:
        x = x + look_up(lookup)
    return dropout(norm(x), packing)  # type: ignore[no-any-return]


def _checked_words(lookup: Lookup, words: Tensor) -> Tensor:
    """The caller's rows, checked and in the table's dtype: NumPy's float64 would make everything after it float64."""
    wanted = (len(lookup.ids), lookup.table.weight.shape[1])
    if words.shape != wanted:
        raise ShapeError(f"inputs_embeds holds rows of shape {words.shape}, these tokens and this model need {wanted}")
    return words.astype(lookup.table.weight.dtype)


def check_length(tokens: PackedTokens, positions: IntArray, table: Embedding, first: int = 0) -> None:
    """Refuse sequences that are longer than the table of positions. first: the position of a sequence's first token.

    Raises: ShapeError naming the sequence, with the code too-long.
    """
    longest = table.weight.shape[0] - first
    if device_of(positions) != "cpu":  # as in `Lookup.check`
        return
    if int(positions.max()) - first >= longest:
        row = int((tokens.packing.offsets <= positions.argmax()).sum()) - 1
        raise ShapeError(
            f"sequence {row} reaches position {int(positions.max()) - first}, this model has {longest}: truncate it (max_length={longest})",
            code="too-long",
        )


class Embeddings(Module):
    """Word + position + segment embeddings, normalised. `width`: of the vectors, if it differs from the encoder's."""

    def __init__(self, config: PretrainedConfig, width: int | None = None) -> None:
        width, std = width or config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, width, std=std)
        self.position_embeddings = Embedding(config.max_position_embeddings, width, std=std)
        self.token_type_embeddings = Embedding(config.type_vocab_size, width, std=std)
        self.LayerNorm = LayerNorm(width, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.pad_token_id = config.pad_token_id

    def forward(self, tokens: PackedTokens, words: Tensor | None = None) -> Tensor:
        """Shapes: → (rows, width); words (rows, width) replace the word embeddings."""
        check_length(tokens, tokens.positions, self.position_embeddings)
        return embed(
            words,
            tokens.packing,
            self.LayerNorm,
            self.dropout,
            Lookup("input_ids", tokens.input_ids, self.word_embeddings, self.pad_token_id),
            Lookup("positions", tokens.positions, self.position_embeddings),
            Lookup("token_type_ids", tokens.token_type_ids, self.token_type_embeddings),
        )
