"""minigrad agrees with PyTorch on the sample inputs of `op_db`, entry by entry; nothing is left out without a written reason.

The driver and the adapters are in `oracle/op_db/`; `PYTHONPATH=.:tests python -m oracle.op_db` prints the table.
"""

from __future__ import annotations

from typing import Any

import pytest

import minigrad as mg

pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
pytestmark = pytest.mark.oracle

from oracle.op_db.driver import Book, Report, run  # noqa: E402 - after the skip without PyTorch
from oracle.op_db.entries import BOOK, report_of  # noqa: E402
from oracle.op_db.table import table  # noqa: E402

ENTRIES, SAMPLES = 90, 900
"""How much has to be compared at least, in float64."""


@pytest.mark.parametrize("key", sorted(BOOK.adapters))
def test_entry(key: str) -> None:
    """Values, shapes, dtypes and gradients agree; what PyTorch refuses is refused; what is not compared has a reason."""
    report = report_of(key)
    assert not report.missing, f"{report.missing} does not exist: remove the adapter"
    assert not report.failures, "\n".join(report.failures[:10])
    assert any(found.samples for found in report.passes.values()), f"nothing is compared: {table([report])}"


def test_enough_is_compared() -> None:
    reports = [report_of(key) for key in BOOK.adapters]
    compared = [report.passes["float64"].samples for report in reports if "float64" in report.passes]
    print("\n" + table(reports))
    assert sum(samples > 0 for samples in compared) >= ENTRIES
    assert sum(compared) >= SAMPLES


def problems_of(adapter: Any, key: str = "exp") -> Report:
    return run(key, Book({key: adapter}))


@pytest.mark.parametrize(
    ("adapter", "complaint"),
    [
        (lambda x: x.exp() * 1.001, "values differ"),
        (lambda x: x.exp() + (x - x.detach()) * 1e-3, "gradient 0 differs"),
        (lambda x: x.exp().detach(), "gradient 0 differs"),
        (lambda x: x.exp().to("float16"), "float16"),
        (lambda x: x.exp().reshape((-1,)), "expected float64[]"),
        (lambda: None, "TypeError"),
    ],
    ids=["value", "gradient", "detached", "dtype", "shape", "arguments"],
)
def test_the_driver_finds_mistakes(adapter: Any, complaint: str) -> None:
    assert any(complaint in failure for failure in problems_of(adapter).failures)


def test_the_driver_asks_for_errors_of_the_family() -> None:
    assert any("no error" in failure for failure in problems_of(lambda x, shape: x, "reshape").failures)
    with_index_error = problems_of(lambda x, shape: x.reshape(shape) if x.size == mg.zeros(shape).size else [][0], "reshape")
    assert any("IndexError" in failure for failure in with_index_error.failures)
