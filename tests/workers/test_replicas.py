"""Inference by several processes: the same rows in the same order, errors that arrive, and ends that are noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models.cases import head
from small_models import directory

import minigrad as mg
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, MinigradError, ShapeError
from minigrad.optim.arena import TABLE_ROWS
from minigrad.packing import PackedTokens, pack
from minigrad.train import LossOf, SequenceClasses, Team
from minigrad.workers import Replicas


def tokens_of(lengths: list[int]) -> PackedTokens:
    generator = np.random.default_rng(0)
    return PackedTokens.of([generator.integers(1, 30, n) for n in lengths])


@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "BertForTokenClassification"])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[5], [3, 9, 2, 7], [4] * 8, [1, 1, 1]], ids=str)
def test_rows_are_those_of_one_process(kind: str, workers: int, lengths: list[int]) -> None:
    model, tokens = head(kind, "float64"), tokens_of(lengths)
    model.eval()
    with Replicas(lambda tokens: model(tokens).logits.numpy(), workers) as logits_of:
        for _ in range(2):
            np.testing.assert_allclose(logits_of(tokens), model(tokens).logits.numpy(), rtol=0, atol=1e-12)


def test_padded_tokens_and_masked_first_ones_cross_unchanged() -> None:
    mask = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 1, 0]])
    tokens = pack(np.arange(1, 13).reshape(3, 4), mask)
    model = head("BertForSequenceClassification", "float64")
    model.eval()
    with Replicas(lambda tokens: model(tokens).logits.numpy(), 2) as logits_of:
        np.testing.assert_allclose(logits_of(tokens), model(tokens).logits.numpy(), rtol=0, atol=1e-12)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 6))
def test_dealing_gives_every_sequence_to_one_part(lengths: list[int], parts: int) -> None:
    tokens = tokens_of(lengths)
    dealt = tokens.dealt(parts)
    assert len(dealt) == min(parts, len(lengths))
    assert sorted(np.concatenate(dealt)) == list(range(len(lengths)))
    for chosen in dealt:
        assert len(chosen)
        part = tokens.part(chosen)
        assert part.packing.numbers.tolist() == chosen.tolist()
        np.testing.assert_array_equal(part.input_ids, tokens.input_ids[tokens.rows_of(chosen)])


@pytest.mark.parametrize("chosen", [None, "true"])
def test_workers_tokenize_without_threads_unless_they_are_chosen(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that the package `tokenizers` reads: its threads are not forked."""
    name = "TOKENIZERS_PARALLELISM"
    monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv(name, chosen)
    with Replicas(lambda tokens: np.array([os.environ.get(name, "unset")] * len(tokens.packing.lengths), "S5"), 2) as variable_of:
        assert variable_of(tokens_of([3, 3])).tolist() == [(chosen or "unset").encode(), (chosen or "false").encode()]
    assert os.environ.get(name) == chosen


def test_a_fork_prints_nothing_where_texts_were_tokenized(tmp_path: Path) -> None:
    """Of which `tokenizers` has warned up to 0.22.1, on standard error and not as Python does. Python 3.12 warns of any thread."""
    directory(tmp_path / "model", "BertModel")
    script = f"""if True:
        import minigrad as mg
        encodings = mg.data.Tokenizer.from_pretrained({str(tmp_path / "model")!r}).encode(["the pump"] * 200)
        with mg.workers.Replicas(lambda tokens: tokens.packing.lengths, 2) as lengths_of:
            print(len(lengths_of(mg.data.PackedTokens.of([e.ids for e in encodings]))))
    """
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout, done.stderr) == ("200\n", "")


def test_rows_that_are_asked_for_are_computed_here() -> None:
    model, tokens, rows = head("BertForMaskedLM", "float64").eval(), tokens_of([3, 9, 2]), np.array([1, 5, 13])
    with Replicas(lambda tokens, rows: model(tokens, rows=rows).logits, 2) as logits_of:
        np.testing.assert_array_equal(logits_of(tokens, rows), model(tokens, rows=rows).logits.numpy())
        assert not logits_of._others


def test_no_graph_is_recorded() -> None:
    p = mg.Parameter(np.ones(3))

    def function(tokens: PackedTokens) -> np.ndarray:
        assert (p * 2).node is None
        return np.zeros((len(tokens.packing), 2), np.float32)

    with Replicas(function, 2) as zeros:
        assert zeros(tokens_of([3, 4])).tolist() == [[0.0, 0.0]] * 2
        assert zeros(tokens_of([3])).tolist() == [[0.0, 0.0]]


