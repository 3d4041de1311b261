"""A copy of a parameter or model (copy.deepcopy, pickle) is independent: the current numbers, no optimizer, no gradient."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models.cases import classifier, ragged

import minigrad as mg
import minigrad.functional as F
from minigrad import nn
from minigrad.optim import SGD, AdamW
from minigrad.optim.arena import TABLE_ROWS

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}

Step = Callable[[Any], mg.Tensor]


def of_linear(layer: Any) -> mg.Tensor:
    return (layer(np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3)) * layer.weight[0, 0]).sum()


def of_embedding(layer: Any) -> mg.Tensor:
    return (layer([3, 5, 3]) * layer([4, 5, 6])).sum()


def of_bert(model: Any) -> mg.Tensor:
    batch = ragged()
    return model(batch.packed(), labels=batch.labels).loss  # type: ignore[no-any-return]


MODELS: dict[str, tuple[Callable[[], Any], Step]] = {
    "linear": (lambda: nn.Linear(3, 2), of_linear),
    "embedding in the arena": (lambda: nn.Embedding(10, 2), of_embedding),
    "embedding that is a table": (lambda: nn.Embedding(TABLE_ROWS, 2), of_embedding),
    "bert": (lambda: classifier("float32", dropout=0.3), of_bert),
    "bert with relu and a table": (lambda: classifier("float32", hidden_act="relu", vocab_size=TABLE_ROWS), of_bert),
}


class Tied(nn.Module):
    """The same parameter in two places, and a frozen head."""

    def __init__(self) -> None:
        self.embedding = nn.Embedding(4, 3)
        self.output = self.embedding.weight
        self.head = nn.Linear(3, 2)


def train(model: Any, optimizer: AdamW, loss_of: Step, steps: int) -> None:
    for _ in range(steps):
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_of_a_model_under_an_optimizer(kind: str, how: str) -> None:
    mg.manual_seed(0)
    build, loss_of = MODELS[kind]
    model = build()
    optimizer = AdamW(model.named_parameters(), lr=0.01, weight_decay=0.3)
    assert bool(optimizer.tables) == ("table" in kind)
    train(model, optimizer, loss_of, 2)
    loss_of(model).backward()
    twin = COPIES[how](model)
    state = model.state_dict()  # after the copy: it must have settled what the optimizer owed, by itself
    for (name, p), (other, q) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert (other, q.name) == (name, name)
        assert q is not p
        assert (q.dtype, q.gathered, q.requires_grad, q.owner, q.grad) == (p.dtype, p.gathered, p.requires_grad, None, None)
        np.testing.assert_array_equal(q.numpy(), state[name])
    own = AdamW(twin.named_parameters(), lr=0.01, weight_decay=0.3)
    train(twin, own, loss_of, 3)
    trained = twin.state_dict()
    assert any((trained[name] != state[name]).any() for name in state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    optimizer.step()  # still the owner of the original, whose gradient is still there
    assert any((array != state[name]).any() for name, array in model.state_dict().items())
    for name, array in twin.state_dict().items():
        np.testing.assert_array_equal(array, trained[name])


@pytest.mark.parametrize("how", COPIES)
def test_frozen_and_shared_parameters_stay_so(how: str) -> None:
    model = Tied()
    model.freeze("head")
    twin = COPIES[how](model)
    assert twin.output is twin.embedding.weight
    assert [name for name, p in twin.named_parameters() if p.requires_grad] == ["embedding.weight"]


@pytest.mark.parametrize("how", [*COPIES, "copy"])
def test_a_copy_of_a_parameter(how: str) -> None:
    p = mg.Parameter(np.array([1.0, 2.0]), requires_grad=False)
    q = copy.copy(p) if how == "copy" else COPIES[how](p)
    assert type(q) is mg.Parameter
    assert not q.requires_grad
    p.assign([5.0, 5.0])
    assert q.tolist() == [1.0, 2.0]


def test_detach_keeps_the_numbers_of_now_and_the_views_follow() -> None:
    p = mg.Parameter(np.ones(2))
    optimizer = SGD([p], lr=1.0)
    best, view, data = p.detach(), p.numpy(), p.data
    assert not best.requires_grad
    assert not view.flags.writeable
    assert not data.flags.writeable
    (p * 3.0).sum().backward()
    optimizer.step()
    assert best.tolist() == [1.0, 1.0]
    assert view.tolist() == data.tolist() == [-2.0, -2.0]
    p.assign(best)
    assert p.tolist() == [1.0, 1.0]


def test_detach_of_a_table_pays_what_the_optimizer_owes() -> None:
    p = mg.Parameter(np.ones((TABLE_ROWS, 2)), gathered=True)
    optimizer = AdamW([p], lr=0.1, weight_decay=0.5)
    F.embedding([5], p).sum().backward()
    optimizer.step()
    assert p.detach().numpy()[6].tolist() == [0.95, 0.95]
