"""Labels of whole texts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from minigrad.errors import ArgumentError
from minigrad.files import listing, quoted
from minigrad.pipeline.base import Pipeline, Rows, as_list, check_count, softmax

FUNCTIONS = ("softmax", "sigmoid", "none")


class TextClassification(Pipeline):
    """A text, or a pair of texts, to its label and score."""

    head = "sequence-classification"

    def run(self, inputs: Any, *, top_k: int | Literal["best"] | None = "best", function_to_apply: str | None = None) -> list[Any]:
        """{"label", "score"} of the best label of each text; with top_k the list of so many best ones, None for all, for each text.

        inputs: a text, a pair as {"text": …, "text_pair": …}, or a list of one of these. function_to_apply: "softmax", "sigmoid" or
        "none"; by default none for a regression, sigmoid for several classes at once or a single label, else softmax.
        One text gives a list of one result without top_k, and with top_k the list of its labels, as in transformers.
        """
        if top_k not in ("best", None):
            check_count("top_k", top_k)
        given, single = as_list(inputs)
        results = [self._read(scores, top_k) for scores in self._scores(given, function_to_apply)]
        return results[0] if single and top_k != "best" else results

    def _scores(self, inputs: list[Any], function: str | None) -> list[Rows]:
        function = self._usual_function() if function is None else function
        if function not in FUNCTIONS:
            raise ArgumentError(f"function_to_apply must be one of {listing(FUNCTIONS)}, got {quoted(function)}")
        encodings = self._encode(*_texts(inputs))
        logits = self._compute(encodings, lambda tokens: list(self.model(tokens).logits.numpy()))
        if function == "none":
            return logits
        return [softmax(row) if function == "softmax" else 1 / (1 + np.exp(-row)) for row in logits]

    def _usual_function(self) -> str:
        config = self.model.config
        if config.problem_type == "regression":
            return "none"
        return "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"

    def _read(self, scores: Rows, top_k: int | str | None) -> Any:
        order = np.argsort(-scores, kind="stable")
        labels = [{"label": self.model.config.id2label[i], "score": float(scores[i])} for i in order.tolist()]
        return labels[0] if isinstance(top_k, str) else labels[:top_k]


def _texts(inputs: list[Any]) -> tuple[list[str], list[str] | None]:
    """Texts and their pairs. Raises: ArgumentError unless all inputs are texts or all are pairs."""
    pairs = [isinstance(given, dict) and given.get("text_pair") is not None for given in inputs]
    for i, given in enumerate(inputs):
        if isinstance(given, dict) and not {"text"} <= given.keys() <= {"text", "text_pair"}:
            raise ArgumentError(f"inputs[{i}] must have the keys 'text' and perhaps 'text_pair', got {listing(map(str, given))}")
        if pairs[i] != pairs[0]:
            raise ArgumentError(f"inputs[{i}] and inputs[0] differ in kind: pass texts or pairs of texts, not both in one list")
    texts = [given["text"] if isinstance(given, dict) else given for given in inputs]
    return texts, [given["text_pair"] for given in inputs] if any(pairs) else None