def test_an_error_of_a_worker_arrives_and_the_next_call_begins_anew() -> None:
    parent, bad = os.getpid(), mg.Parameter(np.zeros(()))

    def function(tokens: PackedTokens) -> np.ndarray:
        if os.getpid() != parent and float(bad.numpy()):
            raise ShapeError("two shapes", code="odd")
        return np.zeros((len(tokens.packing), 1))

    with Replicas(function, 2) as zeros:
        bad.assign(np.ones(()))
        with pytest.raises(ShapeError, match="two shapes") as caught:
            zeros(tokens_of([2, 3]))
        assert caught.value.code == "odd"
        assert "in function" in caught.value.__notes__[0]
        bad.assign(np.zeros(()))
        assert zeros(tokens_of([2, 3])).shape == (2, 1)


def test_a_worker_that_is_killed_is_noticed_and_replaced() -> None:
    with Replicas(lambda tokens: np.zeros(len(tokens.packing)), 2) as zeros:
        zeros(tokens_of([2, 3]))
        os.kill(zeros._others[0].pid, signal.SIGKILL)
        with pytest.raises(MinigradError, match="SIGKILL") as caught:
            zeros(tokens_of([2, 3]))
        assert caught.value.code == "worker-died"
        assert len(zeros(tokens_of([2, 3]))) == 2


def test_close_ends_the_workers_and_a_later_call_knows_the_changes() -> None:
    number = [1.0]
    replicas = Replicas(lambda tokens: np.full(len(tokens.packing), number[0]), 2)
    assert replicas(tokens_of([2, 3])).tolist() == [1.0, 1.0]
    pid = replicas._others[0].pid
    number[0] = 2.0
    replicas.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert replicas(tokens_of([2, 3])).tolist() == [2.0, 2.0]
    replicas.close()


@pytest.mark.parametrize("change", ["weights", "a step", "mode", "nothing"])
def test_workers_know_what_has_changed(change: str) -> None:
    model, tokens = head("BertForSequenceClassification", "float64", dropout=0.5), tokens_of([3, 5, 4])
    optimizer = mg.optim.SGD(model.named_parameters(), lr=0.1)
    model.eval()
    with Replicas(lambda tokens: model(tokens).logits.numpy(), 3) as logits_of:
        before, workers = logits_of(tokens), [worker.pid for worker in logits_of._others]
        if change == "weights":
            model.classifier.bias.assign(model.classifier.bias.numpy() + 1)
        elif change == "a step":
            model(tokens, labels=[0, 1, 0]).loss.backward()
            optimizer.step()
        elif change == "mode":
            model.train()
        mg.manual_seed(0)
        now = logits_of(tokens)
        mg.manual_seed(0)
        np.testing.assert_allclose(now, model(tokens).logits.numpy(), rtol=0, atol=1e-12)
        assert np.array_equal(now, before) == ([worker.pid for worker in logits_of._others] == workers) == (change == "nothing")


def test_what_cannot_be_joined_is_refused() -> None:
    with Replicas(lambda tokens: np.zeros(7), 2) as wrong, pytest.raises(ArgumentError, match="one row for each sequence or each token"):
        wrong(tokens_of([2, 3]))


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "all"])
def test_impossible_numbers_of_workers(workers: Any) -> None:
    with pytest.raises(ArgumentError, match="workers must be"):
        Replicas(lambda tokens: np.zeros(1), workers)


def test_what_rows_of_a_table_owe_is_paid_before_workers_read_them() -> None:
    """In memory that the team's processes share, two that read the same row at once might both multiply it."""
    model: Any = head("BertForSequenceClassification", "float32", vocab_size=TABLE_ROWS)
    table = model.bert.embeddings.word_embeddings.weight
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-3, weight_decay=0.5)
    tokens = PackedTokens.of([np.array([1, 2, 3]), np.array([4, 5])])
    owed = Replicas(lambda part: np.full((len(part.packing), 1), len(table.ledger.factors)), workers=2)
    with Team(LossOf(model, SequenceClasses()), optimizer, workers=2) as team, owed:
        for _ in range(2):
            for _ in team.steps([Batch(tokens, np.array([0, 1]), None, np.arange(2))] * 3):
                pass
            assert table.ledger.factors
            assert owed(tokens).tolist() == [[0], [0]]
