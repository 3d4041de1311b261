"""The settings of the training loop, as plain values that a file can hold and a resumed run can compare."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from minigrad.backend import DEVICES
from minigrad.backend.precision import PRECISIONS
from minigrad.errors import ArgumentError
from minigrad.files import listing, quoted

SCHEDULES = ("linear", "cosine", "constant")
ON_NONFINITE = ("stop", "skip")
MAX_FLOAT = sys.float_info.max


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained. The defaults are suited to fine-tuning BERT.

    epochs: passes over the data. steps: the total number of updates, instead of epochs. parts: compute each step in this many parts
    (gradient accumulation: less memory, the same gradient). workers: processes that share a step, or "auto".
    lr: the peak learning rate. weight_decay: of AdamW, not on biases and normalisation. layer_decay: each layer's rate is this times the
    rate of the layer above it. schedule: "linear", "cosine" or "constant", after a linear rise over the fraction `warmup` of all steps.
    clip: the largest norm of the gradient, None for no limit. freeze: paths or shell patterns of parameters that are not trained.
    ema: decay of the moving average of the weights that is evaluated and kept as the best model, None for none.
    evaluate_every: steps between evaluations, None for once an epoch. save_every: steps between checkpoints, None for at each evaluation.
    keep: how many checkpoints are kept. metric: the figure of the evaluation that selects the best model. patience: stop after this many
    evaluations without a better one. on_nonfinite: "stop" at a loss or gradient that is not finite, or "skip" the update, at most 3 times.
    precision: how the matrix products of a step are computed (`mg.precision`): "float32", "tf32", "bf16", or "fp16" with loss scaling;
    weights, sums and evaluations are float32 in any case. device: where the model is moved and trained, "cpu", "cuda" or "auto" (the GPU if
    it can be used); None leaves it where it is. On a GPU one process computes. capture: on a GPU, replay steps as CUDA graphs (`Team`).
    seed: of dropout, new heads and the order of the data.

    Raises: ArgumentError naming the setting.
    """

    epochs: int = 3
    steps: int | None = None
    parts: int = 1
    workers: int | str = 1
    lr: float = 5e-5
    weight_decay: float = 0.01
    layer_decay: float | None = None
    schedule: str = "linear"
    warmup: float = 0.1
    clip: float | None = 1.0
    freeze: tuple[str, ...] = ()
    ema: float | None = None
    evaluate_every: int | None = None
    save_every: int | None = None
    keep: int = 2
    metric: str = "loss"
    patience: int | None = None
    on_nonfinite: str = "stop"
    precision: str = "float32"
    device: str | None = None
    capture: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("parts", 1), ("keep", 2), ("seed", 0)):
            _check_integer(name, getattr(self, name), least)
        for name in ("steps", "evaluate_every", "save_every", "patience"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 1)
        if self.workers != "auto":
            _check_integer("workers", self.workers, 1, ' or "auto"')
        _check_number("lr", self.lr, "above 0", lambda x: x > 0)
        _check_number("weight_decay", self.weight_decay, "of at least 0", lambda x: x >= 0)
        _check_number("warmup", self.warmup, "from 0 to 1", lambda x: 0 <= x <= 1)
        if self.clip is not None:
            _check_number("clip", self.clip, "above 0", lambda x: x > 0)
        if self.layer_decay is not None:
            _check_number("layer_decay", self.layer_decay, "above 0 and at most 1", lambda x: 0 < x <= 1)
        if self.ema is not None:
            _check_number("ema", self.ema, "above 0 and below 1", lambda x: 0 < x < 1)
        for name, known in (("schedule", SCHEDULES), ("on_nonfinite", ON_NONFINITE), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ArgumentError(f"{name} must be one of {listing(known)}, got {quoted(getattr(self, name))}")
        if self.device is not None and self.device not in DEVICES:
            raise ArgumentError(f"device must be one of {listing(DEVICES)}, got {quoted(self.device)}")
        if not isinstance(self.capture, bool):
            raise ArgumentError(f"capture must be true or false, got {quoted(self.capture)}")
        if not isinstance(self.metric, str) or not self.metric:
            raise ArgumentError(f"metric must be the name of a figure such as accuracy, got {quoted(self.metric)}")
        if not isinstance(self.freeze, list | tuple) or not all(isinstance(pattern, str) for pattern in self.freeze):
            raise ArgumentError(f"freeze must be a list of paths or patterns, got {quoted(self.freeze)}")
        object.__setattr__(self, "freeze", tuple(self.freeze))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON and TOML can hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


UNIMPORTANT = ("keep", "save_every", "device", "capture")
"""Settings that change no computed number, or only its last digits."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """The differences between two nested dicts, one entry for each value: "training.lr: 5e-05 then, 0.0001 now".

    Of two lists only the elements that the other lacks are shown; if just the order differs, the whole lists.
    """
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        where = f"{place}.{name}" if place else name
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, where)
        elif old != new and name not in UNIMPORTANT:
            if isinstance(old, list) and isinstance(new, list):
                removed, added = [item for item in old if item not in new], [item for item in new if item not in old]
                old, new = (removed, added) if removed or added else (old, new)
            yield f"{where:.200}: {quoted(old)} then, {quoted(new)} now"


def _check_integer(name: str, value: Any, least: int, or_else: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        bound = "below 2**63" if isinstance(value, int) and value >= 2**63 else f"of at least {least}"
        raise ArgumentError(f"{name} must be an integer {bound}{or_else}, got {quoted(value)}")


def _check_number(name: str, value: Any, words: str, fits: Callable[[float], bool]) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_FLOAT  # also not NaN
    if not number or not fits(value):
        raise ArgumentError(f"{name} must be a number {words}, got {quoted(value)}")
