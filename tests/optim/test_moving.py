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
from minigrad.optim.state import as_dense
from minigrad.train.average import Average
from minigrad.train.processes.shared import SharedOptimizer
from minigrad.train.team import Team

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
    "sgd without moments": lambda p: mg.optim.SGD(p, lr=1e-2, weight_decay=0.1),
    "two groups": lambda p: mg.optim.SGD([{"params": p[:1], "momentum": 0.9}, {"params": p[1:], "lr": 1e-3}], lr=1e-2),
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
        assert ours.keys() >= other.keys() and ours["step"] == other["step"] == 9  # an arena has moments for all or none


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


def test_options_that_were_changed_move_too(gpu: None) -> None:
    """Also a table that lacks a moment which its rule has needed since, and a learning rate that the next step refuses."""
    model, optimizer = made(lambda p: mg.optim.Adam(p, lr=1e-2))
    train(model, optimizer, range(3))
    optimizer.param_groups[0].update(amsgrad=True, lr=-1.0)
    optimizer.to("cuda")
    model.to("cuda")
    with pytest.raises(ArgumentError, match="lr"):
        train(model, optimizer, range(3, 4))
    optimizer.zero_grad()
    optimizer.param_groups[0]["lr"] = 1e-2
    train(model, optimizer, range(3, 6))
    assert optimizer.steps[model.words.weight] == 6


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("fails", ["_allocate", "_restore", "Arena"])
def test_without_memory_it_stays_and_trains_on(device: str, fails: str, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stayed, theirs = made(RULES["adamw"])
    model, optimizer = made(RULES["adamw"])
    home = {"cpu": "cuda", "cuda": "cpu"}[device]
    for ours, its in (stayed, theirs), (model, optimizer):
        its.to(home)
        ours.to(home)
        train(ours, its, range(3))
    F.cross_entropy(model(IDS), LABELS).backward()  # a gradient that is discarded
    arena, weight = optimizer.arena, model.words.weight.numpy().copy()

    def full(*_: object) -> None:
        raise MemoryError("the device is full")

    with monkeypatch.context() as patch, pytest.raises(MemoryError, match="full"):
        if fails == "Arena":
            patch.setattr("minigrad.optim.arena._move_gradient", full)  # in the middle of its parameters
        else:
            patch.setattr(type(optimizer), fails, full)
        optimizer.to(device)
    assert optimizer.arena is arena and {p.device for p in optimizer.steps} == {home}
    np.testing.assert_array_equal(model.words.weight.numpy(), weight)
    assert all(p.leaf.grad is None for p in optimizer.steps)
    model.norm.load_state_dict(stayed.norm.state_dict())  # the discarded pass has moved the running statistics
    train(stayed, theirs, range(3, 6))
    train(model, optimizer, range(3, 6))
    for (name, array), expected in zip(model.state_dict().items(), stayed.state_dict().values(), strict=True):
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert {p.device for p in optimizer.to(device).steps} == {device}


def test_no_version_of_a_parameter_occurs_twice(gpu: None) -> None:
    """What was derived from a parameter's values is recognised as out of date by its version."""
    model, optimizer = made(RULES["sgd"])
    train(model, optimizer, range(3))
    versions = [model.head.weight.leaf.version]
    for device in "cuda", "cpu":
        optimizer.to(device)
        versions.append(model.head.weight.leaf.version)
    assert versions == sorted(set(versions))


def test_a_frozen_parameter_moves_with_its_moments(gpu: None) -> None:
    model, optimizer = made(RULES["adamw"])
    train(model, optimizer, range(2))
    model.head.weight.requires_grad_(False)
    before = optimizer.state_dict()["state"]
    optimizer.to("cuda")
    assert not model.head.weight.requires_grad
    after = optimizer.to("cpu").state_dict()["state"]
    for p, *entries in zip(optimizer.steps, after, before, strict=True):  # a table may assign other slots to its rows
        ours, other = (as_dense(entry, len(p)) for entry in entries)
        assert ours.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert not model.head.weight.requires_grad


def test_a_schedule_goes_on(gpu: None) -> None:
    model, optimizer = made(RULES["sgd"])
    schedule = mg.optim.LinearSchedule(optimizer, 0, 4)
    train(model, optimizer, range(1))
    schedule.step()
    optimizer.to("cuda")
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-3)


def test_a_team_whose_optimizer_has_moved_says_so(gpu: None) -> None:
    model, optimizer = made(RULES["adamw"])
    with Team(lambda part, whole: F.cross_entropy(model(IDS), LABELS), optimizer, workers=2) as team:
        for device in "cuda", "cpu":
            optimizer.to(device)
            with pytest.raises(GraphError, match="since this team was made: make a new one"):
                team.backward(None)
