"""Lowering the learning rate when a metric has stopped improving. Not a function of the step, so not a `Schedule`."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from minigrad.errors import ArgumentError, StateDictError
from minigrad.optim.checks import check_choice, check_count, check_number, is_number
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedule import check_optimizer, check_rates, check_state, rates_of, set_rates


class ReduceOnPlateau:
    """Multiply the learning rates by `factor` when a metric has not improved for more than `patience` calls of `step`.

    mode: whether the metric improves by falling ("min") or rising ("max"). A value counts as better than the best so far only by a margin:
    threshold·|best| (threshold_mode "rel") or threshold ("abs"); NaN and infinite values are never better. After a reduction the next
    `cooldown` calls do not count as bad. No rate is lowered below `min_lr`. The rules are those of PyTorch's ReduceLROnPlateau with eps 0,
    except for infinite values, and for a relative margin around a negative best, which has the wrong sign in PyTorch.
    Raises: ArgumentError unless `optimizer` is one, and for impossible options.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        check_optimizer(optimizer)
        self.options: dict[str, Any] = {
            "mode": mode,
            "factor": factor,
            "patience": patience,
            "threshold": threshold,
            "threshold_mode": threshold_mode,
            "cooldown": cooldown,
            "min_lr": min_lr,
        }
        _check(self.options)
        self.optimizer = optimizer
        self.best: float | None = None
        self.bad_steps = 0
        self.cooldown_left = 0

    def step(self, metric: float) -> None:
        """Record the metric of an evaluation, and lower the learning rates if it is time. Raises: ArgumentError unless it is a number."""
        if not is_number(metric):
            raise ArgumentError(f"ReduceOnPlateau follows a number (such as loss.item()), got {type(metric).__name__}")
        value = float(metric)
        if self._is_better(value):
            self.best, self.bad_steps = value, 0
        else:
            self.bad_steps += 1
        if self.cooldown_left:
            self.cooldown_left -= 1
            self.bad_steps = 0
        if self.bad_steps > self.options["patience"]:
            factor, least = self.options["factor"], self.options["min_lr"]
            rates = rates_of(self.optimizer)
            set_rates(self.optimizer, [max(rate * factor, min(rate, least)) for rate in rates])
            self.cooldown_left, self.bad_steps = self.options["cooldown"], 0

    def _is_better(self, value: float) -> bool:
        if not isfinite(value):
            return False
        if self.best is None:
            return True
        margin: float = self.options["threshold"] * (abs(self.best) if self.options["threshold_mode"] == "rel" else 1.0)
        return value < self.best - margin if self.options["mode"] == "min" else value > self.best + margin

    # ---------------------------------------------------------------- saving and resuming
    def state_dict(self) -> dict[str, Any]:
        """The current state, learning rates included: numbers, strings, lists and None only."""
        return {
            "schedule": type(self).__name__,
            "rates": rates_of(self.optimizer),
            "best": self.best,
            "bad_steps": self.bad_steps,
            "cooldown_left": self.cooldown_left,
            **self.options,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a saved state, its options included; sets the learning rates. Raises: StateDictError."""
        check_state(state, self.state_dict())
        options = {name: state[name] for name in self.options}
        try:
            check_rates("rates", state["rates"], len(self.optimizer.param_groups))
            for name in ("bad_steps", "cooldown_left"):
                check_count(name, state[name])
            best = state["best"]
            if best is not None and not (is_number(best) and isfinite(best)):
                raise ArgumentError(f"best must be a finite number or None, got {best!r:.80}")
            _check(options)
        except ArgumentError as error:
            raise StateDictError(f"a schedule's state: {error}") from error
        self.best, self.bad_steps, self.cooldown_left = state["best"], state["bad_steps"], state["cooldown_left"]
        self.options = options
        set_rates(self.optimizer, state["rates"])


def _check(options: Mapping[str, Any]) -> None:
    check_choice("mode", options["mode"], ("min", "max"))
    check_number("factor", options["factor"], below=1)
    check_count("patience", options["patience"])
    check_number("threshold", options["threshold"])
    check_choice("threshold_mode", options["threshold_mode"], ("rel", "abs"))
    check_count("cooldown", options["cooldown"])
    check_number("min_lr", options["min_lr"])
