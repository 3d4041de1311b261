"""What may stand at a mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigrad.data import Encoding, PackedTokens
from minigrad.errors import ArgumentError
from minigrad.models.losses import IGNORED
from minigrad.pipeline.base import Pipeline, Rows, as_list, check_count, softmax


class FillMask(Pipeline):
    """A text with one or more masks to the likeliest tokens there."""

    head = "masked-lm"

    def run(self, inputs: Any, *, top_k: int = 5) -> list[Any]:
        """{"score", "token", "token_str", "sequence"} of the top_k likeliest tokens of a text's mask; a list of those for several masks.

        Raises: ArgumentError for a text without the tokenizer's mask.
        """
        check_count("top_k", top_k)
        texts, single = as_list(inputs)
        encodings = self._encode(texts)
        for i, encoding in enumerate(encodings):
            if self.tokenizer.mask_id not in encoding.ids:
                mask = self.tokenizer.convert_ids_to_tokens([self.tokenizer.mask_id])[0]
                raise ArgumentError(f"text {i} has no {mask} to fill (within its {len(encoding)} tokens)")
        found = self._compute(encodings, self._logits_at_masks)
        results = [self._read(encoding, softmax(rows), top_k) for encoding, rows in zip(encodings, found, strict=True)]
        return results[0] if single else results

    def _logits_at_masks(self, tokens: PackedTokens) -> list[Rows]:
        masked = tokens.input_ids == self.tokenizer.mask_id
        labels = np.where(masked, 0, IGNORED)  # any label: it says where logits are wanted
        logits = self.model(tokens, labels=labels, labelled_only=True).logits.numpy()
        ends = np.cumsum(np.add.reduceat(masked, tokens.packing.first_rows, dtype=np.int64))
        return np.split(logits, ends[:-1])

    def _read(self, encoding: Encoding, scores: Rows, top_k: int) -> list[Any]:
        """Shapes: scores (masks, vocabulary)."""
        places: list[int] = np.flatnonzero(encoding.ids == self.tokenizer.mask_id).tolist()
        results = []
        for place, row in zip(places, scores, strict=True):
            known = row[: self.tokenizer.vocab_size]  # a table of embeddings may have more rows than there are tokens
            best: list[int] = np.argsort(-known, kind="stable")[:top_k].tolist()
            results.append([self._filled(encoding, place, token, float(row[token]), alone=len(places) == 1) for token in best])
        return results[0] if len(places) == 1 else results

    def _filled(self, encoding: Encoding, place: int, token: int, score: float, alone: bool) -> dict[str, Any]:
        ids = encoding.ids.copy()
        ids[place] = token
        sequence = self.tokenizer.decode(ids[ids != self.tokenizer.pad_id], skip_special_tokens=alone)
        word = self.tokenizer.decode([token], skip_special_tokens=False)
        return {"score": score, "token": token, "token_str": word, "sequence": sequence}
