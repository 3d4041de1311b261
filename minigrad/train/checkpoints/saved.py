"""The state of a run in checkpoints: saves it from a trainer, and restores it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minigrad import kernels
from minigrad.backend import probe, to_numpy
from minigrad.backend.random import current
from minigrad.backend.threads import usable_cpus
from minigrad.data.checks import check_count
from minigrad.errors import ArgumentError, CheckpointError, StateDictError
from minigrad.files import listing, quoted
from minigrad.train.checkpoints.contents import Checkpoint
from minigrad.train.checkpoints.trees import flatten, unflatten
from minigrad.train.settings import differences

if TYPE_CHECKING:
    from minigrad.train.trainer import Trainer


MAX_SHOWN = 8
"""At most this many differences are listed when a run is resumed with other settings, model or data."""


@dataclass
class Position:
    """The progress of a run: `step` updates are done, and batch number `batch` of epoch `epoch` is next."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    parts: int = 1
    skipped: int = 0
    worse: int = 0
    """Evaluations since the best one."""
    best: dict[str, Any] | None = None
    """The step and the metrics of the best evaluation."""
    seconds: float = 0.0
    """Seconds of training, over all processes that worked on this run."""


def saved_state(trainer: Trainer) -> tuple[dict[str, Mapping[str, NDArray[Any]]], dict[str, Any]]:
    """Arrays by file, and the other state, as CheckpointStore.save takes them."""
    stream = current()
    tree, moments = flatten({"optimizer": trainer.optimizer.state_dict(), "init": stream.init.bit_generator.state})
    state = {
        "position": asdict(trainer.at),
        "random": {"seed": stream.seed, "step": stream.step},
        "schedule": trainer.schedule.state_dict(),
        "loss_scale": None if trainer.scaler is None else trainer.scaler.state_dict(),
        "tree": tree,
        "identity": identity_of(trainer),
        "machine": machine(trainer.device),
    }
    arrays: dict[str, Mapping[str, NDArray[Any]]] = {
        "model": {name: to_numpy(array) for name, array in trainer.model.state_dict().items()},
        "optimizer": moments,
    }
    if trainer.average is not None:
        arrays["average"] = {name: to_numpy(array) for name, array in trainer.average.arrays.items()}
    return arrays, state


def restore(trainer: Trainer, saved: Checkpoint, force: bool) -> None:
    """Restore a trainer's state from a checkpoint.

    force: also if data, model or settings have changed since; notices then list the changes. Raises: CheckpointError (code changed).
    """
    state = saved.state
    try:
        _check_sections(state)
        changed = list(differences(state["identity"], identity_of(trainer)))
        if changed and not force:
            shown = "; ".join(changed[:MAX_SHOWN]) + (f" and {len(changed) - MAX_SHOWN} more" if len(changed) > MAX_SHOWN else "")
            message = f"was saved with something else: {shown}. Resume with the same, or insist by force=True (--force on the command line)"
            raise CheckpointError(saved.path, message, code="changed")
        tree = unflatten(state["tree"], saved.arrays("optimizer"))
        trainer.model.load_state_dict(saved.arrays("model"))
        chosen = [dict(group) for group in trainer.optimizer.param_groups]
        trainer.optimizer.load_state_dict(tree["optimizer"])
        trainer.at = _position(state["position"], saved.step)
        before = state["identity"]["training"]
        if trainer.average is not None:  # if it was switched on since the save, it starts from the weights
            trainer.average.load(trainer.model.state_dict() if before["ema"] is None else saved.arrays("average"))
        if trainer.scaler is not None and state.get("loss_scale") is not None:  # else the scaler starts afresh
            trainer.scaler.load_state_dict(state["loss_scale"])
        if not changed:
            trainer.schedule.load_state_dict(state["schedule"])
        else:
            _use_current_settings(trainer, chosen, before["parts"])
        stream = current()
        stream.seed, stream.step = (check_count(name, state["random"][name], least=0) for name in ("seed", "step"))
        _check_generator(tree["init"], stream.init.bit_generator.state)
        stream.init.bit_generator.state = tree["init"]
    except (KeyError, TypeError, ArgumentError, StateDictError) as error:
        raise CheckpointError(saved.path, f"does not fit this run: {error}", code="changed") from error
    trainer.notices += [f"resumed although it changed: {entry}" for entry in changed]
    for entry in differences(state["machine"], machine(trainer.device)):
        trainer.notices.append(f"resumed on another machine, so not to the last bit ({entry})")


