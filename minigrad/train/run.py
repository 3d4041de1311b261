"""Whole runs: from a configuration to a trained model, its predictions and its report."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import kernels
from minigrad._version import __version__
from minigrad.backend import check_device, probe
from minigrad.backend.random import manual_seed
from minigrad.data import Tokenizer
from minigrad.data.readers import read_records
from minigrad.data.records import Record
from minigrad.data.suspicions import column_notices, label_notices
from minigrad.errors import ConfigError, DataError
from minigrad.files import parse_json, write_text
from minigrad.io import find_checkpoint
from minigrad.models.auto import check_length, load
from minigrad.train.config import CONFIG_NAME, RunConfig
from minigrad.train.events import LOG_NAME, Callback, Event, Progress, TensorBoard
from minigrad.train.predictions import check_column, grouped, write_predictions
from minigrad.train.tasks import Examples, Task, require_labels, task_of
from minigrad.train.trainer import Trainer, TrainingResult

logger = logging.getLogger("minigrad")

SPLITS = ("train", "dev", "test")


class Run:
    """One run: data, model and trainer built from a configuration.

    Raises: ConfigError, DataError, and other errors of reading the files.
    """

    def __init__(self, config: RunConfig, command: Sequence[str] = ()) -> None:
        self.directory = Path(config.output.directory)
        if self.directory.exists() and not self.directory.is_dir():
            raise ConfigError(self.directory, "is no directory, and the output of a run needs one", code="not-a-directory")
        self.skipped: list[DataError] = []
        records = {split: _read(config, name, self.skipped) for split in SPLITS if (name := getattr(config.data, split))}
        self.task = task_of(
            config.task.kind,
            records["train"],
            label_separator=config.label_separator or ",",
            class_weights=config.task.class_weights,
            label_smoothing=config.task.label_smoothing,
            stride=config.data.stride,
        )
        self.task.workers = config.training.workers
        if not config.chosen_metric:
            config = replace(config, training=replace(config.training, metric=self.task.metric), chosen_metric=True)
        self.config = config
        source = find_checkpoint(config.model.name)
        self.tokenizer = Tokenizer.from_pretrained(source)
        manual_seed(config.training.seed)
        self.model = load(source, self.task.head, num_hidden_layers=config.model.layers, **self.task.options())
        check_length(self.model, config.data.max_length)
        self.examples = {split: self._examples(split, rows) for split, rows in records.items()}
        for examples in self.examples.values():  # fail now, and not at the end of the training
            require_labels(examples)
            check_column(examples.records, config.data.group)
        self.trainer = Trainer(
            self.model,
            self.task.objective,
            self.examples["train"].loader,
            config.training,
            evaluate=self._evaluate_dev if "dev" in self.examples else None,
            output=self.directory,
            save_model=self.save_model,
            callbacks=[self._keep_config, Progress(), *self._tensorboard()],
            about={
                "command": list(command),
                "config": config.to_dict(),
                "environment": environment(check_device(config.training.device or "cpu")),
                "data": {split: _summary(self.task, examples) for split, examples in self.examples.items()},
                "parameters": self.model.num_parameters(),
                "trainable": sum(p.size for p in self.model.parameters() if p.requires_grad),
            },
            identity={
                "model_config": parse_json(self.model.config.to_text(type(self.model).__name__)),
                "task": config.to_dict()["task"],
                "dev": self.examples["dev"].loader.digest() if "dev" in self.examples else None,
            },
        )
        labels = self.task.label_counts(records["train"])
        self.trainer.notices += [*column_notices(records["train"][:1], labels, config.data.format), *label_notices(labels)]

    def fit(self, *, resume: bool = False, force: bool = False) -> TrainingResult:
        """Train; then, unless interrupted, evaluate the best model, write predictions and the report. Raises: as Trainer.fit."""
        if not resume and ((self.directory / "best").exists() or any((self.directory / "checkpoints").glob("step-*"))):
            raise ConfigError(self.directory, "holds a run already: resume it, or name another directory", code="exists")
        if not resume and (self.directory / CONFIG_NAME).exists() and not (self.directory / LOG_NAME).exists():
            message = f"holds a {CONFIG_NAME} that no run wrote, and a run would write over it: name another directory"
            raise ConfigError(self.directory, message, code="exists")
        self.trainer.notices += [f"left out: {error}" for error in self.skipped]
        with self.task.keeping_graphs(self.model):
            result = self.trainer.fit(resume=resume, force=force)
        if result.exit_code == 0:
            self._finish()
        return result

    def save_model(self, directory: Path) -> None:
        """Save the model with its tokenizer, as `minigrad.models.load` and transformers read them."""
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)

    def _examples(self, split: str, records: Sequence[Record]) -> Examples:
        data, batching = self.config.data, dict[str, Any]()
        if split == "train":
            batching = {"batch_size": data.batch_size, "batch_tokens": data.batch_tokens, "by_length": data.by_length}
            batching |= {"shuffle": True, "seed": self.config.training.seed}
        examples = self.task.examples(self.tokenizer, records, data.max_length, **batching)
        if examples.truncated:
            message = "%s: %d of %d texts have more than %d tokens and are cut (data.max_length)"
            logger.warning(message, split, examples.truncated, len(records), data.max_length)
        return examples

    def _keep_config(self, event: Event) -> None:
        """Write config.toml once a run has started, so that a run that is refused does not overwrite an earlier one's."""
        if event["event"] == "start":
            write_text(self.directory / CONFIG_NAME, self.config.to_toml())

    def _evaluate_dev(self) -> dict[str, float]:
        return self.task.evaluate(self.model, self.examples["dev"]).metrics

    def _tensorboard(self) -> list[Callback]:
        return [TensorBoard(self.directory / "tensorboard")] if self.config.output.tensorboard else []

    def _finish(self) -> None:
        """Write the best model's predictions on dev and test, and the report."""
        best, metric = self.directory / "best", self.config.training.metric
        if self.trainer.at.best is None:  # without an evaluation the last weights are kept
            with self.trainer.averaged():
                self.save_model(best)
        self.model = load(best, self.task.head).to(self.trainer.device)
        for split in ("dev", "test"):
            if split in self.examples:
                evaluation = self.task.evaluate(self.model, self.examples[split])
                rows = grouped(evaluation, self.examples[split], self.config.data.group)
                write_predictions(self.directory / f"predictions-{split}.jsonl", rows)
                if split == "test":
                    self.trainer.tell("evaluation", split="test", metrics=evaluation.metrics, metric=metric, best=False, seconds=0.0)
        if self.config.output.report:
            from minigrad.train.reports.report import write_report

            write_report(self.directory)


