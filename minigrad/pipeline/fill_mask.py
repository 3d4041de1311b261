"""Predicts masked tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.data import Encoding, PackedTokens
from minigrad.data.checks import check_count
from minigrad.errors import ArgumentError, InputError
from minigrad.files import listing, quoted
from minigrad.pipeline.base import Chunk, Pipeline, Rows, as_list, softmax
from minigrad.tensor import Tensor


class FillMask(Pipeline):
    """Finds the likeliest tokens for one or more masks in a text."""

    head = "masked-lm"

    def run(self, inputs: Any, *, top_k: int = 5, targets: str | Iterable[str] | None = None) -> Any:
        """{"score", "token", "token_str", "sequence"} of the top_k likeliest tokens at a mask; for several masks a list of such lists.

        targets: choose only among these words, each of which must be one token; scores remain probabilities among all tokens.
        Raises: InputError for a text without the tokenizer's mask; ArgumentError for a target of several tokens.
        """
        count = check_count("top_k", top_k)
        known = min(self.tokenizer.vocab_size, self.model.config.vocab_size)  # either may have spare ids
        candidates = np.arange(known) if targets is None else self._ids(targets, known)
        return self._answers(inputs, lambda chunk: self._fill(chunk, count, candidates))

    def _ids(self, targets: Any, known: int) -> NDArray[np.int64]:
        found = []
        for target in as_list(targets)[0]:
            number = self.tokenizer.token_to_id(target) if isinstance(target, str) else None
            if number is None:
                (encoding,) = self.tokenizer.encode([target])
                tokens = encoding.ids[~encoding.special_tokens_mask]
                if len(tokens) != 1 or tokens[0] == self.tokenizer.unk_id:
                    pieces = listing(self.tokenizer.convert_ids_to_tokens(tokens)) or "none"
                    raise ArgumentError(f"the target {quoted(target)} is no single token of the vocabulary; its tokens: {pieces}")
                number = int(tokens[0])
            if number >= known:
                raise ArgumentError(f"the target {quoted(target)} has the id {number}, but the model knows {known} tokens")
            found.append(number)
        if not found:
            raise ArgumentError("targets must hold a word, or be None for the whole vocabulary")
        return np.unique(found)

    def _fill(self, chunk: Chunk, top_k: int, candidates: NDArray[np.int64]) -> list[Any]:
        encodings = self._encode(chunk, chunk.inputs)
        for i, encoding in enumerate(encodings, chunk.first):
            if self.tokenizer.mask_id not in encoding.ids:
                mask = self.tokenizer.convert_ids_to_tokens([self.tokenizer.mask_id])[0]
                raise InputError("text", i, f"has no {mask} to fill (within its {len(encoding)} tokens)")

        def read(numbers: Iterable[int], tokens: PackedTokens) -> list[Any]:
            logits = self._logits_at_masks(tokens)
            return [self._read(encodings[i], softmax(rows), top_k, candidates) for i, rows in zip(numbers, logits, strict=True)]

        return self._compute(chunk, encodings, read)

    def _logits_at_masks(self, tokens: PackedTokens) -> list[Rows]:
        masked = tokens.input_ids == self.tokenizer.mask_id
        logits = self._rows(tokens, np.flatnonzero(masked))
        ends = np.cumsum(np.add.reduceat(masked, tokens.packing.first_rows, dtype=np.int64))
        return np.split(logits, ends[:-1])

    def _rows_of(self, tokens: PackedTokens, rows: Any = None) -> Tensor:
        return self.model(tokens, rows=rows).logits  # type: ignore[no-any-return]

    def _read(self, encoding: Encoding, scores: Rows, top_k: int, candidates: NDArray[np.int64]) -> list[Any]:
        """`candidates`: ids of the tokens to choose from. Shapes: scores (masks, vocabulary)."""
        places: list[int] = np.flatnonzero(encoding.ids == self.tokenizer.mask_id).tolist()
        results = []
        for place, row in zip(places, scores, strict=True):
            best: list[int] = candidates[np.argsort(-row[candidates], kind="stable")[:top_k]].tolist()
            results.append([self._filled(encoding, place, token, float(row[token]), alone=len(places) == 1) for token in best])
        return results[0] if len(places) == 1 else results

    def _filled(self, encoding: Encoding, place: int, token: int, score: float, alone: bool) -> dict[str, Any]:
        ids = encoding.ids.copy()
        ids[place] = token
        sequence = self.tokenizer.decode(ids[ids != self.tokenizer.pad_id], skip_special_tokens=alone)
        word = self.tokenizer.decode([token], skip_special_tokens=False)
        return {"score": score, "token": token, "token_str": word, "sequence": sequence}
