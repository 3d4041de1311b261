"""Learning-rate schedules: linear, cosine, polynomial and constant after a warm-up, and one cycle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import cos, pi
from typing import Any

from minigrad.errors import ArgumentError
from minigrad.optim.checks import check_choice, check_count, check_flag, check_number
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedule import Schedule


class WarmupSchedule(Schedule):
    """Base of the schedules that rise linearly from 0 to the peaks in `warmup_steps` updates and decay until `total_steps`.

    Raises: ArgumentError unless 0 <= warmup_steps <= total_steps and total_steps >= 1.
    """

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for impossible lengths."""
        warmup_steps, total_steps = options["warmup_steps"], options["total_steps"]
        check_count("warmup_steps", warmup_steps)
        check_count("total_steps", total_steps, least=1)
        if warmup_steps > total_steps:
            raise ArgumentError(f"warmup_steps must be at most total_steps, got {warmup_steps} and {total_steps}")

    def factor(self, step: int) -> float:
        """step/warmup_steps, then the decay; after `total_steps` it stays where the decay ends."""
        warmup_steps, total_steps = self.options["warmup_steps"], self.options["total_steps"]
        if step < warmup_steps:
            return float(step / warmup_steps)
        return self.decay((total_steps - min(step, total_steps)) / max(1, total_steps - warmup_steps))

    @abstractmethod
    def decay(self, left: float) -> float:
        """The factor when the fraction `left` (1 to 0) of the decay's steps is still to come."""


class LinearSchedule(WarmupSchedule):
    """Linear warm-up from 0 to the optimizer's learning rates, then linear decay to 0 (the schedule of BERT's fine-tuning).

    factor = step/warmup_steps, then (total_steps - step)/(total_steps - warmup_steps), never below 0.
    Raises: ArgumentError unless 0 <= warmup_steps <= total_steps and total_steps >= 1.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int) -> None:
        super().__init__(optimizer, warmup_steps=warmup_steps, total_steps=total_steps)

    def decay(self, left: float) -> float:
        """The fraction left."""
        return left


class CosineSchedule(WarmupSchedule):
    """Linear warm-up, then a cosine from the peaks to `floor` times the peaks.

    factor = floor + (1 - floor)·(1 + cos(2π·num_cycles·r))/2 with r = (step - warmup_steps)/(total_steps - warmup_steps); after
    total_steps it stays where it is. num_cycles: 0.5 is half a wave, down once; 1.5 comes up again once.
    Source: Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5, without restarts.
    Raises: ArgumentError for impossible lengths, a floor above 1, or num_cycles of 0.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int, num_cycles: float = 0.5, floor: float = 0.0) -> None:
        super().__init__(optimizer, warmup_steps=warmup_steps, total_steps=total_steps, num_cycles=num_cycles, floor=floor)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for impossible lengths, a floor above 1, or num_cycles of 0."""
        super().check(options)
        check_number("num_cycles", options["num_cycles"], above=0)
        check_number("floor", options["floor"], most=1)

    def decay(self, left: float) -> float:
        """A cosine of the fraction done."""
        floor = self.options["floor"]
        return float(floor + (1 - floor) * 0.5 * (1 + cos(2 * pi * self.options["num_cycles"] * (1 - left))))


class PolynomialSchedule(WarmupSchedule):
    """Linear warm-up, then a polynomial from the peaks to `floor` times the peaks.

    factor = floor + (1 - floor)·((total_steps - step)/(total_steps - warmup_steps))^power; after total_steps it stays at `floor`.
    Source: the decay of the original BERT, with power 1 and an end of 0. Raises: ArgumentError for impossible lengths, a floor above 1,
    or a power of 0.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int, power: float = 1.0, floor: float = 0.0) -> None:
        super().__init__(optimizer, warmup_steps=warmup_steps, total_steps=total_steps, power=power, floor=floor)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for impossible lengths, a floor above 1, or a power of 0."""
        super().check(options)
        check_number("power", options["power"], above=0)
        check_number("floor", options["floor"], most=1)

    def decay(self, left: float) -> float:
        """A power of the fraction left."""
        floor = self.options["floor"]
        return float(floor + (1 - floor) * left ** self.options["power"])


class ConstantSchedule(Schedule):
    """Linear warm-up from 0 to the optimizer's learning rates, which then stay: factor = min(1, step/warmup_steps).

    Raises: ArgumentError unless warmup_steps is an integer of at least 0.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int = 0) -> None:
        super().__init__(optimizer, warmup_steps=warmup_steps)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an impossible length."""
        check_count("warmup_steps", options["warmup_steps"])

    def factor(self, step: int) -> float:
        """step/warmup_steps, then 1."""
        warmup_steps = self.options["warmup_steps"]
        return float(step / warmup_steps) if step < warmup_steps else 1.0


class OneCycleSchedule(Schedule):
    """One cycle: up from peak/div_factor to the peak in the first `pct_start` of the steps, then down far below where it began.

    The end is peak/(div_factor·final_div_factor). In two phases the second goes down all the way; with `three_phase` the way down to
    peak/div_factor takes as long as the way up, and the rest of the steps leads to the end. anneal: between these points along half a
    cosine ("cosine") or a line ("linear"). Momentum is left alone. The peaks are the optimizer's learning rates (PyTorch's max_lr); the
    end is reached at step total_steps - 1, the last update's, and stays.

    Source: Smith & Topin, "Super-convergence", 2018 (linear, three phases); the cosine in two phases is fastai's. Phases as in PyTorch's
    OneCycleLR. Raises: ArgumentError, also for three phases that do not fit (pct_start above 0.5).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        pct_start: float = 0.3,
        anneal: str = "cosine",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        super().__init__(
            optimizer,
            total_steps=total_steps,
            pct_start=pct_start,
            anneal=anneal,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            three_phase=three_phase,
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an impossible value, or three phases that do not fit."""
        check_count("total_steps", options["total_steps"], least=1)
        check_flag("three_phase", options["three_phase"])
        check_number("pct_start", options["pct_start"], most=1)
        if options["three_phase"] and options["pct_start"] > 0.5:
            raise ArgumentError(f"with three_phase the way up and the way down take 2·pct_start: at most 1, got {2 * options['pct_start']}")
        check_choice("anneal", options["anneal"], ("cosine", "linear"))
        check_number("div_factor", options["div_factor"], above=0)
        check_number("final_div_factor", options["final_div_factor"], above=0)

    def factor(self, step: int) -> float:
        """Interpolated between the end points of the phases."""
        start, before = 1 / self.options["div_factor"], 0.0
        for last, end in self._phases():
            if before < last and step <= last:  # a phase may be empty: a way up of one step
                done = (step - before) / (last - before)
                weight = done if self.options["anneal"] == "linear" else (1 - cos(pi * done)) / 2
                return float(start + (end - start) * weight)
            start, before = end, last
        return float(start)

    def _phases(self) -> list[tuple[float, float]]:
        """(last step, factor there) of each phase."""
        total, up = self.options["total_steps"], self.options["pct_start"] * self.options["total_steps"]
        low = 1 / self.options["div_factor"]
        down = [(2 * up - 2, low)] if self.options["three_phase"] else []
        return [(up - 1, 1.0), *down, (total - 1, low / self.options["final_div_factor"])]
