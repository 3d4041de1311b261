"""Whether what a function may read is as it was, which is asked in every step."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any
from weakref import ref

import numpy as np
import pytest

from minigrad import nn
from minigrad.workers import snapshot
from minigrad.workers.snapshot import ModelSnapshot


class Net(nn.Module):
    def __init__(self) -> None:
        self.dense, self.norm, self.dropout = nn.Linear(3, 3), nn.LayerNorm(3), nn.Dropout(0.1)
        self.many = [nn.Linear(3, 3), nn.Dropout(0.2)]
        self.deep = {"a": ([nn.LayerNorm(3)],), "b": []}
        self.mean = nn.Buffer(np.zeros(3, np.float32))


def snapshot_of(model: Net, held: bool) -> ModelSnapshot:
    return ModelSnapshot(dict.fromkeys(model.parameters()), [module for _, module in model.named_modules()] if held else ())


CHANGES: dict[str, Callable[[Any], object]] = {
    "mode": lambda model: model.eval(),
    "mode of one": lambda model: model.many[1].eval(),
    "rate": lambda model: setattr(model.dropout, "p", 0.5),
    "rate in a list": lambda model: setattr(model.many[1], "p", 0.5),
    "frozen": lambda model: model.freeze("dense*"),
    "another module": lambda model: setattr(model, "dense", nn.Linear(3, 3)),
    "another parameter": lambda model: setattr(model.dense, "bias", nn.Parameter(model.dense.bias.numpy())),
    "a part replaced by None": lambda model: setattr(model, "norm", None),
    "one less in a list": lambda model: model.many.pop(),
    "another in a list": lambda model: model.many.__setitem__(0, nn.Linear(3, 3)),
    "another in a dict": lambda model: model.deep["a"][0].__setitem__(0, nn.LayerNorm(3)),
    "a list's order": lambda model: model.many.reverse(),
    "a hook": lambda model: model.norm.register_forward_hook(lambda module, args, output: None),
    "another buffer": lambda model: setattr(model, "mean", nn.Buffer(np.zeros(3, np.float32))),
    "numbers of a buffer": lambda model: model.mean.assign(np.ones(3)),
    "a new attribute": lambda model: setattr(model.norm, "weight2", model.norm.weight),
    "one less": lambda model: delattr(model.norm, "eps"),
    "swapped": lambda model: vars(model.norm).update(weight=model.norm.bias, bias=model.norm.weight),
    "renamed": lambda model: setattr(model.dropout, "q", vars(model.dropout).pop("p")),
}


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, held: bool) -> None:
    model = Net().train()
    seen = snapshot_of(model, held)
    assert not seen.changed()
    CHANGES[change](model)
    assert seen.changed()


@pytest.mark.parametrize("held", [True, False])
def test_what_is_no_change(held: bool) -> None:
    """Numbers of shared parameters, values that are equal, modules that came later."""
    model = Net().train()
    seen = snapshot_of(model, held)
    model.dense.bias.assign(np.ones(3))
    model.train().dropout.p = float("0.1")
    model.freeze("dense*")
    model.unfreeze()
    Net().eval()
    assert not seen.changed()


def test_hooks_are_counted() -> None:
    model = Net()
    assert not snapshot_of(model, True).hooked
    handle = model.dense.register_forward_pre_hook(lambda module, args: None)
    seen = snapshot_of(model, True)
    assert seen.hooked and not seen.changed()
    handle.remove()
    assert seen.changed() and not snapshot_of(model, True).hooked
    seen = snapshot_of(model, False)
    with model.dense.register_forward_pre_hook(lambda module, args: None):
        assert seen.changed()
    assert not seen.changed()


def test_new_numbers_may_be_no_news() -> None:
    model = Net()
    seen = ModelSnapshot(values=False)
    model.dense.bias.assign(np.ones(3))
    assert not seen.changed()
    model.freeze("dense*")
    assert seen.changed()


def test_parameters_of_others() -> None:
    model, other = Net(), Net()
    seen = snapshot_of(model, True)
    assert {id(p) for p in other.parameters()} <= {id(p) for p in seen.parameters()}
    assert not {id(p) for p in model.parameters()} & {id(p) for p in seen.parameters()}
    other.dense.bias.assign(np.ones(3))
    assert seen.changed()


def test_models_that_nobody_else_holds_may_go() -> None:
    model, other = Net(), Net()
    seen, gone = snapshot_of(model, True), ref(other)
    del other
    gc.collect()
    assert gone() is None and not seen.changed()


def test_other_threads_may_make_tuples_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is being filled cannot be made longer while anybody else has it (bpo-15108)."""
    looking, over = Event(), Event()

    def slowly(kind: type, kinds: Any) -> bool:
        looking.set()
        over.wait(60)
        return issubclass(kind, kinds)

    monkeypatch.setattr(snapshot, "issubclass", slowly, raising=False)
    model = nn.Linear(2, 3)
    thread = Thread(target=ModelSnapshot)

    def numbers() -> Iterator[int]:
        yield from range(100)
        thread.start()
        assert looking.wait(60)
        yield from range(100)

    try:
        assert len(tuple(numbers())) == 200
    finally:
        over.set()
        thread.join()
    assert model.weight in ModelSnapshot().parameters()
