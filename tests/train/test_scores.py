"""Scores: of every sequence in the data's order, however they are dealt out, and their logarithms as probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from minigrad.data.loader import PackedLoader
from minigrad.errors import NonFiniteError
from minigrad.packing import PackedTokens
from minigrad.train import scores
from minigrad.train.scores import log_softmax, scores_of

SEQUENCES = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]


def test_scores_come_in_the_datas_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of at most four tokens."""
    monkeypatch.setattr(scores, "BATCH_TOKENS", 4)
    asked: list[int] = []

    def of_tokens(tokens: PackedTokens) -> np.ndarray:
        asked.append(len(tokens.packing))
        return tokens.input_ids[:, None].astype(np.float32)

    loader = PackedLoader(SEQUENCES, batch_size=2)
    assert [rows[:, 0].tolist() for rows in scores_of(of_tokens, loader, of_sequences=False)] == SEQUENCES
    assert asked == [2, 1, 1]
    firsts = list(scores_of(lambda tokens: tokens.input_ids[tokens.packing.first_rows][:, None].astype(np.float32), loader))
    assert [row.tolist() for row in firsts] == [[1.0], [4.0], [5.0], [7.0]] and firsts[0].dtype == np.float64


def test_scores_that_are_no_numbers() -> None:
    with pytest.raises(NonFiniteError, match="its weights are broken"):
        list(scores_of(lambda tokens: np.full((len(tokens.packing), 2), np.inf), PackedLoader(SEQUENCES)))


def test_logarithms_of_probabilities() -> None:
    found = log_softmax(np.array([[1000.0, 999.0], [0.0, 0.0]]))
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(found[1], np.log(0.5), rtol=1e-15)
    assert log_softmax(np.zeros((0, 3))).shape == (0, 3)
