"""Module: what the walk over attributes finds, names, saves, freezes, converts and prints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ArgumentError, DTypeError, GraphError, ShapeError, StateDictError
from minigrad.nn import Dropout, LayerNorm, Linear, Module, Parameter, Sequential
from minigrad.optim import SGD


class Tree(Module):
    """A parameter of its own, and layers directly and inside a list, a tuple and a dict."""

    def __init__(self) -> None:
        self.scale = Parameter(np.ones(2))
        self.first = Linear(2, 3)
        self.blocks = [Linear(3, 3, bias=False), Sequential(Dropout(0.5), LayerNorm(3))]
        self.pair = (Parameter(np.zeros(1)), [Linear(1, 1)])
        self.by_name = {"left": Linear(3, 1), "right": {"deep": Parameter(np.zeros(4))}}
        self.numbers, self.text, self.array = [1, 2], "text", np.zeros(3)  # no layers: not found


NAMES = [
    "scale",
    "first.weight",
    "first.bias",
    "blocks.0.weight",
    "blocks.1.layers.1.weight",
    "blocks.1.layers.1.bias",
    "pair.0",
    "pair.1.0.weight",
    "pair.1.0.bias",
    "by_name.left.weight",
    "by_name.left.bias",
    "by_name.right.deep",
]


# ---------------------------------------------------------------- the walk
def test_walk_through_lists_tuples_and_dicts() -> None:
    tree = Tree()
    assert [name for name, _ in tree.named_parameters()] == NAMES
    assert [p.name for p in tree.parameters()] == NAMES
    assert tree.num_parameters() == 2 + 9 + 9 + 6 + 1 + 2 + 4 + 4
    modules = dict(tree.named_modules())
    assert list(modules) == ["", "first", "blocks.0", "blocks.1", "blocks.1.layers.0", "blocks.1.layers.1", "pair.1.0", "by_name.left"]
    assert modules["blocks.1.layers.0"].path == "blocks.1.layers.0"


def test_shared_layers_and_parameters_count_once_under_their_first_path() -> None:
    class Tied(Module):
        def __init__(self) -> None:
            self.embedding = Linear(2, 2, bias=False)
            self.again = self.embedding
            self.decoder_weight = self.embedding.weight

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["embedding.weight"]
    assert [path for path, _ in tied.named_modules()] == ["", "embedding"]
    assert (tied.embedding.path, tied.decoder_weight.name) == ("embedding", "embedding.weight")
    (tied.embedding.weight * tied.decoder_weight).sum().backward()
    np.testing.assert_allclose(tied.embedding.weight.grad.numpy(), 2 * tied.embedding.weight.numpy())
    tied.to("float64")
    assert tied.decoder_weight.dtype == np.float64


def test_a_module_that_leads_back_to_itself_is_walked_once() -> None:
    class Child(Module):
        def __init__(self, parent: Module) -> None:
            self.parent, self.weight = parent, Parameter(np.ones(1))

    class Parent(Module):
        def __init__(self) -> None:
            self.child = Child(self)

    parent = Parent().eval()
    assert [name for name, _ in parent.named_parameters()] == ["child.weight"]
    assert repr(parent) == "Parent(\n  (child): Child(\n    (parent): ...\n  )\n)"


def test_the_path_from_the_outermost_walk_is_kept() -> None:
    tree = Tree()
    tree.named_parameters()
    tree.blocks[1].named_parameters()
    assert tree.blocks[1].layers[0].path == "blocks.1.layers.0"


@pytest.mark.parametrize("holder", [set, frozenset])
def test_sets_of_layers_are_refused(holder: type) -> None:
    class Unordered(Module):
        def __init__(self) -> None:
            self.layers = holder([Linear(1, 1)])

    with pytest.raises(StateDictError, match=r"layers is a set of layers or parameters: .* use a list"):
        Unordered().named_parameters()


def test_sets_of_anything_else_are_welcome() -> None:
    tree = Tree()
    tree.tags = {"a", "b"}  # type: ignore[attr-defined]
    assert len(tree.parameters()) == len(NAMES)


def test_a_class_without_forward_says_so() -> None:
    with pytest.raises(ArgumentError, match="Tree defines no forward"):
        Tree()()


# ---------------------------------------------------------------- state
def test_state_dict_round_trip() -> None:
    source, target = Tree(), Tree()
    state = source.state_dict()
    assert list(state) == NAMES
    target.load_state_dict(state)
    for name, array in target.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    state["scale"][:] = 7.0  # a copy
    assert source.scale.numpy().tolist() == [1.0, 1.0]


def test_state_dict_refuses_a_bare_tensor() -> None:
    tree = Tree()
    tree.blocks.append(mg.tensor([1.0]))
    with pytest.raises(StateDictError, match=r"blocks\.2 is a Tensor, which is not saved: make it Parameter"):
        tree.state_dict()


def test_load_state_dict_names_every_problem_and_changes_nothing() -> None:
    tree = Tree()
    before, state = tree.state_dict(), {name: array + 1 for name, array in tree.state_dict().items()}
    del state["by_name.right.deep"], state["pair.0"]
    state["extra"], state["other"] = np.zeros(1), np.zeros(1)
    state["scale"], state["first.bias"] = np.zeros(3), np.zeros((3, 1))
    state["first.weight"], state["blocks.0.weight"] = [["a", "b"]] * 3, [[1.0], [1.0, 2.0]]
    with pytest.raises(StateDictError) as caught:
        tree.load_state_dict(state)
    assert str(caught.value) == (
        "Tree.load_state_dict: no array of numbers: first.weight, blocks.0.weight"
        " | mis-shaped: scale: (3,) given, (2,) needed; first.bias: (3, 1) given, (3,) needed"
        " | missing: pair.0, by_name.right.deep | unexpected: extra, other"
    )
    for name, array in tree.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_load_state_dict_not_strict_takes_what_fits_by_name() -> None:
    tree = Tree()
    tree.load_state_dict({"scale": [3.0, 4.0], "unknown": np.zeros(1)}, strict=False)
    assert tree.scale.numpy().tolist() == [3.0, 4.0]
    with pytest.raises(StateDictError, match="mis-shaped"):
        tree.load_state_dict({"scale": [3.0]}, strict=False)


def test_load_state_dict_converts_and_makes_older_graphs_stale() -> None:
    tree = Tree()
    loss = (tree.scale * 2.0).sum()
    tree.load_state_dict(tree.state_dict() | {"scale": mg.tensor([1, 2])})
    assert tree.scale.dtype == np.float64
    assert tree.scale.numpy().tolist() == [1.0, 2.0]
    with pytest.raises(GraphError, match="scale changed between the forward pass") as caught:
        loss.backward()
    assert caught.value.code == "graph-stale"


# ---------------------------------------------------------------- modes
def test_train_eval_and_evaluating() -> None:
    tree = Tree()
    dropout = tree.blocks[1].layers[0]
    assert dropout.training
    assert tree.eval() is tree
    assert not dropout.training
    tree.train()
    dropout.training = False  # one layer kept out of training on purpose
    with pytest.raises(KeyError), tree.evaluating() as inside:
        assert inside is tree
        assert not any(module.training for _, module in tree.named_modules())
        raise KeyError
    assert not dropout.training
    assert all(module.training for _, module in tree.named_modules() if module is not dropout)


FREEZES: list[tuple[tuple[str, ...], list[str]]] = [
    ((), NAMES),
    (("first",), ["first.weight", "first.bias"]),
    (("first.",), ["first.weight", "first.bias"]),
    (("first.bias", "scale"), ["first.bias", "scale"]),
    (("blocks.1",), ["blocks.1.layers.1.weight", "blocks.1.layers.1.bias"]),
    (("*.bias",), ["first.bias", "blocks.1.layers.1.bias", "pair.1.0.bias", "by_name.left.bias"]),
]


@pytest.mark.parametrize(("patterns", "expected"), FREEZES)
def test_freeze_and_unfreeze(patterns: tuple[str, ...], expected: list[str]) -> None:
    tree = Tree()
    assert tree.freeze(*patterns) == expected
    assert [name for name, p in tree.named_parameters() if not p.requires_grad] == [name for name in NAMES if name in expected]
    assert tree.unfreeze(*patterns) == expected
    assert all(p.requires_grad for p in tree.parameters())


def test_freeze_refuses_a_pattern_that_fits_nothing_and_changes_nothing() -> None:
    tree = Tree()
    for pattern in ("block", "firs", "", "blocks.1.layers.0"):  # neither the beginning of a name's part nor a layer without parameters
        with pytest.raises(ArgumentError, match=f"starts with or matches '{pattern}'; paths look like 'scale'"):
            tree.freeze("first", pattern)
    assert all(p.requires_grad for p in tree.parameters())
    with pytest.raises(ArgumentError, match="no parameters"):
        Dropout(0.1).freeze("x")


def test_frozen_parameters_receive_no_gradient() -> None:
    layer = Linear(2, 2)
    layer.freeze("weight")
    layer(mg.tensor([[1.0, 2.0]])).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.numpy().tolist() == [1.0, 1.0]
    layer.zero_grad()
    assert layer.bias.grad is None


# ---------------------------------------------------------------- conversion
def test_to_converts_in_place_and_keeps_names_and_freezing() -> None:
    tree = Tree()
    tree.freeze("first.weight")
    parameter = tree.first.weight
    numbers = np.array(parameter.numpy())
    assert tree.to(np.dtype("float64")) is tree
    assert all(p.dtype == np.float64 for p in tree.parameters())
    assert tree.first.weight is parameter
    assert (parameter.name, parameter.requires_grad) == ("first.weight", False)
    np.testing.assert_array_equal(parameter.numpy(), numbers)
    assert tree.unfreeze("first.weight") == ["first.weight"]
    (tree.first.weight * 1.0).sum().backward()
    assert tree.first.weight.grad.dtype == np.float64
    tree.to("cpu")


@pytest.mark.parametrize("target", ["int64", "bool", np.int32, "float16"])
def test_to_refuses_other_dtypes(target: Any) -> None:
    tree = Tree()
    with pytest.raises(DTypeError, match="parameters are float32 or float64, they cannot become"):
        tree.to(target)
    assert tree.scale.dtype == np.float64


def test_to_refuses_unknown_words() -> None:
    with pytest.raises(ArgumentError, match="unknown dtype or device 'gpu'"):
        Tree().to("gpu")


def test_to_refuses_parameters_of_an_optimizer() -> None:
    tree = Tree()
    optimizer = SGD([tree.first.bias], lr=0.1)
    with pytest.raises(GraphError, match=r"first\.bias belongs to an optimizer: move or convert the module before") as caught:
        tree.to("float64")
    assert caught.value.code == "graph-owner"
    assert tree.first.weight.dtype == np.float32
    del optimizer  # nobody holds the parameters any more
    assert tree.to("float64").first.bias.dtype == np.float64


def test_assign_refuses_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"shape \(3,\) to parameter scale of shape \(2,\)"):
        tree = Tree()
        tree.named_parameters()
        tree.scale.assign(np.zeros(3))


# ---------------------------------------------------------------- printing
def test_repr_shows_the_tree() -> None:
    assert repr(Sequential(Linear(2, 3, bias=False), LayerNorm(3), Dropout(0.25))) == (
        "Sequential(\n  (layers.0): Linear(2, 3, bias=False)\n  (layers.1): LayerNorm(3, eps=1e-05)\n  (layers.2): Dropout(p=0.25)\n)"
    )
    assert "(by_name.left): Linear(3, 1)" in repr(Tree())
