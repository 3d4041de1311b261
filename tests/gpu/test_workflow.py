"""User workflows on a GPU, compared with the CPU: a run from a configuration that is interrupted and resumed, and inference by graphs."""

from __future__ import annotations

import gc
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import LABELS, TEXTS, directory
from test_pipeline import KINDS, MASKED, call, close
from train.runs import last_digest, log_of, run_folder

import minigrad as mg
from minigrad.backend import graphs
from minigrad.models import BertForSequenceClassification, BertForTokenClassification, RobertaForSequenceClassification, SentenceEncoder
from minigrad.models.sentence import POOLINGS
from minigrad.packing import PackedTokens
from minigrad.train.config import RunConfig
from minigrad.train.run import Run
from minigrad.workers import Replicas
from minigrad.workers.graphs import captured
from minigrad.workers.graphs.buckets import bucket_for, padded_tokens

SIZES = {"hidden_size": 64, "num_attention_heads": 2}  # a head size with kernels


def prepared(folder: Path, **training: Any) -> RunConfig:
    folder.mkdir()
    config = run_folder(folder, **training)
    directory(folder / "model", "BertModel", **SIZES)
    return config


def losses_of(folder: Path) -> list[float]:
    return [event["loss"] for event in log_of(folder) if event["event"] == "step"]


# ---------------------------------------------------------------- training
@pytest.mark.parametrize(
    ("precision", "others"), [("float32", {}), ("bf16", {}), ("fp16", {}), ("float32", {"ema": 0.9}), ("fp16", {"ema": 0.9})], ids=str
)
def test_a_run_is_that_of_the_cpu_and_resumes_to_the_last_bit(
    precision: str, others: dict[str, float], tmp_path: Path, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Twelve steps with evaluations and checkpoints; one run is interrupted in the middle, as by a signal."""
    with caplog.at_level(logging.WARNING, "minigrad"):
        Run(prepared(tmp_path / "whole", device=device, precision=precision, **others)).trainer.fit()
    assert "not captured" not in caplog.text

    config = prepared(tmp_path / "cut", device=device, precision=precision, **others)
    run = Run(config)
    run.trainer.callbacks.append(
        lambda event: os.kill(os.getpid(), signal.SIGTERM) if event["event"] == "step" and event["step"] == 5 else None
    )
    run.trainer.fit()
    assert len(losses_of(tmp_path / "cut")) < 12
    Run(config).trainer.fit(resume=True)
    assert last_digest(tmp_path / "cut") == last_digest(tmp_path / "whole")

    Run(prepared(tmp_path / "cpu", precision=precision, **others)).trainer.fit()
    ours, theirs = losses_of(tmp_path / "whole"), losses_of(tmp_path / "cpu")
    assert len(ours) == len(theirs) == 12
    difference = np.abs(np.array(ours) - theirs).max()
    print(f"\n{precision}: losses differ from the CPU's by {difference:.1e} at most")
    # float32: sums in another order, amplified by training with a rate of 1e-3; bf16 has steps of 4e-3, and blocks round once more
    assert difference < {"float32": 1e-3, "bf16": 3e-2, "fp16": 1e-2}[precision]


def test_evaluations_of_a_run_share_their_graphs(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Evaluations after each of twelve steps, all in one batch of the same size; with class weights, which do not prevent capture."""
    gc.collect()  # a parameter of an earlier test that is freed later would cause graphs to be captured again
    made, recorded = [], captured.CapturedFunction._capture
    monkeypatch.setattr(captured.CapturedFunction, "_capture", lambda self, *args: made.append(1) or recorded(self, *args))
    config = prepared(tmp_path / "run", device=device, evaluate_every=1)
    caplog.set_level(logging.INFO, "minigrad")
    Run(replace(config, task=replace(config.task, class_weights="balanced"))).fit()
    assert len(made) == (device != "cpu")
    assert "not captured" not in caplog.text and "without CUDA graphs" not in caplog.text


# ---------------------------------------------------------------- inference
@pytest.mark.parametrize("task", KINDS)
def test_pipelines_give_what_they_give_on_the_cpu(task: str, tmp_path: Path, device: str, caplog: pytest.LogCaptureFixture) -> None:
    """The same texts four times, in small batches: computed eagerly, then captured, then replayed."""
    folder = directory(tmp_path / task, KINDS[task], id2label=LABELS, **SIZES)
    texts = (MASKED if task == "fill-mask" else TEXTS) * 4
    caplog.set_level(logging.INFO, "minigrad")
    there, here = (call(task, folder, texts, device=where, batch_tokens=64) for where in (device, "cpu"))
    assert near(there, here)
    assert "without CUDA graphs" not in caplog.text


def near(a: Any, b: Any) -> bool:
    """As `close`, for results whose scores come from another device."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(near(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(near, a, b))
    return bool(np.allclose(a, b, atol=1e-3)) if isinstance(a, float | np.ndarray) else close(a, b)


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForTokenClassification, RobertaForSequenceClassification])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16", "fp16"])
def test_replayed_inference_is_that_of_the_filled_batch(kind: Any, precision: str, device: str, caplog: pytest.LogCaptureFixture) -> None:
    """Batches of one size with different lengths and ids; in between, the weights are trained in place and other memory is allocated."""
    mg.manual_seed(0)
    config = kind.config_class(vocab_size=40, num_hidden_layers=2, intermediate_size=128, id2label=LABELS, **SIZES)
    model: Any = kind(config)
    model.eval().to(device)
    optimizer = mg.optim.SGD(model.parameters(), lr=0.1)
    generator = np.random.default_rng(0)
    caplog.set_level(logging.INFO, "minigrad")
    with Replicas(lambda tokens: model(tokens).logits, workers=1) as logits_of, mg.precision(precision):
        for number in range(12):
            lengths = generator.permutation([30, 3, 17, 25, 9, 33, 2, 38])
            tokens = PackedTokens.of([generator.integers(0, 40, n) for n in lengths])
            bucket = bucket_for(tokens.packing.lengths)
            found = logits_of(tokens)
            with mg.no_grad():
                whole = tokens if number < 2 or device == "cpu" else padded_tokens(tokens, bucket)
                expected = model(whole).logits.numpy()[: len(found)]
            np.testing.assert_array_equal(found, expected)
            held = mg.ones((1 + 50 * number, 64)).to(device)
            if number == 6:
                (model(tokens).logits.sum() * 1e-3 + held.sum() * 0).backward()
                optimizer.step()
                optimizer.zero_grad()
                logits_of(tokens)  # once more before its size is captured again
    assert "without CUDA graphs" not in caplog.text


@pytest.mark.parametrize("pooling", POOLINGS)
def test_sentence_embeddings_are_those_of_the_cpu_and_replayed(
    pooling: str, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same texts five times: computed eagerly, then captured, then replayed."""
    gc.collect()  # a parameter of an earlier test that is freed later would cause graphs to be captured again
    made, recorded = [], graphs.Recorder.capture
    monkeypatch.setattr(graphs.Recorder, "capture", lambda self, function: made.append(1) or recorded(self, function))
    encoder = SentenceEncoder.from_pretrained(directory(tmp_path, "BertModel", **SIZES), pooling=pooling, normalise=True)
    expected = encoder.encode(TEXTS)
    encoder.to(device)
    caplog.set_level(logging.INFO, "minigrad")
    for _ in range(5):
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=0, atol=1e-4)  # vectors of length 1, sums in another order
    assert len(made) == int(device != "cpu") and "without CUDA graphs" not in caplog.text
