"""A step that memory does not suffice for is computed in more parts: the same step, said in the log."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from models.cases import head
from train.test_team import adamw, token_batch, token_loss

import minigrad as mg
from minigrad.data.loader import Batch
from minigrad.errors import OutOfMemoryError
from minigrad.train import Team

LENGTHS = (5, 9, 3, 7, 4, 8)


class Narrow:
    """A loss whose computation has memory for so many sequences at a time; counts its calls."""

    def __init__(self, loss_of: Any, sequences: int) -> None:
        self.loss_of, self.sequences, self.calls = loss_of, sequences, 0

    def __call__(self, part: Batch, whole: Batch) -> Any:
        self.calls += 1
        if len(part.tokens.packing) > self.sequences:
            raise MemoryError("Unable to allocate 1. GiB")
        return self.loss_of(part, whole)


def step(sequences: int) -> tuple[float, dict[str, np.ndarray], Narrow, Team]:
    model = head("BertForTokenClassification", "float64", dropout=0.2)
    optimizer = adamw(model)
    loss_of = Narrow(token_loss(model), sequences)
    mg.manual_seed(0)
    team = Team(loss_of, optimizer)
    loss = team.backward(token_batch(lengths=LENGTHS))
    team.step()
    return loss, model.state_dict(), loss_of, team


@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_the_same_step_in_more_parts(sequences: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "minigrad"):
        loss, state, loss_of, team = step(sequences)
    expected, expected_state, _, _ = step(len(LENGTHS))
    assert loss == pytest.approx(expected, rel=1e-12)  # float64 sums in another order
    for name, value in expected_state.items():
        if not name.endswith("key.bias"):  # its gradient is rounding noise, which AdamW enlarges
            np.testing.assert_allclose(state[name], value, rtol=0, atol=1e-10, err_msg=name)
    assert "no memory for a training step of 6 sequences of up to 9 tokens, computed in 1 parts" in caplog.text
    calls, warnings = loss_of.calls, len(caplog.records)
    team.backward(token_batch(lengths=LENGTHS))
    assert len(caplog.records) == warnings  # it was known how many parts fit
    assert loss_of.calls - calls <= len(LENGTHS)


def test_one_sequence_that_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OutOfMemoryError, match="6 sequences of up to 9 tokens, computed in 6 parts") as caught:
        step(0)
    assert caught.value.code == "out-of-memory"


def test_nothing_is_left_behind() -> None:
    model = head("BertForTokenClassification", "float64")
    before = model.state_dict()
    team = Team(Narrow(token_loss(model), 0), adamw(model))
    with pytest.raises(MemoryError):
        team.backward(token_batch(lengths=LENGTHS))
    assert all(p.grad is None for p in model.parameters())
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
