"""Checkpoints of a training under fuzzing: one as a trainer saves it, changes behind its digests, and the way back into a trainer."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from fuzz.json_mutations import json_text, safetensors
from fuzz.mutations import MAX_BYTES, folder, packed, unpacked

import minigrad as mg
from minigrad.data.loader import PackedLoader
from minigrad.train import SequenceClasses
from minigrad.train.checkpoints.saved import restore, saved_state
from minigrad.train.checkpoints.store import CheckpointStore
from minigrad.train.settings import TrainingSettings
from minigrad.train.trainer import Trainer

STEP = "step-00000002"
FILES = ["manifest.json", "state.json", "model.safetensors", "optimizer.safetensors", "average.safetensors"]


@cache
def trainer() -> Trainer:
    """The smallest that has all that a checkpoint holds: moments of rows and dense ones, an average, a loss scale, an array in float16."""
    mg.manual_seed(0)
    model = mg.nn.Sequential(mg.nn.Embedding(5, 2), mg.nn.Linear(2, 2))
    model.half = mg.nn.Buffer(np.ones(2, np.float16))
    settings = TrainingSettings(steps=9, ema=0.9, precision="fp16")
    return Trainer(model, SequenceClasses(), PackedLoader([[1, 2], [3]], [0, 1], batch_size=1), settings)


def checkpoint() -> list[bytes]:
    """One of step 0 and one after two updates."""
    inputs, one = [], trainer()
    for step in (0, 2):
        while one.at.step < step:
            one.model(np.array([1, 3])).sum().backward()
            one.optimizer.step()
            one.schedule.step()
            one.at.step += 1
        one.at.best = None if step == 0 else {"step": 1, "metrics": {"loss": 0.5}}
        arrays, state = saved_state(one)
        with tempfile.TemporaryDirectory() as scratch:
            path = CheckpointStore(scratch).save(2, arrays, state)  # all under one name, as the target reads it
            inputs.append(packed({name: (path / name).read_bytes() for name in FILES}))
    return inputs


_ANY = folder(FILES, dict.fromkeys(FILES[:2], json_text) | dict.fromkeys(FILES[2:], safetensors))


def mutate(data: bytes, rng: Random) -> bytes:
    """The state in half of them, else any file; mostly, the manifest then tells the true sizes and digests, which would hide all else."""
    files = unpacked(data, FILES)
    if rng.random() < 0.5 and FILES[1] in files:
        files[FILES[1]] = json_text(files[FILES[1]], rng)
    else:
        files = unpacked(_ANY(data, rng), FILES)
    try:
        manifest = json.loads(files[FILES[0]])
        found = {name: content for name, content in files.items() if name != FILES[0]}
        told = {name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in found.items()}
        if rng.random() < 0.9:
            files[FILES[0]] = json.dumps(manifest | {"files": manifest["files"] | told}).encode("utf-8", "surrogatepass")
    except (KeyError, TypeError, ValueError, RecursionError):  # no manifest any more
        pass
    return packed(files)[:MAX_BYTES]


def read(scratch: Path) -> None:
    """Into the trainer; for half of them as if the user had insisted on what has changed since."""
    one, saved = trainer(), CheckpointStore(scratch).at(2)
    restore(one, saved, force=len(str(saved.state)) % 2 == 0)
    one.notices.clear()
