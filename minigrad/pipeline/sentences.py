"""Vectors of tokens, and the similarity of sentences."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self, cast

import numpy as np

from minigrad.data import Tokenizer
from minigrad.data.checks import check_count
from minigrad.errors import ArgumentError
from minigrad.files import listing
from minigrad.models.auto import max_tokens
from minigrad.models.sentence import POOLINGS, SentenceEncoder, SentenceSettings
from minigrad.packing import PackedTokens
from minigrad.pipeline.base import Chunk, Pipeline, Rows, as_list, finite, split_rows
from minigrad.tensor import Tensor


class FeatureExtraction(Pipeline):
    """Computes the vectors of a text's tokens."""

    head = "base"

    def run(self, inputs: Any) -> Any:
        """The last hidden state of each text, special tokens included; for a single text just its own.

        Shapes: per text (tokens, hidden).
        """
        return self._answers(inputs, self._vectors)

    def _rows_of(self, tokens: PackedTokens) -> Tensor:
        return self.model(tokens).last_hidden_state  # type: ignore[no-any-return]

    def _vectors(self, chunk: Chunk) -> list[Rows]:
        encodings = self._encode(chunk, chunk.inputs)
        return self._compute(chunk, encodings, lambda _, tokens: split_rows(self._rows(tokens), tokens))


class SentenceSimilarity(Pipeline):
    """Compares the meaning of a text with that of others: the cosines of their sentence embeddings.

    Takes a model, its tokenizer and the pooling ("mean", "cls" or "max"), or a SentenceEncoder, which has all three.
    """

    head = "base"

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer | None = None,
        *,
        pooling: str | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> None:
        if isinstance(model, SentenceEncoder):
            if any(given is not None for given in (tokenizer, pooling, max_length)):
                raise ArgumentError("SentenceSimilarity of a SentenceEncoder takes no tokenizer, pooling or max_length: it has its own")
            encoder = model
        else:
            self._check_parts(model, tokenizer)
            if pooling is None:
                raise ArgumentError(f"SentenceSimilarity of a model and a tokenizer needs pooling, one of {listing(POOLINGS)}")
            length = max_tokens(model.config) if max_length is None else check_count("max_length", max_length)
            encoder = SentenceEncoder(model, cast(Tokenizer, tokenizer), SentenceSettings(pooling, True, length))
        super().__init__(encoder.encoder, encoder.tokenizer, **options)
        self.encoder = encoder

    @classmethod
    def from_pretrained(
        cls,
        directory_or_name: str | os.PathLike[str],
        *,
        pooling: str | None = None,
        normalise: bool | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> Self:
        """pooling, normalise, max_length: as `SentenceEncoder.from_pretrained`."""
        encoder = SentenceEncoder.from_pretrained(directory_or_name, pooling=pooling, normalise=normalise, max_length=max_length)
        return cls(encoder, **options)

    def run(self, source_sentence: str, sentences: Iterable[str]) -> list[float]:
        """The cosine between source_sentence and each of the sentences."""
        texts = as_list(sentences)[0]
        if not isinstance(source_sentence, str):
            raise ArgumentError(f"source_sentence must be one text, got {type(source_sentence).__name__}")
        vectors = self.encoder.encode([source_sentence, *texts], batch_tokens=self.batch_tokens, progress=self.progress)
        finite(vectors)
        lengths = np.linalg.norm(vectors, axis=1)
        cosines = vectors[1:] @ vectors[0] / np.maximum(lengths[1:] * lengths[0], 1e-12)  # a zero vector is similar to nothing
        return [float(cosine) for cosine in cosines]
