"""Directories of training runs as a trainer leaves them, made without training."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = ("negative", "neutral", "positive")
TAGS = ("O", "B-PER", "I-PER", "B-LOC")

CONFIG = """
task = "sequence-classification"

[training]
lr = 5e-5
epochs = 2
freeze = []
"""


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def start(**others: Any) -> dict[str, Any]:
    run = {
        "command": ["python", "-m", "minigrad", "train", "my config.toml"],
        "config": {"training": {"lr": 5e-5}},
        "environment": {"python": "3.11.2", "numpy": "2.1.0", "cpus": 2, "blas": {"threads": 1}},
        "data": {"train": {"records": 900, "tokens": 21_000, "labels": {"negative": 400, "positive": 500}, "digest": "abc123"}},
        "parameters": 22_713_216,
        "trainable": 22_713_216,
    }
    return {"event": "start", "step": 0, "run": run, "total_steps": 200, "resumed": False} | others


def step(number: int, **others: Any) -> dict[str, Any]:
    figures = {
        "epoch": number // 100,
        "loss": 1.1 * math.exp(-number / 60) + 0.1 + 0.05 * math.sin(number * number),
        "lr": 5e-5 * min(number / 20, 1 - number / 200),
        "grad_norm": 1.5 + math.sin(number),
        "tokens_per_second": 4000.0 + number,
        "padding_saved": 0.4,
        "memory_mb": 800.0 + number,
        "seconds_left": 200.0 - number,
    }
    return {"event": "step", "step": number} | figures | others


def evaluation(number: int, **metrics: Any) -> dict[str, Any]:
    figures = {"loss": 1.1 * math.exp(-number / 80) + 0.2, "accuracy": 0.9 - 0.5 * math.exp(-number / 50), "log_loss": 0.5} | metrics
    return {"event": "evaluation", "step": number, "split": "dev", "metrics": figures, "metric": "accuracy", "best": True, "seconds": 1.5}


def events(steps: int = 200) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [start()]
    for number in range(1, steps + 1):
        found.append(step(number))
        if number % 50 == 0:
            found.append(evaluation(number))
    found[30:30] = [{"event": "notice", "step": 29, "message": "step 29: the loss is nan; the update was left out (1 of 3)"}]
    return [*found, {"event": "end", "step": steps, "reason": "finished", "best": None, "seconds": 123.4}]


def classified(count: int = 300, texts: Sequence[str] = ("works like new", "fell apart")) -> list[dict[str, Any]]:
    """Every tenth row is wrong, the later the worse."""
    rows = []
    for i in range(count):
        gold, wrong = NAMES[i % 3], i % 10 == 9
        prediction = NAMES[(i + wrong) % 3]
        probabilities = {name: 0.8 if name == prediction else 0.1 for name in NAMES}
        fields = {"label": gold, "prediction": prediction, "score": 0.8, "probabilities": probabilities}
        rows.append({"row": i, "text": f"{texts[i % len(texts)]} {i}", **fields, "loss": 2.3 + i / 1000 if wrong else 0.22})
    return rows


def tagged(count: int = 40) -> list[dict[str, Any]]:
    """Every fourth sentence misses the last word of its person."""
    text, places = "Ada Lovelace saw London", [[0, 3], [4, 12], [13, 16], [17, 23]]
    gold = ["B-PER", "I-PER", "O", "B-LOC"]
    rows = []
    for i in range(count):
        wrong = i % 4 == 3
        said = ["B-PER", "O", "O", "B-LOC"] if wrong else gold
        fields = {"words": places, "tags": gold, "predicted": said, "scores": [0.9, 0.6, 0.9, 0.9], "loss": 1.5 if wrong else 0.2}
        rows.append({"row": i, "text": text, **fields})
    return rows


def regressed(count: int = 100) -> list[dict[str, Any]]:
    noise = random.Random(0)
    rows = []
    for i in range(count):
        label = i / 20
        prediction = label + noise.gauss(0, 0.3)
        rows.append({"row": i, "text": f"a pair {i}", "text_b": "its other half", "label": label, "prediction": prediction})
        rows[-1]["loss"] = (prediction - label) ** 2
    return rows


def write_run(directory: Path, **predictions: Sequence[Mapping[str, Any]]) -> Path:
    """A whole run; predictions by split, of classification for test if none are given."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.toml").write_text(CONFIG, encoding="utf-8")
    write_lines(directory / "log.jsonl", events())
    for split, rows in (predictions or {"test": classified()}).items():
        write_lines(directory / f"predictions-{split}.jsonl", rows)
    return directory
