"""BERT's TensorFlow names: every variable of a published checkpoint has its place, and nothing else has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models.cases import config

from minigrad.io import TensorFlowCheckpoint
from minigrad.models import BertForSequenceClassification
from minigrad.models.tf_names import is_training_state, published_name

LAYER = {  # variable → (name, transposed), written out: the table is derived, this is what it must come to
    "attention/self/query/kernel": ("attention.self.query.weight", True),
    "attention/self/query/bias": ("attention.self.query.bias", False),
    "attention/self/key/kernel": ("attention.self.key.weight", True),
    "attention/self/key/bias": ("attention.self.key.bias", False),
    "attention/self/value/kernel": ("attention.self.value.weight", True),
    "attention/self/value/bias": ("attention.self.value.bias", False),
    "attention/output/dense/kernel": ("attention.output.dense.weight", True),
    "attention/output/dense/bias": ("attention.output.dense.bias", False),
    "attention/output/LayerNorm/gamma": ("attention.output.LayerNorm.weight", False),
    "attention/output/LayerNorm/beta": ("attention.output.LayerNorm.bias", False),
    "intermediate/dense/kernel": ("intermediate.dense.weight", True),
    "intermediate/dense/bias": ("intermediate.dense.bias", False),
    "output/dense/kernel": ("output.dense.weight", True),
    "output/dense/bias": ("output.dense.bias", False),
    "output/LayerNorm/gamma": ("output.LayerNorm.weight", False),
    "output/LayerNorm/beta": ("output.LayerNorm.bias", False),
}
ENCODER = {
    "bert/embeddings/word_embeddings": ("bert.embeddings.word_embeddings.weight", False),
    "bert/embeddings/position_embeddings": ("bert.embeddings.position_embeddings.weight", False),
    "bert/embeddings/token_type_embeddings": ("bert.embeddings.token_type_embeddings.weight", False),
    "bert/embeddings/LayerNorm/gamma": ("bert.embeddings.LayerNorm.weight", False),
    "bert/embeddings/LayerNorm/beta": ("bert.embeddings.LayerNorm.bias", False),
    **{
        f"bert/encoder/layer_{at}/{variable}": (f"bert.encoder.layer.{at}.{name}", transposed)
        for at in range(2)
        for variable, (name, transposed) in LAYER.items()
    },
    "bert/pooler/dense/kernel": ("bert.pooler.dense.weight", True),
    "bert/pooler/dense/bias": ("bert.pooler.dense.bias", False),
}
CLASSIFIER = {"output_weights": ("classifier.weight", False), "output_bias": ("classifier.bias", False)}
PRETRAINING = {
    "cls/predictions/transform/dense/kernel": ("cls.predictions.transform.dense.weight", True),
    "cls/predictions/transform/dense/bias": ("cls.predictions.transform.dense.bias", False),
    "cls/predictions/transform/LayerNorm/gamma": ("cls.predictions.transform.LayerNorm.weight", False),
    "cls/predictions/transform/LayerNorm/beta": ("cls.predictions.transform.LayerNorm.bias", False),
    "cls/predictions/output_bias": ("cls.predictions.bias", False),
    "cls/seq_relationship/output_weights": ("cls.seq_relationship.weight", False),
    "cls/seq_relationship/output_bias": ("cls.seq_relationship.bias", False),
}
SQUAD = {"cls/squad/output_weights": ("qa_outputs.weight", False), "cls/squad/output_bias": ("qa_outputs.bias", False)}
ALL = ENCODER | CLASSIFIER | PRETRAINING | SQUAD


@pytest.mark.parametrize("variable", ALL)
def test_every_variable_of_a_two_layer_model(variable: str) -> None:
    assert published_name(variable) == ALL[variable]
    assert not is_training_state(variable)
    for moment in ("adam_m", "adam_v"):
        assert published_name(f"{variable}/{moment}") is None
        assert is_training_state(f"{variable}/{moment}")


def test_the_names_are_those_of_the_model() -> None:
    """A classifier of two layers has these parameters, no more and no fewer."""
    model = BertForSequenceClassification(config(num_hidden_layers=2))
    assert {name for name, _ in (ENCODER | CLASSIFIER).values()} == set(model.state_dict())


def test_no_two_variables_are_one_parameter() -> None:
    assert len({name for name, _ in ALL.values()}) == len(ALL)


def test_layers_are_numbered_as_in_the_checkpoint() -> None:
    found = published_name("bert/encoder/layer_23/output/dense/kernel")
    assert found is not None and found.name == "bert.encoder.layer.23.output.dense.weight"


@pytest.mark.parametrize(
    "variable",
    [
        "",
        "global_step",
        "bert/encoder/layer_x/output/dense/kernel",
        "bert/encoder/layer_01/output/dense/kernel",
        "bert/encoder/layer_٣/output/dense/kernel",
        "bert/encoder/layer_0/output/dense/kernel/",
        "bert/encoder/layer_0/crossattention/self/query/kernel",
        "bert/embeddings/word_embeddings_2",  # ALBERT's factorised embedding has names of this kind
        "electra/embeddings/word_embeddings",
        "bert/pooler/dense/gamma",
        "model/layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE",  # checkpoints of TensorFlow 2's object graph
    ],
)
def test_other_variables_have_no_place(variable: str) -> None:
    assert published_name(variable) is None


@pytest.mark.parametrize(
    "variable",
    ["global_step", "beta1_power", "beta2_power", "bert/pooler/dense/kernel/Adam", "bert/pooler/dense/kernel/Adam_1", "output_bias/lamb_m"],
)
def test_training_state(variable: str) -> None:
    assert is_training_state(variable)


@pytest.mark.parametrize("variable", ["", "global_step_embedding", "bert/adam_m/kernel", "Adam_2", "bert/embeddings/word_embeddings"])
def test_what_is_not_training_state(variable: str) -> None:
    assert not is_training_state(variable)


def test_the_published_tiny_checkpoint_fills_a_model(shared_data: Path) -> None:
    """Every variable of BERT's own pretraining is a parameter or training state, and with its transposition has the parameter's shape."""
    small = config(
        vocab_size=15,
        hidden_size=4,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=16,
        max_position_embeddings=16,
        type_vocab_size=2,
    )
    parameters = BertForSequenceClassification(small).state_dict()
    found: dict[str, np.ndarray] = {}
    with TensorFlowCheckpoint(shared_data / "ckpt_tf_tiny" / "bert_model.ckpt") as file:
        for variable in file.names():
            place = published_name(variable)
            assert (place is None) == is_training_state(variable), variable
            if place is not None:
                array = file.read(variable)
                found[place.name] = array.T if place.transposed else array
    assert set(found) == {name for name, _ in (ENCODER | PRETRAINING).values()}
    for name, parameter in parameters.items():
        if not name.startswith("classifier."):
            assert found[name].shape == parameter.shape, name
