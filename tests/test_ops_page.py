"""docs/ops.md is up to date with the registry and the tests, and every edge case has a test with its convention."""

from __future__ import annotations

import numpy as np
import pytest
from make_ops_page import CASES, PAGE, conventions, kept, page
from support import cpu_kernels

import minigrad as mg


def test_the_page_is_up_to_date() -> None:
    cpu_kernels()  # the page says which operations have a fast version
    mg.manual_seed(0)
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/ops.md is stale: run python tests/make_ops_page.py"


@pytest.mark.parametrize("number", range(1, CASES + 1))
def test_every_edge_case_has_one_test_that_states_its_convention(number: int) -> None:
    tests = conventions()[number]
    assert len(tests) == 1, f"test_e{number:02d}_… should be the name of one test, not of {[place for place, _ in tests]}"
    place, text = tests[0]
    assert text.endswith("."), f"{place} does not say its convention in a sentence"


def test_kept_arrays_are_found_wherever_they_hide() -> None:
    a, b, c, d = (np.zeros(n) for n in (1, 2, 3, 4))
    view = d[1:]

    def pullback(g: np.ndarray) -> tuple[np.ndarray, ...]:
        return (lambda: g + a[0] + saved[0][1]["c"] + view[0])()

    saved = [(b, {"c": c})]
    assert sorted(array.size for array in kept((pullback, None))) == [1, 2, 3, 4]