def _check_sections(state: Mapping[str, Any]) -> None:
    for name in ("position", "random", "identity", "machine"):
        if not isinstance(state.get(name), Mapping):
            raise StateDictError(f"{name} must be an object, found {quoted(state.get(name))}")


def _position(saved: Mapping[str, Any], step: int) -> Position:
    if unknown := saved.keys() - {field.name for field in fields(Position)}:
        raise StateDictError(f"position has no {listing(sorted(unknown))}")
    at = Position(**saved)
    for name in ("step", "epoch", "batch", "skipped", "worse"):
        check_count(name, getattr(at, name), least=0)
    check_count("parts", at.parts)
    if at.step != step:
        raise StateDictError(f"its position is that of step {at.step}")
    if type(at.seconds) is not float:
        raise StateDictError(f"seconds must be a number, found {quoted(at.seconds)}")
    if at.best is not None:
        check_count("the best step", at.best["step"], least=0)
        metrics = at.best["metrics"]
        if not isinstance(metrics, Mapping) or not all(type(value) is float for value in metrics.values()):
            raise StateDictError(f"the best metrics must be numbers by name, found {quoted(metrics)}")
    return at


def _check_generator(saved: Any, own: Mapping[str, Any]) -> None:
    """Raises: StateDictError for invalid state that NumPy would accept unchecked, such as a position outside of its buffer."""
    fits = _same_structure(saved, own) and saved["bit_generator"] == own["bit_generator"] and saved["has_uint32"] in (0, 1)
    if not fits or not 0 <= saved["buffer_pos"] <= len(own["buffer"]) or not 0 <= saved["uinteger"] < 2**32:
        raise StateDictError(f"init is no state of a generator {own['bit_generator']}")


def _same_structure(saved: Any, own: Any) -> bool:
    """Whether two nested values have equal keys and types, and arrays of equal dtypes and shapes."""
    if isinstance(own, Mapping):
        return isinstance(saved, Mapping) and saved.keys() == own.keys() and all(_same_structure(saved[key], own[key]) for key in own)
    if isinstance(own, np.ndarray):
        return isinstance(saved, np.ndarray) and (saved.dtype, saved.shape) == (own.dtype, own.shape)
    return type(saved) is type(own)


def _use_current_settings(trainer: Trainer, chosen: Sequence[Mapping[str, Any]], parts: int) -> None:
    """Continue with the current settings instead of those that a checkpoint was saved with."""
    for group, options in zip(trainer.optimizer.param_groups, chosen, strict=True):
        group.update(options)
    trainer.schedule.load_state_dict(trainer.schedule.state_dict() | {"steps": trainer.at.step})
    if parts != trainer.settings.parts:
        trainer.at.parts = trainer.settings.parts
    if trainer.at.batch >= trainer.loader.batches_in(trainer.at.epoch):  # with other data the epoch may be shorter, and over already
        trainer.at.epoch, trainer.at.batch = trainer.at.epoch + 1, 0


def identity_of(trainer: Trainer) -> dict[str, Any]:
    """Everything that determines the numbers of a run."""
    shapes = {name: list(p.shape) for name, p in trainer.model.named_parameters()}
    model = {"class": type(trainer.model).__name__, "parameters": shapes, "trained": [name for name, _ in trainer.named]}
    return {"training": trainer.settings.to_dict(), "model": model, "data": trainer.loader.digest(), **trainer.identity}


def machine(device: str) -> dict[str, Any]:
    """Everything that the last bit of a result may depend on. device: "cpu" or "cuda"."""
    return {
        "cpus": usable_cpus(),
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", ""),
        "numpy": np.__version__,
        "kernels": kernels.in_use(device),
        "machine": platform.machine(),
        "gpu": probe.probe().gpus[0].name if device == "cuda" else None,
    }
