"""The example on pairs: what its data hold, and the whole script on a tiny random model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from examples.scripts import script
from small_models import directory

from minigrad.data import LabelMap
from minigrad.data.split import split_records


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return script("finetune_pairs.py")


def test_the_data_are_what_the_file_says(example: ModuleType) -> None:
    people, pairs = example.make_pairs(100, seed=1)
    assert len(pairs) == 100 * 16
    topic_of = {thing: topic for topic, thing in example.catalogue()}
    right = 0
    for record in pairs:
        user = people[int(record.fields["user"].removeprefix("user "))]
        assert record.text == user.profile and user.tired_of not in user.likes
        assert all(topic in record.text for topic in (*user.likes, user.tired_of)), "the profile names all three"
        topic = next(topic for thing, topic in topic_of.items() if thing in record.text_b)
        right += (topic in user.likes) == (record.label == example.LIKED)
    # 1600 answers, each noise with probability 1/20: standard deviation 0.0054; four of them.
    assert abs(right / len(pairs) - 0.95) < 4 * 0.0054
    assert len({(user.likes, user.tired_of) for user in people}) == 100, "no two users have the same taste"


def test_the_same_seed_makes_the_same_data(example: ModuleType) -> None:
    assert example.make_pairs(20, seed=3)[1] == example.make_pairs(20, seed=3)[1] != example.make_pairs(20, seed=4)[1]


def test_the_item_alone_tells_nothing(example: ModuleType) -> None:
    labels = LabelMap((example.NOT_LIKED, example.LIKED))
    scores = []
    for seed in range(3):
        pairs = example.make_pairs(100, seed)[1]
        half = split_records(pairs, {"train": 0.7, "test": 0.3}, seed=seed, group_column="user", near_duplicates=None)
        assert not {r.fields["user"] for r in half["train"]} & {r.fields["user"] for r in half["test"]}
        counts = Counter(record.label for record in half["test"])
        assert abs(counts[example.LIKED] / counts.total() - 0.5) < 0.03, "balanced"
        scores.append(example.item_only_accuracy(half["train"], half["test"], labels))
    assert np.mean(scores) < 0.57, scores  # guessing: 0.5, standard deviation of one about 0.02, and topics differ a little by chance


def test_the_whole_script(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = directory(tmp_path / "model", "BertModel")
    arguments = ["--model", str(model), "--layers", "1", "--users", "12", "--epochs", "1", "--output", str(tmp_path / "run")]
    figures = example.main(arguments)
    assert figures.keys() == {"accuracy", "auc", "item_only_accuracy", "majority_accuracy"}
    assert all(0 <= figure <= 1 for figure in figures.values())
    printed = capsys.readouterr().out
    assert "new users" in printed and "the item alone" in printed
    ranking = [line for line in printed.splitlines() if line.startswith("  0.")]
    assert len(ranking) == 8
    scores = [float(line.split()[0]) for line in ranking]
    assert scores == sorted(scores, reverse=True)
    assert example.main([*arguments, "--resume"]) == figures


def test_users_are_limited(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(["--users", "169"])
    assert "--users lies between 10 and 168, got 169" in capsys.readouterr().err
