"""A score by groups of records: by language, by source, by the person a text is about.

A good average can hide a group that the model serves badly. So every group is shown with its support, and so is the gap between the best
and the worst one; a group too small to judge is marked, not dropped.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.errors import ArgumentError, DTypeError, ShapeError
from minigrad.files import quoted
from minigrad.train.metrics.bootstrap import Metric


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The score of one group, and the number of its records."""

    value: float
    support: int


@dataclass(frozen=True, slots=True)
class GroupReport:
    """A score by group (sorted by name). `best` and `worst` are names, `gap` is the absolute difference of their scores.

    Groups whose score is undefined (NaN) are ignored for these; if all are, `best` and `worst` are None and `gap` is NaN.
    `notes` are sentences about groups of little support.
    """

    groups: dict[str, GroupScore]
    best: str | None
    worst: str | None
    gap: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The same as plain dicts and numbers, fit for JSON: an undefined number is None."""
        return {
            "groups": {name: {"value": _number(score.value), "support": score.support} for name, score in self.groups.items()},
            "best": self.best,
            "worst": self.worst,
            "gap": _number(self.gap),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        width = max(len(name) for name in [*self.groups, "gap"])
        lines = [f"{'':>{width}}  {'score':>9}  {'support':>9}"]
        lines += [f"{name:>{width}}  {score.value:9.4f}  {score.support:9d}" for name, score in self.groups.items()]
        between = "" if self.best is None else f"  best {self.best}, worst {self.worst}"
        return "\n".join([*lines, f"{'gap':>{width}}  {self.gap:9.4f}{between}", *self.notes])


def by_group(metric: Metric, groups: Sequence[str], *arrays: Any, minimum_support: int = 30, higher_is_better: bool = True) -> GroupReport:
    """The metric of the records of each group, and the gap between the best and the worst one.

    groups: the group of each record. minimum_support: a group of fewer records gets a note, but still counts for the gap.

    Shapes: each array (len(groups), ...), a row for each record

    Raises:
        DTypeError, ShapeError, ArgumentError: a group is no string, the arrays differ in length, or there are no records.
    """
    if isinstance(groups, str) or not isinstance(groups, Collection) or not all(isinstance(group, str) for group in groups):
        raise DTypeError(f"groups must be a sequence of strings, one per record, got {quoted(groups)}")
    if not len(groups):
        raise ArgumentError("groups are empty: no score can be computed")
    rows = [np.asarray(array) for array in arrays]
    for row in rows:
        if row.ndim == 0 or len(row) != len(groups):
            raise ShapeError(f"each array must have a row for each of the {len(groups)} records, got the shape {row.shape}")
    names, number = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    scores = {}
    for i, name in enumerate(names):
        chosen = np.flatnonzero(number == i)
        scores[str(name)] = GroupScore(float(metric(*(row[chosen] for row in rows))), len(chosen))
    defined = {name: score.value for name, score in scores.items() if not math.isnan(score.value)}
    ranked = sorted(defined, key=defined.__getitem__, reverse=higher_is_better)
    notes = tuple(
        f"the group {quoted(name)} has {score.support} record(s), fewer than {minimum_support}: its score says little"
        for name, score in scores.items()
        if score.support < minimum_support
    )
    best, worst = (ranked[0], ranked[-1]) if ranked else (None, None)
    gap = abs(defined[best] - defined[worst]) if best is not None and worst is not None else math.nan
    return GroupReport(scores, best, worst, gap, notes)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
