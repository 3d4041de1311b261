"""Splits one file's records into training, development and test sets, so that the test means something.

Three things spoil a split: a class that hardly occurs in one part, copies of a record on both sides, and records of one origin (an author,
a patient, a conversation) on both sides. So each class is divided separately, and records that belong together stay together.

Source: Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data", for placing the largest groups first, each in
the split that needs it most, and for placing records of several labels by their rarest one.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np

from minigrad.backend.random import shuffled
from minigrad.data.checks import check_count, check_separator
from minigrad.data.duplicates import Components, folded_text, near_duplicate_groups
from minigrad.data.records import Record, labels_of
from minigrad.errors import ArgumentError, DataError
from minigrad.files import json_type, listing, quoted
from minigrad.packing import IntArray

SHARES: Mapping[str, float] = MappingProxyType({"train": 0.8, "dev": 0.1, "test": 0.1})
ROUNDING = 1e-9
"""Products of shares and counts are at most this far from whole numbers, for up to a million records."""
WARN_ABOVE = 0.05
"""As a fraction of all records: how far a split may miss its share before a warning says that groups are too large."""

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def split_records(
    records: Iterable[Record],
    shares: Mapping[str, float] = SHARES,
    *,
    seed: int = 0,
    stratify: bool = True,
    label_separator: str | None = None,
    group_column: str | None = None,
    near_duplicates: float | None = 0.8,
) -> dict[str, list[Record]]:
    """Divide records into named splits: every record in exactly one, in the order given, with the same result on every machine.

    stratify: every class is divided by the shares. A class is a label or, in records without labels, a set of entity types; rare sets count
    as one class. A label with fewer records than there are splits goes first to the split with the largest share; if most records have such
    a label (numbers do), labels are ignored. Both cases give a warning.
    label_separator: None for one label per record; else the one that the records were read with. Then each of their labels is a class, and
    so is having none.
    group_column: records with the same value there stay in one split.
    near_duplicates: records at least this similar stay in one split (see `near_duplicate_groups`); None: copies are not searched for.

    Without groups and near-duplicates, each split is off its share of a class by less than one record. Otherwise, with g records in the
    largest group of the class and k splits, it has fewer than g too many and fewer than (k - 1) g too few, as long as each group is of one
    class; a group of several classes goes where all of them together are needed most. With a label_separator these bounds hold for the
    number of all records; labels come as close to their shares as iterative stratification brings them.

    Raises:
        ArgumentError: shares that are not above 0 or do not add up to 1; too few records, or groups too large, to give every split a
            record; a seed, a separator or a threshold that cannot be used.
        DataError: a record has no value in the group column, or no label column although others have one.

    Warns: as stated above, and if groups are so large that a split misses its share by more than 5% of all records.
    """
    names, wanted = _checked_shares(shares)
    check_count("seed", seed, 0)
    check_separator(label_separator)
    rows = list(records)
    if len(rows) < len(names):
        raise ArgumentError(f"{len(rows)} record(s) cannot be divided into {len(names)} splits: {listing(names)}")
    groups = _groups(rows, group_column, near_duplicates)
    chosen = np.full(len(rows), -1, np.int64)
    order = shuffled(len(rows), seed, 0)
    if stratify and label_separator is not None and any(record.label is not None for record in rows):
        largest = _place_by_labels(groups, _label_classes(rows, len(names), label_separator), order, wanted, chosen)
    else:
        classes = _classes(rows, len(names)) if stratify else np.zeros(len(rows), np.int64)
        counts = np.bincount(classes)
        table = _Table(wanted * counts[:, None])
        largest = _place_groups(groups, classes, order, table, wanted, chosen)
        _place_singles(classes, order, table, wanted, chosen)
    _check(names, wanted, np.bincount(chosen, minlength=len(names)), largest)
    return {name: [rows[row] for row in np.flatnonzero(chosen == split)] for split, name in enumerate(names)}


def _checked_shares(shares: Mapping[str, float]) -> tuple[list[str], FloatArray]:
    if not isinstance(shares, Mapping):
        raise ArgumentError(f"shares must be a mapping such as {dict(SHARES)}, got {quoted(shares)}")
    for name, share in shares.items():
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
            raise ArgumentError(f"the share of split {quoted(name)} must be a number above 0 and at most 1, got {quoted(share)}")
    if not shares or not math.isclose(total := math.fsum(shares.values()), 1, rel_tol=1e-6):
        raise ArgumentError(f"the shares must add up to 1, got {f'{total:g}' if shares else 'none'}")
    return list(shares), np.array([share / total for share in shares.values()])


# ---- groups and classes


def _groups(records: Sequence[Record], column: str | None, threshold: float | None) -> IntArray:
    together = Components(len(records))
    if threshold is not None:
        for row, first in enumerate(near_duplicate_groups([folded_text(record) for record in records], threshold).tolist()):
            together.join(first, row)
    if column is not None:
        first_of: dict[str | int, int] = {}
        for row, record in enumerate(records):
            together.join(first_of.setdefault(_group_of(record, column), row), row)
    return together.numbers()


def _group_of(record: Record, column: str) -> str | int:
    if column not in record.fields:
        message = f"no column {quoted(column)}; there are: {listing(record.fields)}"
        raise DataError(record.path, message, line=record.line, code="unknown-column")
    value = record.fields[column]
    if not isinstance(value, str | int) or value == "":
        found = "nothing" if value == "" else json_type(value)
        message = f"column {quoted(column)} must hold a string or a whole number that names the record's group, found {found}"
        raise DataError(record.path, message, line=record.line, code="bad-group")
    return value


def _classes(records: Sequence[Record], splits: int) -> IntArray:
    """The number of each record's class. Shapes: (len(records),)."""
    labelled = any(record.label is not None for record in records)
    names = [record.label or "" if labelled else ", ".join(sorted({e.type for e in record.entities or ()})) for record in records]
    rare = {name: count for name, count in Counter(names).items() if count < splits}
    if not labelled:
        names = ["(rare)" if name in rare else name for name in names]
    elif 2 * sum(rare.values()) > len(records):
        message = f"not stratified: most records have a label that fewer than {splits} records have, such as {listing(list(rare)[:3])}"
        warnings.warn(f"{message}; where labels are numbers, pass stratify=False (--no-stratify on the command line)", stacklevel=3)
        names = [""] * len(records)
    elif rare:
        _warn_of_rare(rare)
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], np.int64)


