"""`Optimizer.to`: an optimizer between CPU and GPU (of NumPy arrays) in the middle of a training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kernels.cuda import recording
from kernels.cuda.emulation import Emulator

import minigrad as mg
from minigrad import functional as F
from minigrad.backend.random import at
from minigrad.errors import ArgumentError, DeviceError, GraphError, MissingExtraError
from minigrad.optim.arena import TABLE_ROWS
from minigrad.train.average import Average
from minigrad.train.processes.shared import SharedOptimizer

IDS = np.array([[3, 4, 5, TABLE_ROWS], [4, 4, 9, 11], [TABLE_ROWS, 0, 3, 3]])
LABELS = np.array([0, 1, 1])


class Model(mg.nn.Module):
    """A table of its own, a normalisation with buffers, and a parameter that is not trained."""

    def __init__(self) -> None:
        self.words = mg.nn.Embedding(TABLE_ROWS + 1, 4)
        self.norm = mg.nn.BatchNorm1d(4)
        self.scale = mg.nn.Parameter(np.float32([1, 2, 3, 4]), requires_grad=False)
        self.head = mg.nn.Linear(4, 2)

    def forward(self, ids: np.ndarray) -> mg.Tensor:
        return self.head(self.norm(self.words(ids).sum(axis=1)) * self.scale)


@pytest.fixture
def gpu(compiled: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    recording.install(compiled.kernel, monkeypatch)


def made(rule: Callable[..., mg.optim.Optimizer]) -> tuple[Model, mg.optim.Optimizer]:
    mg.manual_seed(5)
    model = Model().train()
    return model, rule([(name, p) for name, p in model.named_parameters() if p.requires_grad])


def train(model: Model, optimizer: mg.optim.Optimizer, steps: range) -> None:
    for step in steps:
        with at(seed=0, step=step):
            F.cross_entropy(model(IDS[:, : 2 + step % 3]), LABELS).backward()
            optimizer.step()
            optimizer.zero_grad()


RULES = {
    "adamw": lambda p: mg.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "amsgrad": lambda p: mg.optim.Adam(p, lr=1e-2, amsgrad=True),
    "sgd": lambda p: mg.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=0.1),
    "rmsprop": lambda p: mg.optim.RMSprop(p, lr=1e-2),
}


@pytest.mark.parametrize("rule", RULES)
def test_moved_twice_it_trains_as_if_it_had_stayed(rule: str, gpu: None) -> None:
    stayed, theirs = made(RULES[rule])
    train(stayed, theirs, range(9))
    model, optimizer = made(RULES[rule])
    assert optimizer.tables
    for device, steps in ("cpu", range(3)), ("cuda", range(3, 6)), ("cpu", range(6, 9)):
        assert optimizer.to(device) is optimizer
        model.to(device)
        assert {p.device for p in model.parameters()} | {b.device for _, b in model.named_buffers()} == {device}
        assert (optimizer.arena.xp.DEVICE, bool(optimizer.tables)) == (device, device == "cpu")
        train(model, optimizer, steps)
    assert optimizer.steps[model.head.weight] == 9
    for (name, array), expected in zip(model.state_dict().items(), stayed.state_dict().values(), strict=True):
        np.testing.assert_allclose(array, expected, rtol=2e-5, atol=2e-6, err_msg=name)
    for ours, other in zip(optimizer.state_dict()["state"], theirs.state_dict()["state"], strict=True):
        assert ours.keys() == other.keys() and ours["step"] == other["step"] == 9


def test_what_lies_on_the_device_already_stays_as_it_is() -> None:
    model, optimizer = made(RULES["adamw"])
    F.cross_entropy(model(IDS), LABELS).backward()
    arena, gradient = optimizer.arena, model.head.weight.leaf.grad
    assert model.to("cpu") is model and optimizer.to("cpu") is optimizer
    assert optimizer.arena is arena and model.head.weight.leaf.grad is gradient


def test_a_module_does_not_move_before_its_optimizer(gpu: None) -> None:
    model, optimizer = made(RULES["sgd"])
    with pytest.raises(GraphError, match=r"words\.weight belongs to an optimizer: move that first \(optimizer\.to\('cuda'\)\)"):
        model.to("cuda")
    assert model.scale.device == "cpu"
    optimizer.to("cuda")
    with pytest.raises(GraphError, match="convert before you build it"):
        model.to("float64")


def test_graphs_from_before_are_stale(gpu: None) -> None:
    model, optimizer = made(RULES["sgd"])
    loss = F.cross_entropy(model(IDS), LABELS)
    optimizer.to("cuda")
    with pytest.raises(GraphError, match="changed between"):
        loss.backward()


def test_what_is_bound_to_the_old_place_says_so(gpu: None) -> None:
    model, optimizer = made(RULES["adamw"])
    average = Average(optimizer, 0.9)
    optimizer.to("cuda")
    with pytest.raises(GraphError, match="make the average afterwards"):
        average.update()
    successor = mg.optim.SGD(list(optimizer.steps), lr=0.1)
    with pytest.raises(GraphError, match="belongs to another optimizer"):
        optimizer.to("cpu")
    successor.to("cpu")
    assert model.head.weight.device == "cpu"


def test_memory_that_processes_share_does_not_move(gpu: None) -> None:
    _, optimizer = made(RULES["adamw"])
    shared = SharedOptimizer(optimizer, workers=1)
    with pytest.raises(GraphError, match="close the team before moving the optimizer"):
        optimizer.to("cuda")
    shared.undo()
    assert {p.device for p in optimizer.to("cuda").steps} == {"cuda"}


def test_where_it_cannot_go_nothing_changes() -> None:
    model, optimizer = made(RULES["adamw"])
    before = model.head.weight.array
    with pytest.raises((DeviceError, MissingExtraError), match='device "cuda"'):
        optimizer.to("cuda")
    with pytest.raises(ArgumentError):
        optimizer.to("float64")
    assert model.head.weight.array is before
