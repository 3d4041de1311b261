"""Adam compiled by Numba equals Adam in NumPy bit for bit, over whole trainings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import needs_numba

import minigrad as mg
from minigrad.optim import adam as module
from minigrad.optim.arena import TABLE_ROWS


def trained(dtype: Any, **options: Any) -> list[np.ndarray]:
    """Parameters and moments after three steps: a matrix of more than one block, a vector, and a table of which some rows are touched."""
    rng = np.random.default_rng(0)
    table = mg.Parameter(rng.standard_normal((TABLE_ROWS, 4)).astype(dtype), gathered=True)
    parameters = [table, *[mg.Parameter(rng.standard_normal(shape).astype(dtype)) for shape in ((300, 500), (7,))]]
    optimizer = getattr(mg.optim, options.pop("rule"))(parameters, lr=0.01, **options)
    for _ in range(3):
        rows = mg.functional.embedding(mg.tensor(rng.integers(0, TABLE_ROWS, 300)), table)
        sum(((p * p).mean() for p in parameters[1:]), (rows**3).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    moments = [entry[name] for entry in optimizer.state_dict()["state"] for name in sorted({"exp_avg", "exp_avg_sq"} & entry.keys())]
    return [*[p.numpy().copy() for p in parameters], *moments]


@needs_numba
@pytest.mark.parametrize(
    ("dtype", "options", "compiled_runs"),
    [
        (np.float32, {"rule": "AdamW", "weight_decay": 0.1}, True),
        (np.float32, {"rule": "Adam", "weight_decay": 0.1}, True),
        (np.float32, {"rule": "Adam"}, True),
        (np.float32, {"rule": "AdamW", "amsgrad": True}, False),
        (np.float64, {"rule": "AdamW"}, False),
    ],
    ids=["decoupled decay", "L2", "no decay", "AMSGrad", "float64"],
)
def test_a_training_is_the_same_to_the_last_bit(
    dtype: Any, options: dict[str, Any], compiled_runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minigrad.kernels import compiled

    calls = []
    monkeypatch.setattr(module, "compiled_passes", lambda: None)
    expected = trained(dtype, **options)
    monkeypatch.setattr(module, "compiled_passes", lambda: compiled)
    good = compiled.adam
    monkeypatch.setattr(compiled, "adam", lambda *given: calls.append(good(*given)))
    for ours, theirs in zip(trained(dtype, **options), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert bool(calls) == compiled_runs
