"""Classification of whole texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from minigrad.data.checks import check_count
from minigrad.errors import ArgumentError
from minigrad.files import listing, quoted
from minigrad.pipeline.base import Chunk, Pipeline, Rows, sigmoid, softmax

FUNCTIONS: Mapping[str, Callable[[Rows], Rows]] = {"softmax": softmax, "sigmoid": sigmoid, "none": lambda logits: logits}


class TextClassification(Pipeline):
    """Classifies a text or a pair of texts."""

    head = "sequence-classification"

    def run(self, inputs: Any, *, top_k: int | Literal["best"] | None = "best", function_to_apply: str | None = None) -> list[Any]:
        """{"label", "score"} of each text's best label; with top_k a list of that many best labels (None: all) for each text.

        inputs: a text, a pair as {"text": …, "text_pair": …}, or a list of one of these. function_to_apply: "softmax", "sigmoid" or "none";
        by default none for regression, sigmoid for multi-label models or a single label, else softmax.
        As in transformers, a single text gives a list of one result without top_k, and the list of its labels with it.
        """
        if not isinstance(top_k, str | None) or top_k not in ("best", None):
            check_count("top_k", top_k)
        function = self._usual_function() if function_to_apply is None else function_to_apply
        if function not in FUNCTIONS:
            raise ArgumentError(f"function_to_apply must be one of {listing(FUNCTIONS)}, got {quoted(function)}")
        results = self._answers(inputs, lambda chunk: self._classify(chunk, function, top_k))
        return [results] if isinstance(inputs, str | dict) and top_k == "best" else results

    def _classify(self, chunk: Chunk, function: str, top_k: int | str | None) -> list[Any]:
        encodings = self._encode(chunk, *_texts(chunk))
        apply = FUNCTIONS[function]
        return self._compute(chunk, encodings, lambda _, tokens: [self._read(apply(row), top_k) for row in self._rows(tokens)])

    def _usual_function(self) -> str:
        config = self.model.config
        if config.problem_type == "regression":
            return "none"
        return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"

    def _read(self, scores: Rows, top_k: int | str | None) -> Any:
        order = np.argsort(-scores, kind="stable")
        labels = [{"label": self.model.config.id2label[i], "score": float(scores[i])} for i in order.tolist()]
        return labels[0] if isinstance(top_k, str) else labels[:top_k]


def _texts(chunk: Chunk) -> tuple[list[str], list[str] | None]:
    """Texts and their pairs. Raises: ArgumentError unless all inputs are texts or all are pairs."""
    given = chunk.inputs
    pairs = [isinstance(entry, dict) and entry.get("text_pair") is not None for entry in given]
    for i, entry in enumerate(given):
        name = f"inputs[{chunk.first + i}]"
        if isinstance(entry, dict) and not {"text"} <= entry.keys() <= {"text", "text_pair"}:
            raise ArgumentError(f"{name} must have the keys 'text' and perhaps 'text_pair', got {listing(map(str, entry))}")
        if pairs[i] != pairs[0]:
            raise ArgumentError(f"{name} and inputs[{chunk.first}] differ in kind: pass texts or pairs of texts, not both in one list")
    texts = [entry["text"] if isinstance(entry, dict) else entry for entry in given]
    return texts, [entry["text_pair"] for entry in given] if any(pairs) else None
