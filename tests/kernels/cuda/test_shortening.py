"""Weights that are shortened where a step begins, by few launches: which those are, and that nothing stale is ever read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from kernels.cuda import recording, streams
from kernels.cuda.emulation import Emulator

import minigrad as mg
from minigrad.backend import random
from minigrad.backend.gemm import SHORT
from minigrad.kernels.cuda import shortening
from minigrad.kernels.cuda.shortening import ALIGNMENT, GAP, stretches, weights_at_once
from minigrad.models import BertConfig, BertForSequenceClassification
from minigrad.packing import Packing

CONFIG = {
    "vocab_size": 24, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 72,
    "max_position_embeddings": 8, "id2label": {0: "a", 1: "b", 2: "c"},
}  # fmt: skip


class Step:
    """A step of a model on a GPU of NumPy arrays. sizes: of what has been shortened."""

    def __init__(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        recording.install(emulator.kernel, monkeypatch)
        self.sizes: list[int] = []
        whole = recording.Namespace.shortened
        monkeypatch.setattr(recording.Namespace, "shortened", lambda xp, x, name: self.sizes.append(x.size) or whole(xp, x, name))
        mg.manual_seed(0)
        self.model = BertForSequenceClassification(BertConfig(**CONFIG)).eval().to("cuda")
        self.optimizer = mg.optim.AdamW(self.model.parameters(), lr=0.1)
        self.packing = Packing([5, 4])
        self.x = mg.Tensor(np.cos(np.arange(9 * 64, dtype=np.float32)).reshape(9, 64)).to("cuda")

    def backward(self, at_once: bool, precision: str = "bf16") -> None:
        self.optimizer.zero_grad()
        with mg.precision(precision), random.at(0, 0), weights_at_once(self.optimizer.arena) if at_once else nullcontext():
            self._loss().backward()

    def gradients(self, at_once: bool, precision: str = "bf16") -> np.ndarray:
        """All of them, after such a step."""
        self.sizes.clear()
        self.optimizer.arena.gradients.fill(0)
        self.backward(at_once, precision)
        return np.array(self.optimizer.arena.gradients)

    def _loss(self) -> mg.Tensor:
        bert = self.model.bert
        return self.model.classifier(bert.pooler(bert.encoder(self.x, self.packing))).mean()  # type: ignore[no-any-return]

    def changed(self) -> None:
        """The weights, as an update does it."""
        data = self.optimizer.arena.data
        data *= 1.25


@pytest.fixture
def step(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Step:
    return Step(emulator, monkeypatch)


@pytest.mark.parametrize("precision", SHORT)
def test_the_second_step_shortens_its_weights_by_one_launch(precision: str, step: Step) -> None:
    expected = step.gradients(False, precision)
    before = Counter(step.sizes)
    np.testing.assert_array_equal(step.gradients(True, precision), expected)
    assert Counter(step.sizes) == before  # which they are was not known
    layers = [p for name, p in step.model.named_parameters() if p.ndim == 2 and "embeddings" not in name]
    for _ in range(2):
        np.testing.assert_array_equal(step.gradients(True, precision), expected)
        assert step.sizes[0] == sum(p.size for p in layers)  # and no table of embeddings
        assert not {p.size for p in layers} & set(step.sizes[1:])
        assert len(step.sizes) < len(list(before.elements())) - 4
    np.testing.assert_array_equal(step.gradients(False, precision), expected)
    assert Counter(step.sizes) == before


def test_changed_weights_are_shortened_anew(step: Step) -> None:
    for _ in range(2):
        step.gradients(True)
    for _ in range(2):
        step.changed()
        ours = step.gradients(True)
        np.testing.assert_array_equal(ours, step.gradients(False))


def test_a_replay_shortens_the_weights_of_its_time(step: Step) -> None:
    step.backward(True)  # what the packing is for kernels is copied there
    _, replay = recording.Recorder().capture(lambda: step.backward(True))
    step.changed()
    step.optimizer.arena.gradients.fill(0)
    replay()
    streams.settle()
    ours = np.array(step.optimizer.arena.gradients)
    np.testing.assert_array_equal(ours, step.gradients(False))


CHANGES: dict[str, Callable[[Step], Any]] = {
    "trained alone": lambda step: [p.requires_grad_("layer.1" in name) for name, p in step.model.named_parameters()],
    "another mode": lambda step: step.model.train(),
    "a hook on a part": lambda step: step.model.bert.encoder.layer[0].output.register_forward_hook(lambda *_: None),
    "arrays that have moved": lambda step: step.optimizer.arena.move(step.optimizer.arena.xp.zeros),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_that_asks_for_others_finds_them_too(change: str, step: Step) -> None:
    step.gradients(True)
    CHANGES[change](step)
    np.testing.assert_array_equal(step.gradients(True), step.gradients(False))


@pytest.mark.parametrize("precision", ["float32", "tf32", "fp16"])
def test_another_precision_is_another_step(precision: str, step: Step) -> None:
    step.gradients(True)
    np.testing.assert_array_equal(step.gradients(True, precision), step.gradients(False, precision))
    assert bool(step.sizes) == (precision in SHORT)


def test_nothing_is_known_once_a_step_is_over(step: Step) -> None:
    for _ in range(2):
        step.gradients(True)
    assert shortening._short_weights.get() is None
    step.optimizer.zero_grad()
    kept = len(shortening._requested)
    step.model = step.optimizer = None  # type: ignore[assignment]
    assert len(shortening._requested) == kept - 1


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], []),
        ([(128, 256), (0, 128)], [(0, 256)]),
        ([(0, 384), (128, 256)], [(0, 384)]),
        ([(0, 128), (128 + GAP, 384 + GAP)], [(0, 384 + GAP)]),
        ([(0, 128), (256 + GAP, 384 + GAP)], [(0, 128), (256 + GAP, 384 + GAP)]),
        ([(3, 131), (131, 259), (260, 388)], [(3, 259), (260, 388)]),
    ],
)
def test_neighbours_are_one_stretch(pieces: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    assert ALIGNMENT == 128 and stretches(pieces) == expected
