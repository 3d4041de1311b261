"""Ids that a model does not have are seen on the host, and by which array rows are read is known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minigrad.backend.transfers import UncheckedIds
from minigrad.workers.graphs.ids import all_below, are_below, ids_of, rows_by_name


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-2, 6), min_size=1), st.integers(1, 1 << 40) | st.integers(1, 7))
def test_ids_below(ids: list[int], rows: int) -> None:
    assert are_below(np.array(ids, np.int64), rows) == all(0 <= number < rows for number in ids)


ARRAYS = {
    "input_ids": np.array([3, 9, 0, 4]),
    "token_type_ids": np.array([0, 1, 0, 0]),
    "positions": np.array([0, 1, 0, 1]),
    "all_places": np.array([[7, 0], [7, 1], [2, 0], [2, 1]], np.int32),
}


def test_rows_that_are_read_by_name() -> None:
    ids, types, places = (ids_of(ARRAYS)[name] for name in ("input_ids", "token_type_ids", "places"))
    noted = UncheckedIds([(ids, 7), (types.reshape(2, 2), 5), (ids, 6), (ids, 8)])
    expected = {"input_ids": 6, "token_type_ids": 5}
    assert rows_by_name(ARRAYS, noted) == (expected, False)
    noted.read.append((places, 3))
    assert rows_by_name(ARRAYS, noted) == (expected | {"places": 3}, False)
    noted.read.append((ids + 0, 9))
    assert rows_by_name(ARRAYS, noted) == (expected | {"places": 3}, True)


def test_rows_that_are_read_by_ids_which_follow_from_others() -> None:
    places, computed, again, stranger = ids_of(ARRAYS)["places"], np.zeros(4, np.int64), np.zeros(4, np.int64), np.zeros(4, np.int64)
    noted = UncheckedIds([(computed, 12), (again, 13)], [(computed, places, 2), (again, computed, 5)])
    assert rows_by_name(ARRAYS, noted) == ({"places": 6}, False)
    noted = UncheckedIds([(computed, 12)], [(computed, stranger, 2)])
    assert rows_by_name(ARRAYS, noted) == ({}, True)


def test_what_the_host_looks_at() -> None:
    assert all_below(ARRAYS, {"input_ids": 10, "token_type_ids": 2, "positions": 2, "places": 2})
    for name, rows in (("input_ids", 9), ("token_type_ids", 1), ("positions", 1), ("places", 1), ("places", 0), ("places", -1)):
        assert not all_below(ARRAYS, {name: rows})
