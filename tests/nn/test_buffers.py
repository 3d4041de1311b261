"""Buffers: tensors that are saved, converted and copied with a module, but neither trained nor guarded against changes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.errors import ArgumentError, DTypeError, ShapeError, StateDictError
from minigrad.optim import SGD

NAMES = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]

COPIES = {"deepcopy": copy.deepcopy, "copy": copy.copy, "pickle": lambda buffer: pickle.loads(pickle.dumps(buffer))}


def trained() -> Any:
    """A layer whose running statistics differ from their initial values."""
    layer = nn.BatchNorm1d(2)
    layer(np.float32([[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]]))
    return layer


# ---------------------------------------------------------------- who sees them
def test_buffers_are_saved_but_are_no_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = [f"layers.1.{name}" for name in NAMES]
    assert [name for name, _ in model.named_buffers()] == names[2:]
    assert [name for name, _ in model.named_parameters()] == ["layers.0.weight", "layers.0.bias", *names[:2]]
    assert list(model.state_dict()) == ["layers.0.weight", "layers.0.bias", *names]
    assert model.num_parameters() == 4 + 2 + 4
    assert {name: array.dtype.name for name, array in model.state_dict().items() if "num" in name} == {names[4]: "int64"}


def test_buffers_are_never_frozen_trained_or_optimized() -> None:
    layer = trained()
    assert layer.freeze() == ["weight", "bias"]
    assert layer.unfreeze() == ["weight", "bias"]
    with pytest.raises(ArgumentError, match="no parameter's path starts with or matches 'running_mean'"):
        layer.unfreeze("running_mean")
    before = layer.state_dict()
    optimizer = SGD(layer.named_parameters(), lr=0.1)
    layer.eval()(np.ones((2, 2), np.float32)).sum().backward()
    optimizer.step()
    after = layer.state_dict()
    assert [name for name in NAMES if (before[name] != after[name]).any()] == ["bias", "weight"][::-1]
    with pytest.raises(ArgumentError):
        SGD([layer.running_mean], lr=0.1)


def test_shared_buffers_count_once_and_sets_are_refused() -> None:
    class Holding(nn.Module):
        def __init__(self, *held: Any) -> None:
            self.held = held

    buffer = nn.Buffer([1.0])
    assert [name for name, _ in Holding(buffer, [buffer]).named_buffers()] == ["held.0"]
    with pytest.raises(StateDictError, match="is a set of layers or parameters"):
        Holding({buffer}).named_buffers()
    with pytest.raises(StateDictError, match="requires a gradient, which no optimizer would train"):
        Holding(nn.Buffer([1.0], requires_grad=True)).named_buffers()


# ---------------------------------------------------------------- saving, converting, copying
def test_state_dict_round_trip() -> None:
    source, target = trained(), nn.BatchNorm1d(2)
    state = source.state_dict()
    target.load_state_dict(state)
    for name, array in target.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
        assert array.dtype == state[name].dtype
    state["running_mean"][:] = 7.0  # a copy
    assert source.running_mean.numpy().max() < 1.0
    with pytest.raises(StateDictError, match=r"mis-shaped: running_var: \(3,\) given, \(2,\) needed \| missing: num_batches_tracked"):
        target.load_state_dict({**{name: state[name] for name in NAMES[:3]}, "running_var": np.ones(3)})
    target.load_state_dict({"num_batches_tracked": 5.0}, strict=False)
    assert (target.num_batches_tracked.item(), target.num_batches_tracked.dtype) == (5, np.int64)


def test_floating_buffers_are_converted_and_counts_stay_integers() -> None:
    layer = trained()
    mean = layer.running_mean.numpy()
    layer.to("float64")
    assert [layer.state_dict()[name].dtype.name for name in NAMES[2:]] == ["float64", "float64", "int64"]
    np.testing.assert_array_equal(layer.running_mean.numpy(), mean)
    layer.to("cpu")
    layer(np.ones((2, 2)))  # and stay so when they change
    assert layer.running_mean.dtype == np.float64


def test_a_copy_of_a_layer_has_buffers_of_its_own() -> None:
    layer = trained()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        state = layer.state_dict()
        for name, array in twin.state_dict().items():
            np.testing.assert_array_equal(array, state[name])
        assert all(type(buffer) is nn.Buffer for _, buffer in twin.named_buffers())
        twin(np.float32([[10.0, 20.0], [30.0, 40.0]]))
        assert twin.num_batches_tracked.item() == 2
        np.testing.assert_array_equal(layer.running_mean.numpy(), state["running_mean"])


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_buffer(how: str) -> None:
    buffer = nn.Buffer([1.0, 2.0])
    twin = COPIES[how](buffer)
    assert type(twin) is nn.Buffer
    buffer.assign([5.0, 5.0])
    assert twin.tolist() == [1.0, 2.0]


# ---------------------------------------------------------------- changing
def test_assign_keeps_shape_and_dtype() -> None:
    buffer = nn.Buffer(np.zeros(2, np.float32))
    source = np.array([1.0, 2.0])
    buffer.assign(source)
    source[:] = 9.0
    assert (buffer.dtype, buffer.tolist()) == (np.float32, [1.0, 2.0])
    buffer.assign(mg.tensor([3, 4]))
    assert (buffer.dtype, buffer.tolist()) == (np.float32, [3.0, 4.0])
    with pytest.raises(ShapeError, match=r"cannot assign an array of shape \(3,\) to a buffer of shape \(2,\)"):
        buffer.assign(np.ones(3))
    with pytest.raises(DTypeError):
        buffer.assign(["a", "b"])


def test_a_graph_keeps_the_numbers_that_it_read() -> None:
    """A later training pass neither makes an evaluation's graph stale nor changes its gradient."""
    buffer, x = nn.Buffer([2.0, 3.0]), mg.tensor([1.0, 1.0], requires_grad=True)
    y, view = (x * buffer).sum(), buffer.numpy()
    buffer.assign([7.0, 7.0])
    y.backward()
    assert x.grad.tolist() == [2.0, 3.0]  # type: ignore[union-attr]
    assert view.tolist() == [2.0, 3.0]
    layer = trained().eval()
    expected = mg.grad(layer(np.ones((2, 2), np.float32)).sum(), layer.weight).tolist()
    loss = layer(np.ones((2, 2), np.float32)).sum()
    layer.train()(np.float32([[10.0, 20.0], [30.0, 40.0]]))
    assert mg.grad(loss, layer.weight).tolist() == expected