def config_of_best(directory: Path) -> RunConfig | None:
    """The configuration of the run whose best/ this is; None for any other directory. Raises: ConfigError."""
    directory = directory.resolve()
    run = directory.parent
    if directory.name != "best" or not ((run / CONFIG_NAME).exists() and (run / LOG_NAME).exists()):
        return None
    return RunConfig.from_toml(run / CONFIG_NAME)


def _read(config: RunConfig, path: str, skipped: list[DataError]) -> list[Record]:
    data = config.data
    return read_records(
        path,
        format=data.format,
        text_column=data.text,
        label_column=data.label,
        text_b_column=data.text_b,
        label_separator=config.label_separator,
        columns=data.columns,
        encoding=data.encoding,
        skipped=skipped if data.on_bad_row == "skip" else None,
        max_skipped=data.max_skipped,
    )


def _summary(task: Task, examples: Examples) -> dict[str, Any]:
    """The facts of a split for the report."""
    return {
        "records": len(examples.records),
        "tokens": examples.tokens,
        "labels": dict(sorted(task.label_counts(examples.records).items())),
        "digest": examples.loader.digest(),
    }


def environment(device: str) -> dict[str, Any]:
    """Versions and machine, for the log and the report. device: "cpu" or "cuda"."""
    return {
        "minigrad": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "kernels": kernels.in_use(device),
        "device": device if device == "cpu" else probe.probe().gpus[0].name,
        "platform": platform.platform(),
        "executable": sys.executable,
    }
