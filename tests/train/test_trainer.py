"""The trainer: the same numbers as a plain loop, really the best model, and settings that do what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train.captured.test_steps import CONFIG
from train.runs import digest, last_digest, log_of, run_folder, trained_by_hand

import minigrad as mg
from minigrad.data.loader import PackedLoader
from minigrad.errors import ArgumentError, ConfigError
from minigrad.models import BertConfig, BertForSequenceClassification
from minigrad.train.average import Average
from minigrad.train.config import RunConfig
from minigrad.train.objectives import SequenceClasses
from minigrad.train.run import Run
from minigrad.train.settings import TrainingSettings
from minigrad.train.tasks import Regression
from minigrad.train.trainer import Trainer


def changed(config: RunConfig, **training: Any) -> RunConfig:
    return replace(config, training=replace(config.training, **training))


def test_it_computes_what_a_plain_loop_computes(tmp_path: Path) -> None:
    config = run_folder(tmp_path)
    run = Run(config)
    result = run.fit()
    assert (result.step, result.reason, result.exit_code) == (12, "finished", 0)
    assert last_digest(tmp_path) == digest(trained_by_hand(config))


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification"])
def test_parts_and_workers_add_up_to_the_whole(tmp_path: Path, kind: str) -> None:
    config = run_folder(tmp_path, kind)
    ends = {}
    for parts, workers in ((1, 1), (3, 1), (1, 2), (2, 2)):
        output = replace(config.output, directory=str(tmp_path / f"run-{parts}-{workers}"))
        run = Run(replace(changed(config, parts=parts, workers=workers), output=output))
        run.trainer.fit()
        ends[parts, workers] = run.model.state_dict()
    largest = 0.0
    for end in ends.values():
        for name, array in end.items():
            if name.endswith("key.bias"):  # their gradient is rounding noise around 0, which Adam scales up to steps of its full size
                continue
            largest = max(largest, float(np.abs(array - ends[1, 1][name]).max()))
    print(f"\n{kind}: weights after 12 steps in parts and by workers differ by {largest:.1e} at most")
    assert largest < 1e-5  # float32 sums in another order, after twelve AdamW steps of size 1e-3 each; a lost part moves weights by 1e-3


def test_the_best_model_is_really_the_best(tmp_path: Path) -> None:
    """A rate so high that the last epoch is not the best one."""
    config = run_folder(tmp_path, epochs=6, lr=0.01, schedule="constant", seed=3)
    run = Run(config)
    result = run.fit()
    evaluations = [e for e in log_of(tmp_path) if e["event"] == "evaluation" and e["split"] == "dev"]
    assert len(evaluations) == 6
    figures = [e["metrics"]["accuracy"] for e in evaluations]
    assert result.best is not None
    assert result.best["metrics"]["accuracy"] == max(figures)
    assert result.best["step"] == evaluations[figures.index(max(figures))]["step"], "of equals the first"
    assert len(set(figures)) > 1, "this run can tell the best from the last"
    again = run.task.evaluate(mg.models.load(tmp_path / "run" / "best"), run.examples["dev"])
    assert again.metrics == result.best["metrics"]


def test_a_metric_that_falls_is_better_when_it_is_smaller(tmp_path: Path) -> None:
    run = Run(run_folder(tmp_path, metric="loss", epochs=5, lr=0.05, schedule="constant"))
    result = run.fit()
    losses = [e["metrics"]["loss"] for e in log_of(tmp_path) if e["event"] == "evaluation" and e["split"] == "dev"]
    assert result.best is not None and result.best["metrics"]["loss"] == min(losses)


def test_early_stopping(tmp_path: Path) -> None:
    run = Run(run_folder(tmp_path, patience=2, epochs=50, lr=1e-12, metric="accuracy"))
    result = run.fit()
    assert (result.reason, result.step) == ("early stopping", 12), "the first evaluation and two that are no better"


def test_steps_take_the_place_of_epochs(tmp_path: Path) -> None:
    result = Run(run_folder(tmp_path, steps=5, evaluate_every=2)).fit()
    assert result.step == 5
    evaluated = [e["step"] for e in log_of(tmp_path) if e["event"] == "evaluation" and e["split"] == "dev"]
    assert evaluated == [2, 4, 5], "every two steps, and at the end"


def test_frozen_parameters_stay_byte_for_byte(tmp_path: Path) -> None:
    run = Run(run_folder(tmp_path, freeze=["bert.embeddings", "bert.encoder.layer.0"]))
    before = {name: p.numpy().tobytes() for name, p in run.model.named_parameters() if not p.requires_grad}
    assert len(before) == 5 + 16
    moved = run.model.state_dict()
    run.fit()
    after = dict(run.trainer.model.named_parameters())
    assert all(after[name].numpy().tobytes() == old for name, old in before.items())
    assert any((after[name].numpy() != moved[name]).any() for name in after if name not in before)


def test_nothing_left_to_train(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="leaves nothing to train"):
        Run(run_folder(tmp_path, freeze=["*"]))


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5, float("nan")])
def test_an_average_that_would_not_move_or_run_away_is_refused(decay: float) -> None:
    weight = mg.Parameter(np.ones(2, np.float32))
    with pytest.raises(ArgumentError, match="decay above 0 and below 1"):
        Average(mg.optim.SGD([weight], lr=0.1), decay)
    with pytest.raises(ArgumentError, match="the optimizer of the weights, got Linear"):
        Average(mg.nn.Linear(2, 2), decay)  # type: ignore[arg-type]


def test_the_average_is_evaluated_and_kept(tmp_path: Path) -> None:
    decay = 0.5
    run = Run(run_folder(tmp_path, ema=decay, epochs=1))
    average = {name: np.array(p.numpy()) for name, p in run.model.named_parameters()}
    update = run.trainer.average.update  # type: ignore[union-attr]

    def follow() -> None:
        for name, p in run.model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * p.numpy()
        update()

    run.trainer.average.update = follow  # type: ignore[union-attr, method-assign]
    run.trainer.fit()
    best = mg.models.load(tmp_path / "run" / "best").state_dict()
    for name, array in best.items():
        np.testing.assert_allclose(array, average[name], atol=1e-6)  # float32 rounding of four averages
    assert any(np.abs(best[name] - own).max() > 1e-4 for name, own in run.model.state_dict().items()), "not the weights themselves"


def test_layers_learn_at_their_own_rates(tmp_path: Path) -> None:
    run = Run(run_folder(tmp_path, layer_decay=0.5, schedule="constant", warmup=0.0))
    rates = {run.trainer.optimizer.arena.names[p]: group["lr"] for group in run.trainer.optimizer.param_groups for p in group["params"]}
    assert rates["classifier.weight"] == rates["bert.encoder.layer.1.output.dense.weight"] == 1e-3
    assert rates["bert.encoder.layer.0.output.dense.weight"] == 5e-4
    assert rates["bert.embeddings.word_embeddings.weight"] == 2.5e-4


def test_the_log_says_what_a_watcher_wants_to_know(tmp_path: Path) -> None:
    Run(run_folder(tmp_path), ["python", "-m", "minigrad", "train", "x.toml"]).fit()
    events = log_of(tmp_path)
    assert [e["event"] for e in events].count("step") == 12
    assert events[0]["event"] == "start" and events[0]["run"]["command"][-1] == "x.toml"
    assert events[0]["run"]["data"]["train"]["records"] == 48 and set(events[0]["run"]["data"]["train"]["labels"]) == {"thing", "person"}
    step = next(e for e in events if e["event"] == "step" and e["step"] == 7)
    assert step["loss"] > 0 and step["grad_norm"] > 0 and 0 < step["lr"] <= 1e-3 and step["tokens"] > 12
    assert step["tokens_per_second"] > 0 and 0 < step["padding_saved"] < 1 and step["memory_mb"] > 10 and step["seconds_left"] > 0
    assert events[-2]["event"] == "end" and events[-2]["reason"] == "finished"
    assert events[-1]["split"] == "test"
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions-test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["row"] for row in rows] == list(range(16))
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert events[-1]["metrics"]["accuracy"] == pytest.approx(right, abs=1e-12)


def test_a_finished_directory_is_not_overwritten(tmp_path: Path) -> None:
    config = run_folder(tmp_path, steps=2)
    Run(config).fit()
    before = last_digest(tmp_path)
    with pytest.raises(ConfigError, match="holds a run already"):
        Run(config).fit()
    assert last_digest(tmp_path) == before


def test_regression(tmp_path: Path) -> None:
    config = run_folder(tmp_path, "regression")
    for split in ("train", "dev", "test"):
        path = tmp_path / f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps({"text": r["text"], "label": len(r["entities"]) / 2}) + "\n" for r in rows), encoding="utf-8")
    result = Run(config).fit()
    assert result.best is not None and {"mse", "pearson", "spearman", "loss"} <= set(result.best["metrics"])
    assert result.best["metrics"]["mse"] == pytest.approx(result.best["metrics"]["loss"], rel=1e-12)


def test_groups_reach_the_predictions(tmp_path: Path) -> None:
    config = run_folder(tmp_path, steps=1)
    Run(replace(config, data=replace(config.data, group="desk"))).fit()
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions-dev.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["group"] == row["text"].split()[0] for row in rows)


# ---------------------------------------------------------------- what a trainer is given
def trainer(**given: Any) -> Trainer:
    """Of a tiny model, one epoch of one step."""
    values: dict[str, Any] = {
        "model": BertForSequenceClassification(BertConfig(**CONFIG)),
        "objective": SequenceClasses(),
        "loader": PackedLoader([[1, 2], [3]], [0, 1], batch_size=2),
        "settings": TrainingSettings(epochs=1),
    }
    return Trainer(**values | given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "a/path"), ("objective", SequenceClasses), ("objective", print), ("objective", Regression()),
        ("loader", [1, 2]), ("loader", None), ("settings", {"epochs": 1}), ("evaluate", {"loss": 1.0}), ("output", "run"),
        ("callbacks", [5]), ("callbacks", print),
    ],
)  # fmt: skip
def test_arguments_of_another_kind_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"a Trainer's {name} must be .*; got "):
        trainer(**{name: value})


def test_resuming_needs_a_directory() -> None:
    with pytest.raises(ArgumentError, match="without an output keeps no checkpoints"):
        trainer().fit(resume=True)


def test_patience_needs_evaluations() -> None:
    with pytest.raises(ArgumentError, match="patience = 2 waits for better evaluations"):
        trainer(settings=TrainingSettings(patience=2))


@pytest.mark.parametrize("gives", [0.5, None, ["loss"], {"loss": "low"}, {"loss": None}])
def test_evaluations_that_give_no_figures(gives: Any) -> None:
    with pytest.raises(ArgumentError, match="evaluate must give numbers by name"):
        trainer(evaluate=lambda: gives).fit()
    assert trainer(evaluate=lambda: {"loss": np.float32(0.5)}).fit().best == {"step": 1, "metrics": {"loss": 0.5}}
