"""Inference by CUDA graphs, without a GPU: what a replay gives is what the function gives for the batch when it is filled up."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernels.cuda import recording
from small_models import LABELS, TEXTS, directory
from test_pipeline import KINDS, MASKED, call, close

import minigrad as mg
from minigrad import functional as F
from minigrad import nn
from minigrad.errors import IndexRangeError, ShapeError
from minigrad.models import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertModel,
    DistilBertForMaskedLM,
    DistilBertForTokenClassification,
    ElectraForSequenceClassification,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaModel,
    SentenceEncoder,
)
from minigrad.models.sentence import POOLINGS, SentenceSettings
from minigrad.packing import PackedTokens
from minigrad.workers import Replicas
from minigrad.workers.graphs import captured
from minigrad.workers.graphs.buckets import bucket_for, padded_tokens

CONFIG = {
    "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 80, "id2label": {0: "a", 1: "b", 2: "c"},
}  # fmt: skip


def tokens_of(*lengths: int, seed: int = 0) -> PackedTokens:
    generator = np.random.default_rng(seed)
    return PackedTokens.of([generator.integers(0, 40, n) for n in lengths])


def model_of(kind: Any = BertForSequenceClassification) -> Any:
    mg.manual_seed(0)
    return kind(kind.config_class(**CONFIG)).eval().to("cuda")


def plain(model: Any, tokens: PackedTokens, rows: int) -> np.ndarray:
    """What the model gives for the batch filled up, without a graph."""
    bucket = bucket_for(tokens.packing.lengths)
    with mg.no_grad():
        return np.array(model(padded_tokens(tokens, bucket)).logits.numpy())[:rows]


def check_replays(function: Callable[[PackedTokens], mg.Tensor], gpu: type[recording.Recorder]) -> None:
    """Batches of one size, of which the first two are computed plainly and the third is recorded; the others have other lengths and ids."""
    called: list[int] = []

    def counted(tokens: PackedTokens) -> mg.Tensor:
        called.append(1)
        return function(tokens)

    with Replicas(counted, workers=1) as rows_of:
        rows_of(tokens_of(5, 9, 3))
        for number, lengths in enumerate([(5, 9, 3), (6, 9, 2), (4, 4, 9), (9, 7, 1)]):
            tokens = tokens_of(*lengths, seed=number)
            bucket = bucket_for(tokens.packing.lengths)
            called.clear()
            found = np.array(rows_of(tokens))
            assert len(gpu.lengths) == int(number > 0) and len(found) in (3, sum(lengths))
            if number > 1:
                assert not called
            if number:
                with mg.no_grad():
                    np.testing.assert_array_equal(found, function(padded_tokens(tokens, bucket)).numpy()[: len(found)])


def logits(model: Any, tokens: PackedTokens) -> mg.Tensor:
    return model(tokens).logits  # type: ignore[no-any-return]


READ: dict[Any, Callable[[Any, PackedTokens], mg.Tensor]] = {
    BertForSequenceClassification: logits,
    BertForTokenClassification: logits,
    BertForMaskedLM: logits,
    BertForQuestionAnswering: lambda model, tokens: F.stack([(found := model(tokens)).start_logits, found.end_logits], axis=1),
    BertLMHeadModel: logits,
    BertModel: lambda model, tokens: model(tokens).pooler_output,
    DistilBertForTokenClassification: logits,
    ElectraForSequenceClassification: logits,
    RobertaForSequenceClassification: logits,
    RobertaModel: lambda model, tokens: model(tokens).last_hidden_state,
}
"""What pipelines read of each kind of model."""


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_replays_give_what_the_function_gives(kind: Any, precision: str, gpu: type[recording.Recorder]) -> None:
    mg.manual_seed(0)
    sizes = CONFIG | {"is_decoder": True} if kind is BertLMHeadModel else CONFIG
    model = kind(kind.config_class(**sizes)).eval().to("cuda")
    with mg.precision(precision):
        check_replays(lambda tokens: READ[kind](model, tokens), gpu)


@pytest.mark.parametrize("kind", [BertForMaskedLM, DistilBertForMaskedLM, RobertaForMaskedLM])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_rows_that_are_asked_for(kind: Any, precision: str, gpu: type[recording.Recorder]) -> None:
    """Of batches of one size 17 or 18, filled up to 18: the first two batches are computed plainly, the third is recorded."""
    model, called = model_of(kind), []

    def function(tokens: PackedTokens, rows: Any) -> mg.Tensor:
        called.append(1)
        return model(tokens, rows=rows).logits  # type: ignore[no-any-return]

    with Replicas(function, workers=1) as logits_of, mg.precision(precision):
        logits_of(tokens_of(15, 19, 13), np.arange(18))
        for number, lengths in enumerate([(15, 19, 13), (16, 19, 12), (14, 14, 19), (19, 17, 11)]):
            tokens, rows = tokens_of(*lengths, seed=number), np.arange(29 + number % 2, 47)[::-1].copy()
            bucket = bucket_for(tokens.packing.lengths)
            called.clear()
            found = np.array(logits_of(tokens, rows))
            assert len(found) == len(rows) and bool(called) == (number < 2)
            if number:
                filled_up = [*rows, 0][:18]
                with mg.no_grad():
                    expected = model(padded_tokens(tokens, bucket), rows=filled_up).logits.numpy()[: len(rows)]
                np.testing.assert_array_equal(found, expected)
    assert len(gpu.lengths) == 1


def test_a_row_that_there_is_not_is_named_by_a_plain_run(gpu: type[recording.Recorder]) -> None:
    """Also one of the tokens that fill a batch up."""
    model, tokens = model_of(BertForMaskedLM), tokens_of(15, 19, 13)
    with Replicas(lambda tokens, rows: model(tokens, rows=rows).logits, workers=1) as logits_of:
        for _ in range(3):
            logits_of(tokens, np.array([7, 46]))
        for wrong in (47, -1):
            with pytest.raises(IndexRangeError, match=f"rows: value {wrong} at place 1"):
                logits_of(tokens, np.array([7, wrong]))
        assert len(logits_of(tokens, np.array([46, 7]))) == 2
    assert len(gpu.lengths) == 1


@pytest.mark.parametrize("task", KINDS)
def test_pipelines_replay(task: str, tmp_path: Path, gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    """The same texts four times, in batches of a few."""
    folder = directory(tmp_path, KINDS[task], hidden_size=64, num_attention_heads=2, num_hidden_layers=1, id2label=LABELS)
    texts = (MASKED if task == "fill-mask" else TEXTS) * 4
    caplog.set_level(logging.INFO, "minigrad")
    there, here = (call(task, folder, texts, device=where, batch_tokens=64) for where in ("cuda", "cpu"))
    assert close(there, here)
    assert gpu.lengths and "without CUDA graphs" not in caplog.text


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_of_sentences(pooling: str, normalise: bool, gpu: type[recording.Recorder]) -> None:
    tokenizer: Any = None  # which is not asked for tokens
    check_replays(SentenceEncoder(model_of(RobertaModel), tokenizer, SentenceSettings(pooling, normalise)).eval(), gpu)


def test_texts_are_encoded_by_replays(tmp_path: Path, gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    """Also from one call to the next, and while the model is trained in between."""
    folder = directory(tmp_path, "BertModel", hidden_size=64, num_attention_heads=2, num_hidden_layers=1)
    encoder = SentenceEncoder.from_pretrained(folder, pooling="mean", normalise=True).train()
    expected = encoder.encode(TEXTS)
    encoder.to("cuda")
    caplog.set_level(logging.INFO, "minigrad")
    for calls in range(1, 6):
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=0, atol=1e-5)  # float32, sums in another order
        assert len(gpu.lengths) == int(calls > 2)
    weight = encoder.encoder.embeddings.LayerNorm.weight
    weight.assign(-2 * weight.numpy())
    assert np.abs(encoder.encode(TEXTS) - expected).max() > 0.1
    assert len(gpu.lengths) == 1 and "without CUDA graphs" not in caplog.text


def test_a_sequence_that_is_too_long_is_named(gpu: type[recording.Recorder]) -> None:
    """Positions of RoBERTa are computed on the GPU, and begin behind that of [PAD], which is 1: of 80 there are 78 left."""
    model = model_of(RobertaForSequenceClassification)
    logits_of = Replicas(lambda tokens: model(tokens).logits, workers=1)
    for _ in range(3):
        logits_of(tokens_of(78, 2))
    longer = tokens_of(79, 1)
    longer.input_ids[:] = np.maximum(longer.input_ids, 2)
    with pytest.raises(ShapeError, match="sequence 0 reaches position 78, this model has 78"):
        logits_of(longer)
    assert np.isfinite(logits_of(tokens_of(78, 2))).all()
    assert len(gpu.lengths) == 1


def test_new_weights_in_the_same_place_are_seen_and_other_places_are_recorded_anew(gpu: type[recording.Recorder]) -> None:
    model, tokens = model_of(), tokens_of(5, 9, 3)
    logits_of = Replicas(lambda given: model(given).logits, workers=1)
    before = [np.array(logits_of(tokens)) for _ in range(3)][-1]
    assert len(gpu.lengths) == 1
    optimizer = mg.optim.SGD(model.parameters(), lr=0.5)  # moves the parameters to its arena, with the same numbers
    same = [np.array(logits_of(tokens)) for _ in range(3)][-1]
    np.testing.assert_array_equal(same, before)
    assert len(gpu.lengths) == 2
    model(tokens, labels=np.array([0, 1, 2])).loss.backward()
    optimizer.step()
    after = [np.array(logits_of(tokens)) for _ in range(3)][-1]
    np.testing.assert_array_equal(after, plain(model, tokens, 3))
    assert np.abs(after - before).max() > 1e-3


def test_a_model_that_comes_back_from_the_cpu(gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "minigrad")
    model, tokens = model_of(), tokens_of(5, 9, 3)
    with Replicas(lambda given: model(given).logits, workers=1) as logits_of:
        for recorded, device in enumerate(("cuda", "cpu", "cuda")):
            model.to(device)
            for _ in range(4):
                logits_of(tokens)
            assert len(gpu.lengths) == 1 + recorded // 2
    assert "without CUDA graphs" not in caplog.text


def test_a_model_in_the_place_of_one_that_is_gone(gpu: type[recording.Recorder]) -> None:
    models, tokens = [model_of(), model_of()], tokens_of(5, 9, 3)
    models[1].classifier.weight.assign(2 * models[1].classifier.weight.numpy())
    with Replicas(lambda given: models[0](given).logits, workers=1) as logits_of:
        for _ in range(3):
            logits_of(tokens)
        del models[0]
        gc.collect()
        np.testing.assert_allclose(logits_of(tokens), plain(models[0], tokens, 3), rtol=0, atol=1e-6)


def test_hooks_are_called_and_new_layers_seen(gpu: type[recording.Recorder]) -> None:
    model, tokens, seen = model_of(), tokens_of(5, 9, 3), []
    layers = model.bert.encoder.layer

    def halved(module: Any, args: Any, output: mg.Tensor) -> mg.Tensor:
        seen.append(module)
        return output * 0.5

    with Replicas(lambda given: model(given).logits, workers=1) as logits_of:
        before = [np.array(logits_of(tokens)) for _ in range(3)][-1]
        with layers[0].register_forward_hook(halved):
            for calls in range(1, 4):
                hooked = np.array(logits_of(tokens))
                assert len(seen) == calls and not np.allclose(hooked, before)
        assert len(gpu.lengths) == 1
        for _ in range(3):
            np.testing.assert_allclose(logits_of(tokens), before, rtol=0, atol=1e-6)
        assert len(gpu.lengths) == 2
        layers.append(layers[0])
        np.testing.assert_allclose(logits_of(tokens), plain(model, tokens, 3), rtol=0, atol=1e-6)


def test_a_student_that_trains_forgets_no_graph_of_its_teacher(gpu: type[recording.Recorder]) -> None:
    teacher, student, tokens = model_of(), model_of(), tokens_of(5, 9, 3)
    with Replicas(lambda given: teacher(given).logits, workers=1) as logits_of:
        for _ in range(5):
            logits_of(tokens)
            student.classifier.bias.assign(student.classifier.bias.numpy() + 1)
    assert len(gpu.lengths) == 1


@pytest.mark.parametrize("shown", ["logits", "argmax"])
def test_an_id_that_the_model_does_not_have_is_named_by_a_plain_run(shown: str, gpu: type[recording.Recorder]) -> None:
    """Also where the result would not show the NaN that is read by it."""
    model = model_of()

    def function(tokens: PackedTokens) -> mg.Tensor:
        logits = model(tokens).logits
        return logits if shown == "logits" else F.argmax(logits, axis=-1)

    rows_of = Replicas(function, workers=1)
    for _ in range(3):
        rows_of(tokens_of(5, 9, 3))
    for name, number in (("input_ids", 40), ("input_ids", -1), ("token_type_ids", 2)):
        wrong = tokens_of(5, 9, 3)
        getattr(wrong, name)[4] = number
        with pytest.raises(IndexRangeError, match=f"{name} holds {number}"):
            rows_of(wrong)
    assert len(rows_of(tokens_of(5, 9, 3))) == 3
    assert len(gpu.lengths) == 1


class Free:
    """A lock that is free once another thread has done something. states: whether there were graphs when it was given back."""

    def __init__(self, replicas: Replicas, before: Callable[[], None] = lambda: None) -> None:
        self.replicas, self.before, self.states = replicas, before, list[bool]()

    def __enter__(self) -> None:
        self.before()

    def __exit__(self, *error: object) -> None:
        self.states.append(self.replicas._captured is not None)


def test_closing_while_another_thread_asks(gpu: type[recording.Recorder]) -> None:
    model, tokens = model_of(), tokens_of(5, 9, 3)
    replicas = Replicas(lambda given: model(given).logits, workers=1)
    expected = [np.array(replicas(tokens)) for _ in range(3)][-1]
    closing = Free(replicas)
    replicas._lock = closing  # type: ignore[assignment]
    replicas(tokens)
    replicas.close()
    assert closing.states == [True, False]
    replicas(tokens)
    replicas._lock = Free(replicas, lambda: setattr(replicas, "_captured", None))  # type: ignore[assignment]
    np.testing.assert_allclose(replicas(tokens), expected, rtol=0, atol=1e-6)


def test_only_so_many_graphs_are_kept(gpu: type[recording.Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "MAX_GRAPHS", 1)
    model = model_of()
    logits_of = Replicas(lambda given: model(given).logits, workers=1)
    for lengths in [*[(5, 9, 3)] * 3, *[(20, 9)] * 2, *[(5, 9, 3)] * 2]:
        np.testing.assert_allclose(logits_of(tokens_of(*lengths)), plain(model, tokens_of(*lengths), len(lengths)), rtol=0, atol=1e-6)
    assert len(gpu.lengths) == 3  # the first size again, because the second had taken its place


def test_a_function_that_changes_a_buffer_is_computed_plainly(gpu: type[recording.Recorder]) -> None:
    """It begins to do so when its size is to be recorded, and the recording leaves the buffer as it was."""
    model, tokens = model_of(), tokens_of(5, 9, 3)
    model.calls = nn.Buffer(np.zeros((), np.float32))
    model.to("cuda")
    counting = [False]

    def function(given: PackedTokens) -> mg.Tensor:
        if counting[0]:
            model.calls.assign(model.calls + 1)
        return model(given).logits

    with Replicas(function, workers=1) as rows_of:
        rows_of(tokens)
        rows_of(tokens)
        counting[0] = True
        for calls in range(1, 4):
            rows_of(tokens)
            assert model.calls.item() == calls
    assert len(gpu.lengths) == 1  # which was refused


@pytest.mark.parametrize("reason", ["draws", "rows", "lengths", "ids"])
def test_what_no_graph_can_hold_is_computed_plainly(reason: str, gpu: type[recording.Recorder], caplog: pytest.LogCaptureFixture) -> None:
    model = model_of()
    if reason == "draws":
        model.train()

    def function(tokens: PackedTokens) -> mg.Tensor:
        logits = model(tokens).logits
        if reason == "lengths":
            return logits * float(tokens.packing.lengths.max())
        if reason == "ids":
            return F.embedding(F.argmax(logits, axis=-1), model.classifier.weight)
        return logits[:2] if reason == "rows" else logits

    logits_of, tokens = Replicas(function, workers=1), tokens_of(5, 9, 3)
    with caplog.at_level(logging.INFO, "minigrad"):
        found = [np.array(logits_of(tokens)) for _ in range(4)]
    assert len([record for record in caplog.records if "inference without CUDA graphs" in record.message]) == 1
    assert all(len(rows) == (2 if reason == "rows" else 3) for rows in found)
    if reason == "draws":
        assert not np.array_equal(found[2], found[3])
