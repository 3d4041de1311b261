"""What the fault tests save, and an `os` that counts each call by which a save changes the disk and lets a test interfere."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.train.checkpoints import disk, lock
from minigrad.train.checkpoints.store import Checkpoint, CheckpointStore

CHANGES = ("mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir", "ftruncate", "pwrite")
"""The calls of `disk` and `lock` that change something, or make a change last."""


def arrays(step: int) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3) + step
    return {
        "model": {"weight": weight, "half": weight.astype(np.float16)},
        "optimizer": {"/state/0/exp_avg": weight.astype(np.float64) / 3},
    }


def state(step: int, note: str | None = None) -> dict[str, Any]:
    return {"step": step, "loss": step / 3, "best": float("-inf"), "seed": 2**127 + step, "note": note}


def save(store: CheckpointStore, step: int, note: str | None = None) -> Path:
    return store.save(step, arrays(step), state(step, note))


SAVES: dict[str, Callable[[CheckpointStore], Path]] = {
    "new": lambda store: save(store, 3),
    "again": lambda store: save(store, 2, "again"),
}
"""What is saved after `started`: a new step, which removes step 1; or step 2 once more with another state, which removes the former."""


def started(directory: Path) -> CheckpointStore:
    """A store that holds steps 1 and 2."""
    store = CheckpointStore(directory)
    save(store, 1)
    save(store, 2)
    return store


def assert_whole(checkpoint: Checkpoint | None, *steps: int) -> None:
    """The checkpoint is one of `steps`, to the last bit."""
    assert checkpoint is not None and checkpoint.step in steps
    assert checkpoint.state == state(checkpoint.step, checkpoint.state["note"])
    for name, group in arrays(checkpoint.step).items():
        found = checkpoint.arrays(name)
        assert found.keys() == group.keys()
        for key, array in group.items():
            assert (found[key].dtype, found[key].shape, found[key].tobytes()) == (array.dtype, array.shape, array.tobytes())


def is_new(checkpoint: Checkpoint | None) -> bool:
    """Whether it is what one of the SAVES saved."""
    return checkpoint is not None and (checkpoint.step == 3 or checkpoint.state["note"] == "again")


def leftovers(directory: Path) -> list[str]:
    """What stands in the directory besides checkpoints and the lock."""
    return [name for name in os.listdir(directory) if not name.startswith("step-") and name != lock.LOCK_NAME]


Interfere = Callable[[int, str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]
"""(number of the call, its name, the real function, its arguments) → what the call returns instead."""


def perform(number: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Interferes with nothing."""
    return real(*arguments, **named)


def perform_unsynced(number: int, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Leaves out fsync: a process that is killed loses nothing that it wrote, so waiting for the disk would only take time."""
    return None if name == "fsync" else real(*arguments, **named)


class FaultyOs:
    """Stands in for the module `os`: calls that change the disk are numbered from 1 and go through `interfere`."""

    def __init__(self, interfere: Interfere) -> None:
        self._interfere = interfere
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            return self._interfere(len(self.calls), name, real, arguments, named)

        return call


def install(faulty: FaultyOs) -> None:
    """From now on this process's saves go through `faulty`."""
    disk.os = lock.os = faulty  # type: ignore[assignment]


def uninstall() -> None:
    disk.os = lock.os = os


def write_half(real: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """A torn write: only the first half of the bytes reaches the file."""
    descriptor, data, *rest = arguments
    real(descriptor, bytes(data)[: len(data) // 2], *rest)


def calls_of_a_save(directory: Path, kind: str, perform: Interfere = perform) -> list[str]:
    """The calls of one of the SAVES into a directory that `started` made, in order."""
    recorder = FaultyOs(perform)
    install(recorder)
    SAVES[kind](CheckpointStore(directory))
    uninstall()
    return recorder.calls
