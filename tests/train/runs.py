"""Small runs for the tests: a directory with a tiny random model and data files, its configuration, and a child process that trains it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from small_models import directory

import minigrad as mg
from minigrad.io import load_file
from minigrad.train.config import RunConfig

PACKAGE = Path(__file__).resolve().parents[2]
WORDS = ("pump", "leak", "nurse", "berlin", "maria", "works", "well", "was", "in", "the")


def records(count: int, seed: int) -> list[dict[str, Any]]:
    """Texts of 3 to 9 words; the label is whether there are more things than people, the entities are names."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = [WORDS[i] for i in generator.integers(0, len(WORDS), generator.integers(3, 10))]
        text, entities, at = " ".join(words), [], 0
        for word in words:
            if word in ("berlin", "maria"):
                entities.append({"start": at, "end": at + len(word), "type": "LOC" if word == "berlin" else "PER"})
            at += len(word) + 1
        things = sum(word in ("pump", "leak") for word in words)
        people = sum(word in ("nurse", "maria") for word in words)
        rows.append({"text": text, "label": "thing" if things > people else "person", "entities": entities, "desk": words[0]})
    return rows


def run_folder(folder: Path, kind: str = "sequence-classification", **training: Any) -> RunConfig:
    """Model, 48 training records, 16 for dev and test each, and the configuration of a run of three epochs of four steps."""
    directory(folder / "model", "BertModel")
    for split, (count, seed) in {"train": (48, 1), "dev": (16, 2), "test": (16, 3)}.items():
        lines = [json.dumps(row) for row in records(count, seed)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return RunConfig.from_dict(
        {
            "model": {"name": str(folder / "model")},
            "data": {split: str(folder / f"{split}.jsonl") for split in ("train", "dev", "test")} | {"max_length": 32, "batch_size": 12},
            "task": {"kind": kind},
            "training": {"epochs": 3, "lr": 1e-3, "save_every": 1, "workers": 1} | training,
            "output": {"directory": str(folder / "run"), "report": False},
        }
    )


def digest(model: Any) -> str:
    """SHA-256 of every parameter, by name."""
    return arrays_digest({name: np.asarray(array) for name, array in model.state_dict().items()})


def arrays_digest(arrays: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(name.encode() + arrays[name].tobytes())
    return found.hexdigest()


def last_digest(folder: Path) -> str:
    """Of the newest checkpoint's weights."""
    newest = sorted((folder / "run" / "checkpoints").glob("step-*"))[-1]
    return arrays_digest(load_file(newest / "model.safetensors"))


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def child(folder: Path, *command: str, **streams: Any) -> subprocess.Popen[bytes]:
    """`python -m minigrad COMMAND…` in `folder`, in a process of its own."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams
    return subprocess.Popen([sys.executable, "-m", "minigrad", *command], cwd=folder, env=environment, **quiet)


def save_config(folder: Path, config: RunConfig) -> Path:
    path = folder / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    return path


def trained_by_hand(config: RunConfig) -> Any:
    """The model after the same steps, written as a plain loop."""
    from minigrad.optim import AdamW, LinearSchedule, clip_grad_norm, decay_groups
    from minigrad.train.run import Run

    run = Run(config)
    model, settings = run.model, config.training
    loader = run.examples["train"].loader
    mg.manual_seed(settings.seed)
    optimizer = AdamW(decay_groups(model.named_parameters(), settings.weight_decay), lr=settings.lr)
    total = settings.epochs * len(loader)
    schedule = LinearSchedule(optimizer, int(settings.warmup * total), total)
    model.train()
    for epoch in range(settings.epochs):
        for batch in loader.epoch(epoch):
            loss = model(batch.tokens, labels=batch.labels).loss
            loss.backward()
            clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model