def _label_classes(records: Sequence[Record], splits: int, separator: str) -> list[list[int]]:
    """The class numbers of each record: of its labels (or of having none), and last the number that every record has."""
    names = [sorted(set(labels_of(record, separator))) or [""] for record in records]
    counts = Counter(chain.from_iterable(names))
    if rare := [name for name, count in counts.items() if name and count < splits]:
        _warn_of_rare(rare)
    numbers = {name: number for number, name in enumerate(sorted(counts))}
    return [[*(numbers[name] for name in of_record), len(numbers)] for of_record in names]


def _warn_of_rare(labels: Iterable[str]) -> None:
    message = f"fewer records than splits have the label(s) {listing(sorted(labels))}: some splits have none of them"
    warnings.warn(message, stacklevel=4)


# ---- placing


class _Table:
    """The target and the actual number of records of each class in each split. Shapes: (classes, splits)."""

    def __init__(self, targets: FloatArray) -> None:
        self.targets = targets
        self.counts = np.zeros(targets.shape, np.int64)

    def lacking(self, classes: Any) -> FloatArray:
        return np.asarray(self.targets[classes] - self.counts[classes])


def _members(groups: IntArray, order: IntArray) -> Iterable[list[int]]:
    """The records of each group, ordered as in `order`."""
    members: dict[int, list[int]] = defaultdict(list)
    for row in order.tolist():
        members[int(groups[row])].append(row)
    return members.values()


def _place_groups(groups: IntArray, classes: IntArray, order: IntArray, table: _Table, wanted: FloatArray, chosen: IntArray) -> int:
    """Place the groups of several records, large ones first; returns the size of the largest.

    A group goes to the relatively emptiest of the splits that have room for it in all its classes, so that no split gets all the large
    groups. If no split has room, it goes to the one that lacks most of the group's classes.
    """
    several = sorted((rows for rows in _members(groups, order) if len(rows) > 1), key=len, reverse=True)
    for rows in several:
        kinds, brings = np.unique(classes[rows], return_counts=True)
        lacking = table.lacking(kinds)
        fits = np.all(lacking >= brings[:, None] - ROUNDING, axis=0)
        wish = np.where(fits, (lacking / wanted).sum(axis=0), -np.inf) if fits.any() else brings @ lacking
        split = int(wish.argmax())
        chosen[rows] = split
        table.counts[kinds, split] += brings
    return len(several[0]) if several else 1


