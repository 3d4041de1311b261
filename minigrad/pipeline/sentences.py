"""Vectors of tokens and of sentences."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from minigrad.data.by_length import BATCH_TOKENS
from minigrad.errors import ArgumentError
from minigrad.models.sentence import SentenceEncoder
from minigrad.packing import PackedTokens
from minigrad.pipeline.base import Chunk, Pipeline, Rows, as_list, finite, split_rows
from minigrad.tensor import Tensor


class FeatureExtraction(Pipeline):
    """A text to the vectors of its tokens."""

    head = "base"

    def run(self, inputs: Any) -> Any:
        """The last hidden state of each text, special tokens included; of one text its own alone. Shapes: per text (tokens, hidden)."""
        return self._answers(inputs, self._vectors)

    def _rows_of(self, tokens: PackedTokens) -> Tensor:
        return self.model(tokens).last_hidden_state  # type: ignore[no-any-return]

    def _vectors(self, chunk: Chunk) -> list[Rows]:
        encodings = self._encode(chunk, chunk.inputs)
        return self._compute(chunk, encodings, lambda _, tokens: split_rows(self._rows(tokens), tokens))


class SentenceSimilarity(Pipeline):
    """A text and others to how alike their meanings are: the cosines of their sentence embeddings."""

    head = "base"

    def __init__(self, encoder: SentenceEncoder, *, batch_tokens: int = BATCH_TOKENS, progress: bool = True, **options: Any) -> None:
        super().__init__(encoder.encoder, encoder.tokenizer, batch_tokens=batch_tokens, progress=progress, **options)
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
        """The cosine of source_sentence and each of the sentences."""
        texts = as_list(sentences)[0]
        if not isinstance(source_sentence, str):
            raise ArgumentError(f"source_sentence must be one text, got {type(source_sentence).__name__}")
        vectors = self.encoder.encode([source_sentence, *texts], batch_tokens=self.batch_tokens, progress=self.progress)
        finite(vectors)
        lengths = np.linalg.norm(vectors, axis=1)
        cosines = vectors[1:] @ vectors[0] / np.maximum(lengths[1:] * lengths[0], 1e-12)  # a vector of zeros is like nothing
        return [float(cosine) for cosine in cosines]
