"""Small BERTs and ragged batches for the tests of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import models
from minigrad.models import BertConfig, BertForSequenceClassification, BertModel
from minigrad.models.config import default_labels
from minigrad.packing import PackedTokens

SIZES: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 10,
    "initializer_range": 0.25,  # far larger than BERT's, so that attention is not uniform
}


def config(num_labels: int = 3, **changes: Any) -> BertConfig:
    return BertConfig(**(SIZES | {"id2label": default_labels(num_labels)} | changes))


HEADS = (
    "BertModel",
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertLMHeadModel",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "BertForMultipleChoice",
)
"""Every published model of the family."""

TOKEN_HEADS = ("BertForMaskedLM", "BertLMHeadModel", "BertForTokenClassification")
"""Those whose labels are one for each token."""


def head(kind: str, dtype: str = "float64", dropout: float = 0.0, **changes: Any) -> Any:
    """Any of HEADS with random weights, in training mode; a language model reads from left to right."""
    mg.manual_seed(1)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "is_decoder": kind == "BertLMHeadModel"}
    return randomised(getattr(models, kind)(config(**(rates | changes))), dtype)


def classifier(dtype: str = "float64", dropout: float = 0.0, **changes: Any) -> BertForSequenceClassification:
    """Random weights (biases and norms too, so that no term is hidden by a zero or one), in training mode."""
    mg.manual_seed(1)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return randomised(BertForSequenceClassification(config(**(rates | changes))), dtype)


def encoder(dtype: str = "float64", dropout: float = 0.0, add_pooling_layer: bool = True, **changes: Any) -> BertModel:
    mg.manual_seed(1)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return randomised(BertModel(config(**(rates | changes)), add_pooling_layer), dtype)


def randomised(model: Any, dtype: str) -> Any:
    generator = np.random.default_rng(2)
    for _, parameter in model.to(dtype).named_parameters():
        if parameter.ndim == 1:
            parameter.assign(np.array(parameter.numpy()) + 0.2 * generator.standard_normal(parameter.shape))
    return model.train()


@dataclass(frozen=True)
class Ragged:
    """The same sequences as lists and as padded arrays."""

    ids: list[np.ndarray]
    types: list[np.ndarray]
    labels: np.ndarray

    def padded(self, longest: int = 0, rows: Any = None) -> dict[str, np.ndarray]:
        chosen = range(len(self.ids)) if rows is None else rows
        longest = longest or max(len(self.ids[i]) for i in chosen)
        arrays = {key: np.zeros((len(chosen), longest), np.int64) for key in ("input_ids", "attention_mask", "token_type_ids")}
        for row, i in enumerate(chosen):
            n = len(self.ids[i])
            arrays["attention_mask"][row, :n] = 1
            arrays["input_ids"][row, :n], arrays["token_type_ids"][row, :n] = self.ids[i], self.types[i]
        return arrays

    def feed(self, kind: str, packed: bool, longest: int = 0, rows: Any = None) -> dict[str, Any]:
        """What a model of HEADS is called with to compute its loss; two sequences that follow each other are choices of one example."""
        chosen = list(range(len(self.ids))) if rows is None else list(rows)
        inputs: dict[str, Any] = {"input_ids": self.packed(chosen, chosen)} if packed else self.padded(longest, chosen)
        tokens = [np.where(np.arange(len(self.ids[i])) % 3 == 1, -100, self.ids[i]) for i in chosen]  # of the vocabulary, some ignored
        if packed:
            aligned = np.concatenate(tokens)
        else:
            aligned = np.full(inputs["input_ids"].shape, -100)
            for row, own in enumerate(tokens):
                aligned[row, : len(own)] = own
        pairs = self.labels[chosen] % 2
        if kind in ("BertForMaskedLM", "BertLMHeadModel"):
            return inputs | {"labels": aligned}
        if kind == "BertForTokenClassification":
            return inputs | {"labels": np.where(aligned == -100, -100, aligned % 3)}
        if kind == "BertForPreTraining":
            return inputs | {"labels": aligned, "next_sentence_label": pairs}
        if kind == "BertForNextSentencePrediction":
            return inputs | {"labels": pairs}
        if kind == "BertForSequenceClassification":
            return inputs | {"labels": self.labels[chosen]}
        if kind == "BertForQuestionAnswering":
            lengths = np.array([len(self.ids[i]) for i in chosen])
            return inputs | {"start_positions": (lengths - 1) // 2, "end_positions": lengths - 1}
        if kind == "BertForMultipleChoice":
            if packed:
                return inputs | {"labels": pairs[::2], "num_choices": 2}
            return {key: array.reshape(-1, 2, array.shape[1]) for key, array in inputs.items()} | {"labels": pairs[::2]}
        return inputs

    def packed(self, rows: Any = None, numbers: Any = None) -> PackedTokens:
        chosen = range(len(self.ids)) if rows is None else rows
        return PackedTokens.of([self.ids[i] for i in chosen], [self.types[i] for i in chosen], numbers)


def ragged(seed: int = 0, lengths: tuple[int, ...] = (5, 9, 1, 3), labels: int = 3) -> Ragged:
    generator = np.random.default_rng(seed)
    ids = [generator.integers(1, SIZES["vocab_size"], n) for n in lengths]
    types = [generator.integers(0, 2, n) for n in lengths]
    return Ragged(ids, types, generator.integers(0, labels, len(lengths)))


def results(output: Any) -> dict[str, mg.Tensor]:
    """What a model returned under its published names, without what was not asked for."""
    return {name: value for name, value in vars(output).items() if isinstance(value, mg.Tensor)}


def loss_of(output: Any) -> mg.Tensor:
    """The loss; of the encoder, which has none, a sum of all it returned with fixed weights that do not care about padding."""
    if hasattr(output, "loss"):
        return output.loss
    total = mg.Tensor(np.zeros(()))
    for value in (output.last_hidden_state, output.pooler_output):
        total = total + (value * np.cos(np.arange(value.shape[-1]))).sum()
    return total
