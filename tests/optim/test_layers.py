"""Layer-wise learning rates: every parameter occurs once, and each layer has a lower rate than the one above it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ArgumentError
from minigrad.models import BertConfig, BertForSequenceClassification
from minigrad.optim import layer_groups


def model_with(*names: str) -> list[tuple[str, mg.Parameter]]:
    return [(name, mg.Parameter(np.ones((2, 2)))) for name in names]


def rates(groups: list[dict[str, Any]]) -> dict[str, float]:
    return {name: group["lr"] for group in groups for name, _ in group["params"]}


def bert(layers: int) -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=11,
            hidden_size=4,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=4,
            max_position_embeddings=6,
        )
    )


def test_bert_from_the_embeddings_to_the_classifier() -> None:
    named = list(bert(12).named_parameters())
    groups = layer_groups(named, lr=1.0, decay=0.5, weight_decay=0.1)
    found = rates(groups)
    assert sorted(found) == sorted(name for name, _ in named)  # each once
    for name, rate in found.items():
        if ".layer." in name:
            assert rate == 0.5 ** (11 - int(name.split(".layer.")[1].split(".")[0])), name
        elif "embeddings" in name:
            assert rate == 0.5**12, name
        else:
            assert "pooler" in name or "classifier" in name
            assert rate == 1.0, name
    for group in groups:
        for name, parameter in group["params"]:
            decayed = parameter.ndim >= 2 and "bias" not in name and "LayerNorm" not in name
            assert group["weight_decay"] == (0.1 if decayed else 0.0), name
    optimizer = mg.optim.AdamW(groups)
    assert len(optimizer.param_groups) == 28  # (embeddings, 12 layers, heads), each with decay and without
    schedule = mg.optim.LinearSchedule(optimizer, 0, 2)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] / 2 for group in groups]


def test_a_layer_that_learns_slower_moves_less() -> None:
    model = bert(2)
    before = {name: np.array(p.numpy()) for name, p in model.named_parameters()}
    optimizer = mg.optim.Lion(layer_groups(model.named_parameters(), lr=0.1, decay=0.5))
    for _, p in model.named_parameters():
        (p * 1.0).sum().backward()
    optimizer.step()
    for name, p in model.named_parameters():  # a step of Lion is as long as the learning rate
        expected = 0.05 if ".layer.0." in name else 0.025 if "embeddings" in name else 0.1
        np.testing.assert_allclose(before[name] - p.numpy(), expected, rtol=1e-5)  # float32 numbers around 1


def test_any_model_with_numbers_in_its_paths() -> None:
    named = model_with("wte", "h.0.attn.w", "h.0.mlp.w", "h.5.attn.w", "h.10.attn.w", "ln_f.w", "head.w")
    expected = {"wte": 1 / 8, "h.0.attn.w": 1 / 4, "h.0.mlp.w": 1 / 4, "h.5.attn.w": 1 / 2, "h.10.attn.w": 1, "ln_f.w": 1, "head.w": 1}
    assert rates(layer_groups(iter(named), 1.0, 0.5)) == expected


def test_a_sequence_of_layers_counts_those_that_have_parameters() -> None:
    model = mg.nn.Sequential(mg.nn.Linear(2, 2), mg.nn.ReLU(), mg.nn.Linear(2, 2))
    found = rates(layer_groups(model.named_parameters(), 1.0, 0.5))
    assert found == {"layers.0.weight": 0.5, "layers.0.bias": 0.5, "layers.2.weight": 1.0, "layers.2.bias": 1.0}


def test_only_the_first_number_of_a_path_counts() -> None:
    named = model_with("layers.0.experts.5.w", "layers.1.experts.7.w")
    assert rates(layer_groups(named, 1.0, 0.5)) == {"layers.0.experts.5.w": 0.5, "layers.1.experts.7.w": 1.0}


def test_one_of_several_places_is_chosen() -> None:
    named = model_with("encoder.layers.0.w", "encoder.layers.1.w", "decoder.layers.0.w", "head.w")
    with pytest.raises(ArgumentError, match=r"layers= one of 'decoder\.layers', 'encoder\.layers'"):
        layer_groups(named, 1.0, 0.5)
    found = rates(layer_groups(named, 1.0, 0.5, layers="encoder.layers"))
    assert found == {"encoder.layers.0.w": 0.5, "encoder.layers.1.w": 1.0, "decoder.layers.0.w": 1.0, "head.w": 1.0}


def test_a_decay_of_one_gives_every_layer_the_same_rate() -> None:
    assert set(rates(layer_groups(bert(2).named_parameters(), 0.3, 1.0)).values()) == {0.3}


def test_the_words_without_decay_can_be_chosen() -> None:
    groups = layer_groups(model_with("h.0.scale", "h.0.w"), 1.0, 0.5, 0.1, no_decay=["scale"])
    assert [([name for name, _ in group["params"]], group["weight_decay"]) for group in groups] == [(["h.0.w"], 0.1), (["h.0.scale"], 0.0)]


LAYERED = model_with("h.0.w")


@pytest.mark.parametrize(
    ("named", "arguments", "says"),
    [
        (model_with("embedding", "head.w"), {}, "no parameter lies in a numbered layer.*use decay_groups"),
        ([], {}, "no parameter lies in a numbered layer"),
        (LAYERED, {"layers": "encoder"}, "no numbered layers under 'encoder', but under 'h'"),
        (LAYERED, {"lr": -1.0}, "lr must be a number >= 0"),
        (LAYERED, {"decay": 0.0}, "decay must be above 0"),
        (LAYERED, {"decay": 1.1}, "decay must be at most 1"),
        (LAYERED, {"decay": None}, "decay must be a number"),
        (LAYERED, {"weight_decay": -1}, "weight_decay must be a number"),
        ([p for _, p in LAYERED], {}, r"layer_groups goes by names: pass model\.named_parameters\(\)"),
        (mg.nn.Linear(2, 2), {}, "cannot take parameters from Linear"),
        ([("h.0.w", np.ones(2))], {}, "is a ndarray, not a Parameter|is a tuple, not a Parameter"),
    ],
)
def test_wrong_arguments_are_named(named: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        layer_groups(named, **({"lr": 1.0, "decay": 0.5} | arguments))
