"""Optimizer, the base of all update rules: which parameters to update, blocks of the arena, tables, step counts, saving and resuming.

A step is begun (which parameters, with which constants), applied one range of elements after another (`updates.py`), and ended; a team of
processes shares the middle part.

A rule adds a kernel on flat blocks, the names of its moments, its constants for a step, and what it does to an element that has neither
gradient nor moments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from minigrad.backend import Array, check_device, to_device, to_numpy
from minigrad.backend.random import current
from minigrad.errors import ArgumentError, GraphError, StateDictError
from minigrad.op import Kernel
from minigrad.optim.arena import Arena, is_table
from minigrad.optim.checks import check_number
from minigrad.optim.groups import Group, read_groups
from minigrad.optim.state import as_dense, as_rows, entry_problem, read_state
from minigrad.optim.table import Table
from minigrad.optim.updates import Update
from minigrad.parameter import Parameter

FIXED = "parameters and groups are fixed when an optimizer is built; build a new one"


class Optimizer(ABC):
    """Base of the optimizers.

    params: Parameters, (name, Parameter) pairs, or groups {"params": [...], "lr": ...} that override options. `param_groups` holds the
    options; a change there (`optimizer.param_groups[0]["lr"] = 1e-4`) takes effect at the next step. Which parameters are in which group
    is fixed.

    Frozen parameters and parameters without a gradient are skipped entirely: no decay, no moments, and their step count does not change.

    Raises: ArgumentError for wrong parameters or options.
    """

    kernel: ClassVar[Kernel]
    """(xp, p, g, moments, scratch, **constants): one step on flat blocks, in place in `p` and `moments`; `g` is only read."""

    kernel_scales: ClassVar[bool] = False
    """Whether the kernel has a keyword `factor`, which multiplies g. For other kernels that takes a separate pass."""

    moment_names: ClassVar[tuple[str, ...]]
    """The rule's state for each element, in the order in which the kernel takes it."""

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        self.param_groups, names = read_groups(params, defaults)
        self._check_options(self.param_groups, ArgumentError)
        self._options = tuple(self.param_groups[0])  # "params", then the options
        self._members = [list(group["params"]) for group in self.param_groups]
        self.steps: dict[Parameter, int] = dict.fromkeys(names, 0)
        self._group_of = {p: number for number, members in enumerate(self._members) for p in members}
        self._allocate(names)

    def _allocate(self, names: Mapping[Parameter, str]) -> None:
        """Move the parameters into an arena on their device; moments are allocated when they are first needed."""
        self.arena = Arena(self._members, names)
        self.tables = {p: Table(p, self.arena) for p in self.arena.tables}
        self.moments: dict[str, Array] = {}
        most = max([min(self.arena.block, self.arena.data.size), *(min(max(self.arena.block, p.shape[1]), p.size) for p in self.tables)])
        self._scratch = [self.arena.xp.empty(most, self.arena.data.dtype) for _ in range(3)]  # as long as the longest block of an update

    # ---------------------------------------------------------------- what a rule defines
    def check(self, options: Mapping[str, Any]) -> None:
        """Raises: ArgumentError for an option with an impossible value."""
        check_number("lr", options["lr"])
        check_number("weight_decay", options["weight_decay"])

    def moments_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The moments that the rule needs for these options."""
        return self.moment_names

    @abstractmethod
    def constants(self, options: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The kernel's keyword arguments for the step-th update (from 1) of a parameter."""

    @abstractmethod
    def idle_factor(self, options: Mapping[str, Any]) -> float | None:
        """The factor by which a step multiplies an element whose gradient and moments are zero; None if it does anything else to it."""

    def __reduce__(self) -> Any:
        name = type(self).__name__
        raise ArgumentError(f"{name} is not copied or pickled, since it holds the memory of its parameters: keep its state_dict()")

    # ---------------------------------------------------------------- the step
    def step(self, scale: float = 1.0) -> None:
        """Update every parameter that has a gradient, in place, and advance the random numbers to the next step.

        scale: multiplies the gradients in the update; the stored gradients do not change.
        Raises, before anything changes: ArgumentError if `scale` is not a number >= 0 (PyTorch's closure, say), or `param_groups` holds
        an impossible option, or other groups, parameters or options than at the beginning; GraphError (graph-owner) if a later optimizer
        has taken parameters over.
        """
        check_number("scale", scale)
        for update in self.begin_step():
            self.apply(update, scale)
        self.end_step()

    def begin_step(self) -> list[Update]:
        """Count the step and list its updates, each of which must be passed to `apply` once, in any order. Raises: as `step`."""
        self._check_groups()
        self._check_options(self.param_groups, ArgumentError)
        self.arena.check_ownership()
        updates = self._arena_updates()
        for number, table in enumerate(self.tables.values()):
            if step := self._count_step(table.parameter):
                group = self._group_of[table.parameter]
                table.begin(table.parameter.leaf.grad, self.idle_factor(self.param_groups[group]))
                updates.append(self._update(group, step, number, 0, table.used))
        return updates

    def apply(self, update: Update, scale: float = 1.0) -> None:
        """Carry out one update, block by block. scale: as in `step`."""
        if update.table is not None:
            blocks = self.tables[self.arena.tables[update.table]].blocks(update)
        else:
            blocks = self.arena.blocks(update, [self._moment(name) for name in update.moments])
        constants = {**update.constants, "factor": scale} if self.kernel_scales else update.constants
        for p, g, moments in blocks:
            scaled, *scratch = [s[: p.size] for s in self._scratch]
            if scale != 1 and not self.kernel_scales:
                g = self.arena.xp.multiply(g, scale, out=scaled)
            self.kernel.run(self.arena.xp, [p, g, moments, scratch], constants, keep=False)

    def end_step(self) -> None:
        """After all updates: charge the other rows of the tables, and advance the random numbers to the next step."""
        for table in self.tables.values():
            table.end()
        current().advance()

    def zero_grad(self) -> None:
        """Clear the gradients: the next ones overwrite them."""
        for p in self.steps:
            p.zero_grad()

    def _check_groups(self) -> None:
        """Raises: ArgumentError if `param_groups` holds other groups, parameters or options than at the beginning."""
        if len(self.param_groups) != len(self._members):
            raise ArgumentError(f"there were {len(self._members)} parameter groups, now there are {len(self.param_groups)}: {FIXED}")
        for number, (group, members) in enumerate(zip(self.param_groups, self._members, strict=True)):
            if not isinstance(group, dict) or group.get("params") != members:
                raise ArgumentError(f"parameter group {number} no longer holds the parameters it was built with: {FIXED}")
            for option in self._options:
                if option not in group:
                    raise ArgumentError(f"parameter group {number}: the option {option!r} is missing")
            if len(group) > len(self._options):
                unknown = next(option for option in group if option not in self._options)
                raise ArgumentError(f"parameter group {number}: unknown option {unknown!r}; the options are {', '.join(self._options[1:])}")

    def _check_options(self, groups: Iterable[Mapping[str, Any]], error: type[ArgumentError | StateDictError]) -> None:
        for number, options in enumerate(groups):
            try:
                self.check(options)
            except ArgumentError as cause:
                raise error(f"parameter group {number}: {cause}") from cause

    def _count_step(self, p: Parameter) -> int:
        """Count a step of a parameter and return its number; 0 for a parameter that is not updated."""
        leaf = p.leaf
        if leaf.grad is None or not p.requires_grad:
            return 0
        leaf.version += 1
        step = self.steps[p] = self.steps[p] + 1
        return step

    def _arena_updates(self) -> list[Update]:
        """Count a step of each parameter of the arena that is updated; neighbours of the same group and step become one update."""
        found: list[list[int]] = []  # group, step, start, stop
        group = before = stop = -1
        for place in self.arena.places:
            step = self._count_step(place.parameter)
            if step == 0:
                continue
            if (place.group, step, place.start) == (group, before, stop):
                found[-1][3] = place.stop
            else:
                found.append([place.group, step, place.start, place.stop])
            group, before, stop = place.group, step, place.stop
        return [self._update(group, step, None, start, stop) for group, step, start, stop in found]

    def _update(self, group: int, step: int, table: int | None, start: int, stop: int) -> Update:
        options = self.param_groups[group]
        width = 1 if table is None else self.arena.tables[table].shape[1]
        constants = {
            name: value.item() if isinstance(value, np.generic) else value for name, value in self.constants(options, step).items()
        }
        return Update(table, start, stop, width, self.moments_of(options), constants)

    def _moment(self, name: str) -> Array:
        if name not in self.moments:
            self.moments[name] = self.arena.allocate(self.arena.data.shape, self.arena.data.dtype)
        return self.moments[name]

    def arrays(self) -> list[Array]:
        """All arrays that a step reads or writes, moments included, in a fixed order."""
        for p, number in self._group_of.items():
            for name in self.moments_of(self.param_groups[number]):
                self._moment(name)
                if p in self.tables:
                    self.tables[p].moment(name)
        found = [self.arena.data, self.arena.gradients, *self.moments.values()]
        return found + [array for table in self.tables.values() for array in table.arrays()]

    # ---------------------------------------------------------------- moving, saving and resuming
    def to(self, device: str) -> Self:
        """Move the parameters and moments to a device ("cpu", "cuda" or "auto"), in place; returns self. Gradients are discarded.

        Afterwards `module.to(device)` moves the rest of the model: buffers and parameters that no optimizer holds.
        Raises, with nothing moved: ArgumentError for anything but a device, and if `param_groups` holds other groups, parameters or options
        than at the beginning; DeviceError or MissingExtraError for an absent device; MemoryError; GraphError (graph-owner) if a later
        optimizer has taken parameters over, or while the worker processes of a team share the parameters.
        """
        device = check_device(device)
        if device == self.arena.xp.DEVICE:
            return self
        self.arena.check_ownership()
        if self.arena.allocate != self.arena.xp.zeros:
            raise GraphError("the processes of a team share the parameters: close the team before moving the optimizer", code="graph-owner")
        entries = self.state_dict()["state"]
        arena, tables, moments, scratch = self.arena, self.tables, self.moments, self._scratch
        try:
            for p, moved in [(p, to_device(p.array, device)) for p in self.steps]:
                p.replace_storage(moved)
            self._allocate(arena.names)
            self._restore(entries)
        except BaseException:  # no memory there, or an interrupt
            self.arena, self.tables, self.moments, self._scratch = arena, tables, moments, scratch
            for table in tables.values():
                table.attach()
            arena.attach()
            raise
        return self

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume bit for bit: options, step counts and moments. NumPy arrays, numbers, strings and lists only.

        "param_groups" holds the options and, under "params", the parameters' names; "state" one entry per parameter in that order.
        Raises: ArgumentError if `param_groups` holds other groups, parameters or options than at the beginning.
        """
        self._check_groups()
        groups = [{**group, "params": [self.arena.names[p] for p in group["params"]]} for group in self.param_groups]
        places = {place.parameter: place for place in self.arena.places}
        state = []
        for group in self.param_groups:
            for p in group["params"]:
                if p in self.tables:
                    arrays = self.tables[p].state()
                else:
                    names = {*self.moments, *self.moments_of(group)}
                    arrays = {name: places[p].of(self._moment(name)) for name in self.moment_names if name in names}
                state.append({"step": self.steps[p], **{name: np.array(to_numpy(array)) for name, array in arrays.items()}})
        return {"optimizer": type(self).__name__, "param_groups": groups, "state": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the `state_dict` of an equal optimizer. Nothing is changed unless everything fits.

        The parameters themselves are loaded by their module. Raises: StateDictError, also for an impossible option;
        ArgumentError if `param_groups` holds other groups, parameters or options than at the beginning.
        """
        groups, entries = self._checked(state)
        for group, options in zip(self.param_groups, groups, strict=True):
            group.update(options)
        self._restore(entries)

    def _restore(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Set step counts and moments from a state's entries, one per parameter."""
        places = {place.parameter: place for place in self.arena.places}
        self.moments.clear()
        for p, entry in zip([p for members in self._members for p in members], entries, strict=True):
            self.steps[p] = entry["step"]
            if is_table(p):  # it may have been saved on another device
                entry = as_rows(entry) if p in self.tables else as_dense(entry, len(p))
            arrays = {name: to_device(np.asarray(entry[name]), p.device) for name in self.moment_names if name in entry}
            if p in self.tables:
                self.tables[p].load(np.asarray(entry["rows"]), arrays)
            else:
                for name, array in arrays.items():
                    places[p].of(self._moment(name))[...] = array

    def _checked(self, state: Any) -> tuple[list[Group], list[Mapping[str, Any]]]:
        """Check a saved state; returns the options of each group, and one entry per parameter."""
        self._check_groups()
        mine, names = type(self).__name__, self.arena.names
        options, entries = read_state(state, mine, self.param_groups, [[names[p] for p in group] for group in self._members])
        self._check_options(options, StateDictError)
        owners = [(p, self.moments_of(saved)) for group, saved in zip(self._members, options, strict=True) for p in group]
        for (p, needed), entry in zip(owners, entries, strict=True):
            problem = entry_problem(entry, p.shape, is_table=is_table(p), moments=self.moment_names, needed=needed)
            if problem:
                raise StateDictError(f"state of {names[p]}: {problem}")
        return options, entries
