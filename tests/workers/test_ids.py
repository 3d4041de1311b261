"""Ids that a model does not have are seen on the host, and by which array rows are read is known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minigrad.workers.ids import are_below, rows_by_name


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-2, 6), min_size=1), st.integers(1, 1 << 40) | st.integers(1, 7))
def test_ids_below(ids: list[int], rows: int) -> None:
    assert are_below(np.array(ids, np.int64), rows) == all(0 <= number < rows for number in ids)


def test_rows_that_are_read_by_name() -> None:
    arrays = {"a": np.zeros(3, np.int64), "b": np.zeros(4, np.int64), "c": np.zeros(5, np.int64)}
    noted = [(arrays["a"], 7), (arrays["b"].reshape(2, 2), 5), (arrays["a"], 6), (arrays["a"], 8)]
    assert rows_by_name(arrays, noted) == ({"a": 6, "b": 5}, False)
    assert rows_by_name(arrays, [*noted, (arrays["a"] + 0, 9)]) == ({"a": 6, "b": 5}, True)
