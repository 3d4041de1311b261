"""The settings: what they refuse, how they travel through dicts, and how two of them are compared."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import ArgumentError
from minigrad.train.settings import TrainingSettings, differences

WRONG: dict[str, list[Any]] = {
    "epochs": [0, -1, 1.5, True, "3", None, 2**63],
    "steps": [0, 2.0, "all"],
    "parts": [0, None],
    "workers": [0, "two", None, True, 1.0],
    "lr": [0, -1e-5, float("nan"), float("inf"), "1e-4", True, None, 10**400],
    "weight_decay": [-0.1, float("inf")],
    "layer_decay": [0, 1.1, -1],
    "schedule": ["exponential", None, []],
    "warmup": [-0.1, 1.1, 100],
    "clip": [0, -1, float("nan")],
    "freeze": ["bert.embeddings", [1], None, 5],
    "ema": [0, 1, 1.5],
    "evaluate_every": [0, "epoch"],
    "save_every": [0, 1.5],
    "keep": [1, 0],
    "metric": ["", None, 3],
    "patience": [0, 0.5],
    "on_nonfinite": ["ignore", None],
    "device": ["gpu", "cuda:0", "", 0, ["cpu"]],
    "capture": ["yes", None, 1],
    "seed": [-1, 0.5, 2**63],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_error_that_names_the_setting(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"^{name} must be ") as caught:
        TrainingSettings(**{name: value})
    assert len(str(caught.value)) < 300


def test_a_number_that_no_integer_of_64_bits_holds_is_told_the_bound() -> None:
    with pytest.raises(ArgumentError, match=r"^seed must be an integer below 2\*\*63, got 9"):
        TrainingSettings(seed=2**63)


def test_the_message_about_workers_knows_auto() -> None:
    assert TrainingSettings(workers="auto").workers == "auto"
    with pytest.raises(ArgumentError, match='or "auto"'):
        TrainingSettings(workers="all")


@given(
    st.builds(
        TrainingSettings,
        epochs=st.integers(1, 100),
        steps=st.none() | st.integers(1, 10**6),
        workers=st.just("auto") | st.integers(1, 8),
        lr=st.floats(1e-12, 1e3),
        clip=st.none() | st.floats(1e-6, 100),
        freeze=st.lists(st.text(), max_size=3),
        ema=st.none() | st.floats(0.001, 0.999),
        device=st.sampled_from([None, "cpu", "cuda", "auto"]),
        seed=st.integers(0, 2**63 - 1),
    )
)
def test_through_json_and_back(settings: TrainingSettings) -> None:
    again = TrainingSettings(**json.loads(json.dumps(settings.to_dict())))
    assert again == settings and isinstance(again.freeze, tuple)
    assert list(differences(settings.to_dict(), again.to_dict())) == []


def test_differences() -> None:
    before = {"training": {"lr": 1e-5, "keep": 2, "freeze": []}, "data": "a", "gone": None}
    now = {"training": {"lr": 1e-4, "keep": 5, "freeze": []}, "data": "b", "new": 1}
    assert list(differences(before, now)) == ["data: 'a' then, 'b' now", "new: None then, 1 now", "training.lr: 1e-05 then, 0.0001 now"]


def test_of_long_lists_only_what_differs_is_shown() -> None:
    names = [f"bert.encoder.layer.{i}.attention.output.dense.weight" for i in range(12)]
    (shown,) = differences({"trained": names}, {"trained": [*names[:-1], "classifier.weight"]})
    assert shown == f"trained: {[names[-1]]!r} then, ['classifier.weight'] now"
    assert list(differences({"freeze": ["a"]}, {"freeze": []})) == ["freeze: ['a'] then, [] now"]
    assert list(differences({"shape": [2, 3]}, {"shape": [3, 2]})) == ["shape: [2, 3] then, [3, 2] now"], "another order is a difference"
