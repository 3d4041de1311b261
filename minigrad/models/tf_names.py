"""The names of BERT's variables in TensorFlow checkpoints, and their published PyTorch names, which minigrad uses.

The PyTorch names were made from TensorFlow's: scopes became attributes, a dense `kernel` the transposed `weight`, `gamma` and `beta`
of a layer normalisation `weight` and `bias`. Only variables that BERT has are given a name, so that a checkpoint of another model is
noticed rather than half read.

Source: google-research/bert (modeling.py, run_pretraining.py, run_classifier.py, run_squad.py, optimization.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple


class PublishedName(NamedTuple):
    """A parameter by its published name; `transposed` if the checkpoint holds it as (inputs, outputs), the model as (outputs, inputs)."""

    name: str
    transposed: bool


_LAYER = re.compile(r"bert/encoder/layer_(0|[1-9]\d{0,4})/", re.ASCII)

_DENSE_IN_LAYER = (
    "attention/self/query",
    "attention/self/key",
    "attention/self/value",
    "attention/output/dense",
    "intermediate/dense",
    "output/dense",
)
_NORMS_IN_LAYER = ("attention/output/LayerNorm", "output/LayerNorm")
_DENSE = ("bert/pooler/dense", "cls/predictions/transform/dense")
_NORMS = ("bert/embeddings/LayerNorm", "cls/predictions/transform/LayerNorm")
_EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def _table(dense: tuple[str, ...], norms: tuple[str, ...]) -> dict[str, PublishedName]:
    """Published names of the variables of dense layers and layer normalisations in these scopes."""
    names: dict[str, PublishedName] = {}
    for scope in dense:
        path = scope.replace("/", ".")
        names[f"{scope}/kernel"] = PublishedName(f"{path}.weight", True)
        names[f"{scope}/bias"] = PublishedName(f"{path}.bias", False)
    for scope in norms:
        path = scope.replace("/", ".")
        names[f"{scope}/gamma"] = PublishedName(f"{path}.weight", False)
        names[f"{scope}/beta"] = PublishedName(f"{path}.bias", False)
    return names


IN_LAYER = _table(_DENSE_IN_LAYER, _NORMS_IN_LAYER)
"""Variables of one encoder layer, both sides without the layer's own prefix."""

OUTSIDE_LAYERS = {
    **_table(_DENSE, _NORMS),
    **{f"bert/embeddings/{table}": PublishedName(f"bert.embeddings.{table}.weight", False) for table in _EMBEDDINGS},
    "cls/predictions/output_bias": PublishedName("cls.predictions.bias", False),
    # Heads that multiply by the transposed matrix hold it as PyTorch does: (outputs, inputs).
    "cls/seq_relationship/output_weights": PublishedName("cls.seq_relationship.weight", False),
    "cls/seq_relationship/output_bias": PublishedName("cls.seq_relationship.bias", False),
    "cls/squad/output_weights": PublishedName("qa_outputs.weight", False),
    "cls/squad/output_bias": PublishedName("qa_outputs.bias", False),
    "output_weights": PublishedName("classifier.weight", False),
    "output_bias": PublishedName("classifier.bias", False),
}
"""Variables of the embeddings, the pooler and the heads."""

_TRAINING_STATE = re.compile(
    r"global_step|beta[12]_power|(.+/)?(adam_[mv]|lamb_[mv]|Adam(_1)?|AdamWeightDecayOptimizer(_1)?|LAMBOptimizer(_1)?)", re.DOTALL
)


def published_name(variable: str) -> PublishedName | None:
    """The parameter that a TensorFlow variable of BERT holds, or None for any other variable."""
    layer = _LAYER.match(variable)
    if layer is None:
        return OUTSIDE_LAYERS.get(variable)
    inner = IN_LAYER.get(variable[layer.end() :])
    return None if inner is None else PublishedName(f"bert.encoder.layer.{layer[1]}.{inner.name}", inner.transposed)


def is_training_state(variable: str) -> bool:
    """Whether a variable belongs to the training run and not to the model: the step counter and the optimizer's moments."""
    return _TRAINING_STATE.fullmatch(variable) is not None