def _place_singles(classes: IntArray, order: IntArray, table: _Table, wanted: FloatArray, chosen: IntArray) -> None:
    """Place the ungrouped records: first whole numbers of each class, then the remainders of all classes."""
    waiting: dict[int, list[int]] = defaultdict(list)
    for row in order[chosen[order] < 0].tolist():
        waiting[int(classes[row])].append(row)
    quotas = {kind: _quotas(table.lacking(kind), len(rows)) for kind, rows in sorted(waiting.items())}
    sizes = table.counts.sum(axis=0) + sum(quotas.values(), np.zeros(len(wanted), np.int64))
    for kind, quota in quotas.items():
        left_over = len(waiting[kind]) - int(quota.sum())
        could = np.flatnonzero(table.lacking(kind) - quota > ROUNDING)
        lacking = wanted * len(chosen) - sizes
        if quota[main := int(wanted.argmax())] + table.counts[kind, main] == 0:
            lacking[main] = np.inf  # the largest split has none of this class yet, and a model cannot learn what it never sees
        extra = could[np.argsort(-lacking[could], kind="stable")][:left_over]
        quota[extra] += 1
        sizes[extra] += 1
        chosen[waiting[kind]] = np.repeat(np.arange(len(wanted)), quota)


def _quotas(lacking: FloatArray, count: int) -> IntArray:
    """What every split lacks, rounded down, at most `count` in total; less if a group has overfilled some split."""
    quota = np.floor(np.maximum(lacking, 0) + ROUNDING).astype(np.int64)
    while quota.sum() > count:
        quota[quota.argmax()] -= 1
    return quota


def _place_by_labels(groups: IntArray, classes: list[list[int]], order: IntArray, wanted: FloatArray, chosen: IntArray) -> int:
    """Place groups whose records have several labels, large groups first, then those with rare labels; returns the size of the largest.

    A group goes to a split that has room for it and lacks as many of its rarest label as it brings; of several such splits, to the one
    furthest behind in all its labels. If none lacks as many, to one that lacks most. Room is counted in whole records, which makes the
    sizes exact.
    """
    counts = np.bincount(np.fromiter(chain.from_iterable(classes), np.int64))
    table = _Table(wanted * counts[:, None])
    table.targets[-1] = _rounded(table.targets[-1])
    rarity = [min(int(counts[kind]) for kind in of_record) for of_record in classes]
    units = sorted(_members(groups, order), key=lambda rows: (-len(rows), min(rarity[row] for row in rows)))
    left = counts.copy()
    for rows in units:
        kinds, brings = np.unique([kind for row in rows for kind in classes[row]], return_counts=True)
        lacking = table.lacking(kinds)
        could = np.arange(len(wanted))
        for kind in (-1, int(left[kinds].argmin())):
            of_kind = lacking[kind, could]
            could = could[of_kind > min(brings[kind], of_kind.max()) - ROUNDING]
        behind = (brings[:, None] * (lacking - left[kinds, None] * wanted)).sum(axis=0)  # BLAS rounds differently on each machine
        split = int(could[behind[could].argmax()])
        chosen[rows] = split
        table.counts[kinds, split] += brings
        left[kinds] -= brings
    return len(units[0])


def _rounded(sizes: FloatArray) -> FloatArray:
    """`sizes` rounded to whole numbers of the same sum, each off by less than one."""
    whole = np.floor(sizes + ROUNDING)
    whole[np.argsort(whole - sizes, kind="stable")[: round(float(sizes.sum() - whole.sum()))]] += 1
    return whole


def _check(names: Sequence[str], wanted: FloatArray, sizes: IntArray, largest: int) -> None:
    total = int(sizes.sum())
    if not sizes.all():
        name = names[int(sizes.argmin())]
        hint = f"; the largest group that must stay together has {largest} records" if largest > 1 else ""
        raise ArgumentError(f"split {quoted(name)} would get none of the {total} records: give it a larger share, or more records{hint}")
    off = np.abs(sizes - wanted * total)
    if largest > 1 and off.max() > max(len(names), WARN_ABOVE * total):
        shares = ", ".join(f"{name} {size / total:.1%}" for name, size in zip(names, sizes, strict=True))
        message = f"groups that must stay together are too large for the shares (the largest has {largest} of {total} records): {shares}"
        warnings.warn(message, stacklevel=3)
