"""The start of the encoders: rows of tables for words, places and segments, added up, normalised and dropped from."""

from __future__ import annotations

from typing import NamedTuple

from minigrad import functional as F
from minigrad.backend import device_of, to_device
from minigrad.errors import IndexRangeError, ShapeError
from minigrad.models.blocks import in_one
from minigrad.models.config import PretrainedConfig
from minigrad.nn import Dropout, Embedding, LayerNorm, Module
from minigrad.packing import IntArray, PackedTokens, Packing
from minigrad.tensor import Tensor


class Read(NamedTuple):
    """Rows of a table to be read by number. Shapes: ids (rows,).

    The row `untrained` receives no gradient: that of [PAD], as in the published models. A first token may be padding and yet be read by a
    pooled head.
    """

    name: str
    """What errors call the ids."""
    ids: IntArray
    table: Embedding
    untrained: int | None = None

    def check(self) -> None:
        """Ids on a GPU were checked before they were put there, and nobody changes them before the way back.

        Raises: IndexRangeError for a number that the table does not have.
        """
        ids, rows = self.ids, self.table.weight.shape[0]
        if device_of(ids) == "cpu" and (int(ids.min()) < 0 or int(ids.max()) >= rows):
            bad = int(ids[(ids < 0) | (ids >= rows)][0])
            raise IndexRangeError(f"{self.name} holds {bad}, this model knows 0..{rows - 1}: was it encoded with this model's tokenizer?")


def embedded(read: Read) -> Tensor:
    """The rows that `read` takes from its table. Shapes: → (rows, width). Raises: as `Read.check`."""
    read.check()
    _, ids, table, untrained = read
    if device_of(ids) != "cpu":
        placed = Tensor.wrap(ids)
        return table(placed) if untrained is None else F.embedding(placed, table.weight, untrained)
    found, left = table(ids), ids == untrained
    if not left.any():
        return found  # type: ignore[no-any-return]
    return F.where(Tensor(left[:, None], device=found.device), found.detach(), found)


def embeddings(words: Tensor | None, packing: Packing, norm: LayerNorm, dropout: Dropout, *reads: Read) -> Tensor:
    """dropout(norm(the sum of what is read)). `words`, if given, take the place of what is read first.

    Shapes: words (rows, width) → the same. Raises: as `Read.check`; ShapeError for words of another shape.
    """
    parts = (norm, LayerNorm), (dropout, Dropout), *((read.table, Embedding) for read in reads)
    # The norm stands for the device, because the whole array of a table cannot be looked at without paying what an optimizer owes it.
    if words is None and isinstance(norm, LayerNorm) and in_one(F.embed_norm, norm.weight, *parts):
        for read in reads:
            read.check()
        tables, device = [read.table.weight for read in reads], norm.weight.device
        untrained = tuple(read.table.padding_idx if read.untrained is None else read.untrained for read in reads)
        ids, draw = [Tensor.wrap(to_device(read.ids, device)) for read in reads], dropout.draw(packing, norm.weight.shape[0])
        return F.embed_norm(norm.weight, norm.bias, *tables, *ids, untrained=untrained, draw=draw, eps=norm.eps)
    x = embedded(reads[0]) if words is None else _in_place_of(reads[0], words)
    for read in reads[1:]:
        x = x + embedded(read)
    return dropout(norm(x), packing)  # type: ignore[no-any-return]


def _in_place_of(read: Read, words: Tensor) -> Tensor:
    """The caller's rows, checked. NumPy's float64 would make all that follows float64."""
    wanted = (len(read.ids), read.table.weight.shape[1])
    if words.shape != wanted:
        raise ShapeError(f"inputs_embeds holds rows of shape {words.shape}, these tokens and this model need {wanted}")
    return words.astype(read.table.weight.dtype)


def check_length(tokens: PackedTokens, positions: IntArray, table: Embedding, first: int = 0) -> None:
    """Refuse sequences that a table of positions is too short for. positions: of each row; first: of a sequence's first token.

    Raises: ShapeError naming the sequence, with the code too-long.
    """
    longest = table.weight.shape[0] - first
    if device_of(positions) != "cpu":  # as in `Read.check`
        return
    if int(positions.max()) - first >= longest:
        row = int((tokens.packing.offsets <= positions.argmax()).sum()) - 1
        raise ShapeError(
            f"sequence {row} reaches position {int(positions.max()) - first}, this model has {longest}: truncate it (max_length={longest})",
            code="too-long",
        )


class Embeddings(Module):
    """Word + position + segment embeddings, normalised. `width`: of the vectors, if it is not the encoder's."""

    def __init__(self, config: PretrainedConfig, width: int | None = None) -> None:
        width, std = width or config.hidden_size, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, width, std=std)
        self.position_embeddings = Embedding(config.max_position_embeddings, width, std=std)
        self.token_type_embeddings = Embedding(config.type_vocab_size, width, std=std)
        self.LayerNorm = LayerNorm(width, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.pad_token_id = config.pad_token_id

    def forward(self, tokens: PackedTokens, words: Tensor | None = None) -> Tensor:
        """Shapes: → (rows, width); words (rows, width) take the place of the word embeddings."""
        check_length(tokens, tokens.positions, self.position_embeddings)
        return embeddings(
            words,
            tokens.packing,
            self.LayerNorm,
            self.dropout,
            Read("input_ids", tokens.input_ids, self.word_embeddings, self.pad_token_id),
            Read("positions", tokens.positions, self.position_embeddings),
            Read("token_type_ids", tokens.token_type_ids, self.token_type_embeddings),
        )
