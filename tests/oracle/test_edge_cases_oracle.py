"""The questions of the edge cases E01-E55 put to PyTorch: what `edge_cases/table.py` says of it is measured here, not believed.

`python -m pytest tests/oracle/test_edge_cases_oracle.py -s` prints the verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from oracle.edge_cases.table import TORCH

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")

from oracle.edge_cases import functions, graph, values  # noqa: E402, F401 - each adds its questions; they import PyTorch
from oracle.edge_cases.base import ASKED  # noqa: E402

# PyTorch warns of edge cases, in words that change from version to version.
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    counts = Counter(verdict.partition(" ")[0].strip(":") for verdict in TORCH.values())
    print(
        f"\nPyTorch {torch.__version__} on the {len(TORCH)} edge cases: meets {counts['meets']}, fails {counts['fails']}, "
        f"differs in {counts['differs']}, {counts['inapplicable']} does not apply"
    )
    for number, verdict in TORCH.items():
        if verdict != "meets":
            print(f"  E{number:02d} {verdict}")


def test_every_number_is_asked_or_explained() -> None:
    assert list(TORCH) == list(range(1, 56))
    assert set(ASKED) == {number for number, verdict in TORCH.items() if not verdict.startswith("inapplicable: ")}
    assert all(verdict.startswith(("meets", "fails: ", "differs: ", "inapplicable: ")) for verdict in TORCH.values())


@pytest.mark.parametrize("number", [number for number, verdict in TORCH.items() if not verdict.startswith("inapplicable: ")])
def test_pytorch_does_what_the_table_says(number: int) -> None:
    torch.manual_seed(0)
    assert bool(ASKED[number]()) is TORCH[number].startswith("meets")
