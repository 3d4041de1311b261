"""Optimizer: what all update rules share. Which parameters are due, blocks of the arena, tables, step counts, saving and resuming.

A rule adds what it computes: a kernel on flat blocks, the names of its moments, its constants for a step, and what it does to an element
that has neither gradient nor moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import numpy as np

from minigrad.backend import Array, to_numpy
from minigrad.backend.random import current
from minigrad.errors import ArgumentError, StateDictError
from minigrad.op import Kernel
from minigrad.optim.arena import Arena, Place
from minigrad.optim.groups import Group, read_groups
from minigrad.optim.table import Apply, Table, rows_problem
from minigrad.parameter import Parameter


@dataclass(slots=True)
class Run:
    """A stretch of the arena whose elements are updated alike: one group, one step count."""

    group: int
    step: int
    start: int
    stop: int


class Optimizer:
    """Base of the optimizers.

    params: Parameters, (name, Parameter) pairs, or groups {"params": [...], "lr": ...} that override options. `param_groups` holds the
    options; a change there (`optimizer.param_groups[0]["lr"] = 1e-4`) counts from the next step on.

    Frozen parameters and parameters without a gradient are left alone entirely: no decay, no moments, and their step count stands still.

    Raises: ArgumentError for wrong parameters or options.
    """

    kernel: ClassVar[Kernel]
    """(xp, p, g, moments, scratch, **constants): one step on flat blocks, in place in `p` and `moments`; `g` is only read."""

    moment_names: ClassVar[tuple[str, ...]]
    """What the rule remembers of each element, in the order in which the kernel takes it."""

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        self.param_groups, names = read_groups(params, defaults)
        for group in self.param_groups:
            self.check(group)
        self.arena = Arena([group["params"] for group in self.param_groups], names)
        self.tables = {p: Table(p) for p in self.arena.tables}
        self.moments: dict[str, Array] = {}
        self.steps: dict[Parameter, int] = dict.fromkeys(names, 0)
        widest = max((p.shape[1] for p in self.tables), default=0)
        self._scratch = [self.arena.xp.empty(max(self.arena.block, widest), self.arena.data.dtype) for _ in range(2)]

    # ---------------------------------------------------------------- what a rule defines
    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an option with an impossible value."""
        check_number("lr", options["lr"])
        check_number("weight_decay", options["weight_decay"])

    def moments_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The moments that the rule needs with these options."""
        return self.moment_names

    def constants(self, options: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The kernel's keyword arguments for the step-th update (from 1) of a parameter."""
        raise NotImplementedError

    def idle_factor(self, options: Mapping[str, Any]) -> float | None:
        """What a step multiplies an element by that has gradient and moments zero; None if it does more than that."""
        raise NotImplementedError

    # ---------------------------------------------------------------- the step
    def step(self) -> None:
        """Update every parameter that has a gradient, in place, and begin the next step of the random numbers.

        Raises: GraphError (graph-owner) if a later optimizer has taken parameters over.
        """
        self.arena.check_ownership()
        for run in self._runs():
            self._update_run(run)
        for number, group in enumerate(self.param_groups):
            for p in group["params"]:
                if p in self.tables and self._is_due(p):
                    apply = self._rule(number, self._advance(p))
                    self.tables[p].update(p.leaf.grad, self.moments_of(group), self.idle_factor(group), apply)
        current().advance()

    def zero_grad(self) -> None:
        """Forget the gradients: the next one overwrites."""
        for p in self.steps:
            p.zero_grad()

    def _is_due(self, p: Parameter) -> bool:
        return p.requires_grad and p.leaf.grad is not None

    def _advance(self, p: Parameter) -> int:
        p.leaf.version += 1
        self.steps[p] += 1
        return self.steps[p]

    def _runs(self) -> list[Run]:
        """The parameters that are due, counted on; neighbours that are updated alike are joined."""
        runs: list[Run] = []
        for place in self.arena.places:
            if not self._is_due(place.parameter):
                continue
            run = Run(place.group, self._advance(place.parameter), place.start, place.stop)
            last = runs[-1] if runs else None
            if last is not None and (last.group, last.step, last.stop) == (run.group, run.step, run.start):
                last.stop = run.stop
            else:
                runs.append(run)
        return runs

    def _update_run(self, run: Run) -> None:
        apply = self._rule(run.group, run.step)
        moments = [self._moment(name) for name in self.moments_of(self.param_groups[run.group])]
        for start in range(run.start, run.stop, self.arena.block):
            block = slice(start, min(start + self.arena.block, run.stop))
            apply(self.arena.data[block], self.arena.gradients[block], tuple([m[block] for m in moments]))

    def _rule(self, group: int, step: int) -> Apply:
        constants = self.constants(self.param_groups[group], step)

        def apply(p: Array, g: Array, moments: tuple[Array, ...]) -> None:
            scratch = tuple([s[: p.size] for s in self._scratch])
            self.kernel.run(self.arena.xp, [p, g, moments, scratch], constants, keep=False)

        return apply

    def _moment(self, name: str) -> Array:
        if name not in self.moments:
            self.moments[name] = self.arena.xp.zeros(self.arena.data.shape, self.arena.data.dtype)
        return self.moments[name]

    # ---------------------------------------------------------------- saving and resuming
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on to the last bit: options, step counts and moments. NumPy arrays, numbers, strings and lists only.

        "param_groups" holds the options and, under "params", the parameters' names; "state" one entry per parameter in that order.
        """
        groups = [{**group, "params": [self.arena.names[p] for p in group["params"]]} for group in self.param_groups]
        places = {place.parameter: place for place in self.arena.places}
        state = []
        for group in self.param_groups:
            for p in group["params"]:
                if p in self.tables:
                    arrays = self.tables[p].state()
                else:
                    names = {*self.moments, *self.moments_of(group)}
                    arrays = {name: _part(self._moment(name), places[p]) for name in self.moment_names if name in names}
                state.append({"step": self.steps[p], **{name: np.array(to_numpy(array)) for name, array in arrays.items()}})
        return {"optimizer": type(self).__name__, "param_groups": groups, "state": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` of an equal optimizer returned. Nothing is changed unless everything fits.

        The parameters themselves are loaded by their module. Raises: StateDictError; ArgumentError for an impossible option.
        """
        groups, entries = self._checked(state)
        for group, options in zip(self.param_groups, groups, strict=True):
            group.update(options)
        places = {place.parameter: place for place in self.arena.places}
        self.moments.clear()
        for p, entry in zip([p for group in self.param_groups for p in group["params"]], entries, strict=True):
            self.steps[p] = entry["step"]
            arrays = {name: self.arena.xp.asarray(entry[name]) for name in self.moment_names if name in entry}
            if p in self.tables:
                self.tables[p].load(self.arena.xp.asarray(entry["rows"]), arrays)
            else:
                for name, array in arrays.items():
                    _part(self._moment(name), places[p])[...] = array

    def _checked(self, state: Mapping[str, Any]) -> tuple[list[Group], list[Mapping[str, Any]]]:
        """The options per group, and one entry per parameter, after finding them complete and fitting."""
        mine = type(self).__name__
        if not isinstance(state, Mapping) or not {"optimizer", "param_groups", "state"} <= state.keys():
            raise StateDictError(
                f'{mine}.load_state_dict takes what state_dict returned: a dict with "optimizer", "param_groups" and "state"'
            )
        if state["optimizer"] != mine:
            raise StateDictError(f"this is the state of {state['optimizer']}, not of {mine}")
        if len(state["param_groups"]) != len(self.param_groups):
            raise StateDictError(f"the state has {len(state['param_groups'])} parameter groups, this {mine} has {len(self.param_groups)}")
        options: list[Group] = []
        for number, (group, saved) in enumerate(zip(self.param_groups, state["param_groups"], strict=True)):
            names = [self.arena.names[p] for p in group["params"]]
            if list(saved.get("params", [])) != names:
                raise StateDictError(f"parameter group {number} was saved for {_few(saved.get('params', []))}, it now holds {_few(names)}")
            if saved.keys() != group.keys():
                raise StateDictError(f"parameter group {number} needs exactly the options {', '.join(group)}, got {', '.join(saved)}")
            options.append({key: tuple(value) if isinstance(value, list) else value for key, value in saved.items() if key != "params"})
            self.check(options[-1])
        entries = list(state["state"])
        owners = [(p, saved) for group, saved in zip(self.param_groups, options, strict=True) for p in group["params"]]
        if len(entries) != len(owners):
            raise StateDictError(f"the state has entries for {len(entries)} parameters, this {mine} holds {len(owners)}")
        for (p, saved), entry in zip(owners, entries, strict=True):
            problem = self._problem(p, entry, saved)
            if problem:
                raise StateDictError(f"state of {self.arena.names[p]}: {problem}")
        return options, entries

    def _problem(self, p: Parameter, entry: Mapping[str, Any], options: Group) -> str | None:
        """Why `entry` cannot be the state of `p`; None if it can."""
        table = p in self.tables
        if not isinstance(entry, Mapping) or not isinstance(entry.get("step"), int) or entry["step"] < 0:
            return 'it is no dict whose "step" is a count'
        if table != ("rows" in entry):
            return '"rows" is missing: it was saved for all rows' if table else '"rows" was not expected: it was saved by rows'
        unknown = entry.keys() - {"step", "rows", *self.moment_names}
        if unknown:
            return f"unknown {', '.join(map(repr, sorted(unknown)))}"
        shape = p.shape
        if table:
            problem = rows_problem(np.asarray(entry["rows"]), p.shape[0])
            if problem:
                return problem
            shape = (len(entry["rows"]), p.shape[1])
        for name in self.moment_names:
            if name in entry:
                array = np.asarray(entry[name])
                if array.shape != shape or array.dtype.kind != "f":
                    return f"{name} is {array.dtype} of shape {array.shape}, needed are floats of shape {shape}"
            elif name in self.moments_of(options) and entry["step"] > 0:
                return f"{name} is missing"
        return None


def _part(moment: Array, place: Place) -> Array:
    return moment[place.start : place.stop].reshape(place.parameter.shape)


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f", … ({len(names)} in all)" if len(names) > 4 else "")


def check_number(name: str, value: Any, below: float | None = None) -> None:
    """Raises: ArgumentError unless `value` is a finite number >= 0 (and below `below`)."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool) or not isfinite(value) or value < 0:
        raise ArgumentError(f"{name} must be a number >= 0, got {value!r}")
    if below is not None and value >= below:
        raise ArgumentError(f"{name} must be below {below:g}, got {value!r}")
