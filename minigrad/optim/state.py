"""Checks of a saved optimizer state before any of it is used: it may come from an untrusted file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.errors import StateDictError
from minigrad.optim.groups import Group


def read_state(state: Any, kind: str, groups: Sequence[Group], names: Sequence[list[str]]) -> tuple[list[Group], list[Any]]:
    """The options of each group, and one entry for each parameter, from a result of `Optimizer.state_dict`.

    kind: the optimizer's name; groups: its own groups; names: those of each group's parameters.
    Raises: StateDictError.
    """
    if not isinstance(state, Mapping) or not {"optimizer", "param_groups", "state"} <= state.keys():
        raise StateDictError(f'{kind}.load_state_dict takes what state_dict returned: a dict with "optimizer", "param_groups" and "state"')
    if state["optimizer"] != kind:
        raise StateDictError(f"this is the state of {state['optimizer']!s:.80}, not of {kind}")
    saved_groups, entries = state["param_groups"], state["state"]
    for key, value in (("param_groups", saved_groups), ("state", entries)):
        if not isinstance(value, list | tuple):
            raise StateDictError(f'"{key}" must be a list, got {type(value).__name__}')
    if len(saved_groups) != len(groups):
        raise StateDictError(f"the state has {len(saved_groups)} parameter groups, this {kind} has {len(groups)}")
    options: list[Group] = []
    for number, (group, saved, own) in enumerate(zip(groups, saved_groups, names, strict=True)):
        if not isinstance(saved, Mapping) or not isinstance(saved.get("params"), list | tuple):
            raise StateDictError(f'parameter group {number} must be a dict with "params", a list of names')
        if list(saved["params"]) != own:
            raise StateDictError(f"parameter group {number} was saved for {_few(saved['params'])}, it now holds {_few(own)}")
        if saved.keys() != group.keys():
            raise StateDictError(f"parameter group {number} needs exactly the options {', '.join(group)}, got {_few(list(saved))}")
        options.append({key: tuple(value) if isinstance(value, list) else value for key, value in saved.items() if key != "params"})
    count = sum(len(own) for own in names)
    if len(entries) != count:
        raise StateDictError(f"the state has entries for {len(entries)} parameters, this {kind} holds {count}")
    return options, list(entries)


def entry_problem(entry: Any, shape: tuple[int, ...], *, is_table: bool, moments: Sequence[str], needed: Sequence[str]) -> str | None:
    """Why `entry` cannot be the state of one parameter; None if it can.

    shape: the parameter's; is_table: whether its state may be stored by rows; moments: those that its rule may have; needed: those that it
    must have after a step.
    """
    step = entry.get("step") if isinstance(entry, Mapping) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        return 'it is no dict whose "step" is a count'
    by_rows = "rows" in entry
    if by_rows and not is_table:
        return '"rows" was not expected: it was saved by rows'
    unknown = [repr(key) for key in entry if key not in ("step", "rows", *moments)]
    if unknown:
        return f"unknown {_few(sorted(unknown))}"
    if by_rows:
        rows = _as_array(entry["rows"])
        problem = _rows_problem(rows, shape[0])
        if problem:
            return problem
        shape = (len(rows), shape[1])
    for name in moments:
        if name in entry:
            array = _as_array(entry[name])
            if array.shape != shape or array.dtype.kind != "f":
                return f"{name} is {array.dtype} of shape {array.shape}, needed are floats of shape {shape}"
        elif name in needed and step > 0:
            return f"{name} is missing"
    return None


def as_rows(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of a table by rows. From a state of all rows, those with moments 0 are left out: no batch has touched them."""
    if "rows" in entry:
        return entry
    moments = {name: np.asarray(value) for name, value in entry.items() if name != "step"}
    rows = np.flatnonzero(np.any([moment.any(axis=1) for moment in moments.values()], axis=0))
    return {"step": entry["step"], "rows": rows, **{name: moment[rows] for name, moment in moments.items()}}


def as_dense(entry: Mapping[str, Any], count: int) -> Mapping[str, Any]:
    """The state of a table for all its `count` rows: those that no batch has touched have moments 0."""
    if "rows" not in entry:
        return entry
    found = {"step": entry["step"]}
    for name in entry.keys() - {"step", "rows"}:
        moment = np.asarray(entry[name])
        found[name] = np.zeros((count, moment.shape[1]), moment.dtype)
        found[name][np.asarray(entry["rows"])] = moment
    return found


def _rows_problem(rows: np.ndarray[Any, Any], count: int) -> str | None:
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        return "rows must be a list of integers"
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= count):
        return f"rows must lie in 0..{count - 1}"
    return None if len(np.unique(rows)) == len(rows) else "rows names a row twice"


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    """`value` as an array; what cannot be one becomes an array of objects, which no check accepts."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError):
        return np.empty((), object)


def _few(names: Sequence[Any]) -> str:
    shown = ", ".join(f"{name!s:.80}" for name in names[:4])
    return shown + (f", … ({len(names)} in all)" if len(names) > 4 else "")
