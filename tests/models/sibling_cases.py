"""Small RoBERTas, DistilBERTs and ELECTRAs, and what each head is called with."""

from __future__ import annotations

from typing import Any

import numpy as np
from models.cases import Ragged, randomised

import minigrad as mg
from minigrad import models
from minigrad.models import DistilBertConfig, ElectraConfig, RobertaConfig
from minigrad.models.config import PretrainedConfig, default_labels

CONFIGS: dict[str, type[PretrainedConfig]] = {"Roberta": RobertaConfig, "DistilBert": DistilBertConfig, "Electra": ElectraConfig}

HEADS: dict[str, tuple[str, ...]] = {
    "Roberta": ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    "DistilBert": ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    "Electra": ("Model", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
}
KINDS = tuple(family + head for family, heads in HEADS.items() for head in heads)
TOKEN_HEADS = tuple(kind for kind in KINDS if kind.endswith(("ForMaskedLM", "ForTokenClassification", "ForPreTraining")))
"""Those whose labels are one for each token."""

SIZES: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 12,
    "initializer_range": 0.25,  # far larger than the published, so that attention is not uniform
}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "Roberta": {"layer_norm_eps": 1e-5, "pad_token_id": 1},
    "DistilBert": {"qa_dropout": 0.0, "seq_classif_dropout": 0.0},
    "Electra": {"embedding_size": 7},
}


def family_of(kind: str) -> str:
    return next(family for family in CONFIGS if kind.startswith(family))


def config(family: str, num_labels: int = 3, **changes: Any) -> Any:
    return CONFIGS[family](**(SIZES | OWN_SIZES[family] | {"id2label": default_labels(num_labels)} | changes))


def head(kind: str, dtype: str = "float64", dropout: float = 0.0, **changes: Any) -> Any:
    """Any of KINDS with random weights, in training mode."""
    mg.manual_seed(1)
    family = family_of(kind)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if family == "DistilBert":
        rates |= {"qa_dropout": dropout, "seq_classif_dropout": dropout}
    return randomised(getattr(models, kind)(config(family, **(rates | changes))), dtype)


def feed(batch: Ragged, kind: str, packed: bool, longest: int = 0, rows: Any = None) -> dict[str, Any]:
    """What a model of KINDS is called with to compute its loss."""
    family = family_of(kind)
    if family == "Roberta":  # whose padding id is no text: it is not trained
        batch = Ragged([np.where(ids == 1, 2, ids) for ids in batch.ids], batch.types, batch.labels)
    own = batch.feed("Bert" + kind.removeprefix(family), packed, longest, rows)
    if kind == "ElectraForPreTraining":
        own = batch.feed("BertForTokenClassification", packed, longest, rows)
        own["labels"] = np.where(own["labels"] == -100, -100, own["labels"] % 2)
    if family == "Roberta" and not packed:  # padded with its own padding
        own["input_ids"][own["attention_mask"] == 0] = 1
    if family == "DistilBert":
        own.pop("token_type_ids", None)
    return own
