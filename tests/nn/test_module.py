"""Module: how it finds, names, saves, freezes, converts and prints the parameters and layers among its attributes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.backend import random
from minigrad.backend.layout import neighbours
from minigrad.errors import ArgumentError, DTypeError, GraphError, ShapeError, StateDictError
from minigrad.nn import Dropout, LayerNorm, Linear, Module, MultiHeadAttention, Parameter, Sequential, TransformerEncoder
from minigrad.optim import SGD
from minigrad.parameter import lay_out


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


class Holding(Module):
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


def ring() -> list[Any]:
    layers: list[Any] = [Linear(1, 1)]
    layers.append({"again": layers})
    return layers


UNNAMEABLE: dict[str, tuple[dict[str, Any], str]] = {
    "1 and '1'": ({"layers": {1: Linear(1, 1), "1": Linear(1, 1)}}, "layers.1 names a Linear and a Linear: rename one of them"),
    "parameters": ({"p": {0: Parameter([1.0]), "0": Parameter([2.0])}}, "p.0 names a Parameter and a Parameter"),
    "attributes with dots": ({"a.b": Parameter([1.0]), "a": {"b": Parameter([2.0])}}, "a.b names a Parameter and a Parameter"),
    "a key with a dot": ({"layers": {"a.b": Linear(1, 1)}}, "layers.a.b is a dict's key with a dot in it"),
    "a key with a dot further out": ({"layers": {"a.b": {"c": [Linear(1, 1)]}}}, "layers.a.b is a dict's key with a dot in it"),
    "a number with a dot": ({"layers": {0.5: Parameter([1.0])}}, "layers.0.5 is a dict's key with a dot in it"),
    "a list in itself": ({"layers": ring()}, "layers.1.again is a list that holds itself"),
}


@pytest.mark.parametrize("what", UNNAMEABLE)
def test_what_has_no_name_of_its_own_is_refused(what: str) -> None:
    held, says = UNNAMEABLE[what]
    for use in (Module.named_parameters, Module.state_dict, Module.eval, lambda module: module.load_state_dict({})):
        with pytest.raises(StateDictError) as caught:
            use(Holding(**held))
        assert says in str(caught.value)


def test_dots_in_keys_of_other_dicts_and_lists_held_twice_are_welcome() -> None:
    twice = [Linear(1, 1)]
    module = Holding(options={"a.b": 1, "c.d": {"e": [2]}}, first=twice, second=twice, both=[twice, twice])
    assert [name for name, _ in module.named_parameters()] == ["first.0.weight", "first.0.bias"]


def test_a_bare_tensor_that_requires_a_gradient_is_refused() -> None:
    module = Holding(scales=[mg.tensor([1.0], requires_grad=True)])
    with pytest.raises(
        StateDictError, match=r"scales\.0 is a Tensor that requires a gradient, which no optimizer would train: make it a P"
    ):
        module.parameters()
    kept = Holding(weight=Parameter([1.0]), constant=mg.tensor([1.0]))
    kept.last = kept.weight * 2.0  # type: ignore[attr-defined]  # a result that is kept for looking at
    assert [name for name, _ in kept.named_parameters()] == ["weight"]


def test_modules_may_be_nested_deeper_than_python_recurses() -> None:
    module = Linear(1, 1, bias=False)
    held: Any = module.weight
    for _ in range(3000):
        module, held = Holding(m=module), [held]  # type: ignore[assignment]
    assert [name for name, _ in module.named_parameters()] == ["m." * 3000 + "weight"]
    assert [name for name, _ in Holding(p=held).named_parameters()] == ["p" + ".0" * 3000]


def test_a_class_without_forward_says_so() -> None:
    with pytest.raises(ArgumentError, match="Tree defines no forward"):
        Tree()()


# ---------------------------------------------------------------- paths before the first draw
BUILDS: dict[str, Callable[[], Module]] = {
    "sequential": lambda: Sequential(Linear(4, 6), Sequential(Dropout(0.5)), Dropout(0.5)),
    "attention": lambda: Sequential(MultiHeadAttention(4, 2, 0.5)),
    "encoder": lambda: TransformerEncoder(2, 4, 2, 6, 0.5),
}

WALKS: dict[str, Callable[[Module], object]] = {
    "parameters": Module.parameters,
    "train": Module.train,
    "modules, then parameters": lambda model: (list(model.named_modules()), model.parameters()),
    "a call": lambda model: model(mg.tensor(np.ones((1, 1, 4)))),
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("kind", BUILDS)
def test_dropout_draws_the_same_whether_or_not_the_model_was_walked_before(kind: str, walk: str) -> None:
    found = []
    for walked in (False, True):
        mg.manual_seed(1)
        model = BUILDS[kind]()
        if walked:
            WALKS[walk](model)
        with random.at(seed=3, step=2):
            found.append(np.array(model(mg.tensor(np.ones((3, 5, 4), np.float32))).numpy()))
    np.testing.assert_array_equal(found[0], found[1])


def test_paths_are_told_once() -> None:
    model = Sequential(Sequential(Dropout(0.5)), Linear(2, 2))
    calls = []
    walk = model._walk
    model._walk = lambda: calls.append(1) or walk()  # type: ignore[func-returns-value, method-assign, assignment]
    for _ in range(3):
        model(mg.tensor([1.0, 2.0]))
    assert len(calls) == 1
    assert model.layers[0].layers[0].path == "layers.0.layers.0"  # type: ignore[attr-defined]


def test_a_part_called_before_the_whole_learns_its_longer_path() -> None:
    model = Sequential(Sequential(Dropout(0.5)))
    x = mg.tensor([1.0, 2.0])
    model.layers[0](x)
    assert model.layers[0].layers[0].path == "layers.0"  # type: ignore[attr-defined]
    model(x)
    assert model.layers[0].layers[0].path == "layers.0.layers.0"  # type: ignore[attr-defined]


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
    texts, ragged, masked = [["a", "b"]] * 3, [[1.0], [1.0, 2.0]], np.ma.masked_less(np.arange(3.0), 1.0)
    state["first.weight"], state["blocks.0.weight"], state["blocks.1.layers.1.bias"] = texts, ragged, masked

    def why(data: Any) -> str:
        with pytest.raises(DTypeError) as refused:
            mg.Tensor(data, dtype="float32")
        return str(refused.value)

    with pytest.raises(StateDictError) as caught:
        tree.load_state_dict(state)
    assert str(caught.value) == (
        f"Tree.load_state_dict: no array of numbers: first.weight: {why(texts)}; blocks.0.weight: {why(ragged)}; "
        f"blocks.1.layers.1.bias: {why(masked)}"
        " | mis-shaped: scale: (3,) given, (2,) needed; first.bias: (3, 1) given, (3,) needed"
        " | missing: pair.0, by_name.right.deep | unexpected: extra, other"
    )
    for name, array in tree.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("wrong", [None, [1], "weights.npz", 3])
def test_load_state_dict_takes_a_dict(wrong: Any) -> None:
    with pytest.raises(StateDictError, match=f"takes a dict of arrays by path, got {type(wrong).__name__}"):
        Tree().load_state_dict(wrong)


def test_load_state_dict_names_entries_whose_name_is_no_text() -> None:
    with pytest.raises(StateDictError, match="unexpected: 7"):
        Tree().load_state_dict(Tree().state_dict() | {7: np.zeros(1)})  # type: ignore[dict-item]


def test_load_state_dict_not_strict_takes_what_fits_by_name() -> None:
    tree = Tree()
    found = tree.load_state_dict({"scale": [3.0, 4.0], "unknown": np.zeros(1)}, strict=False)
    assert tree.scale.numpy().tolist() == [3.0, 4.0]
    assert found.unexpected_keys == ["unknown"] and found.missing_keys == [name for name in tree.state_dict() if name != "scale"]
    assert tree.load_state_dict(tree.state_dict()) == ([], [])
    with pytest.raises(StateDictError, match=r"missing: .*scale.* \| unexpected: module\.scale"):  # nothing fits: names with a prefix
        tree.load_state_dict({"module.scale": [5.0, 6.0]}, strict=False)
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


@pytest.mark.parametrize("wrong", [5, None, ["first"]])
def test_freeze_takes_text(wrong: Any) -> None:
    for use in (Tree().freeze, Tree().unfreeze):
        with pytest.raises(ArgumentError, match="freeze and unfreeze take paths or shell patterns"):
            use("first", wrong)


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


@pytest.mark.parametrize("wrong", [None, 3, np.zeros(2)])
def test_to_refuses_what_is_neither_dtype_nor_device(wrong: Any) -> None:
    tree = Tree()
    with pytest.raises(ArgumentError, match="dtype"):
        tree.to(wrong)
    assert tree.first.weight.dtype == np.float32


def test_to_forgets_the_gradients_of_what_it_converts() -> None:
    layer = Linear(2, 2)
    (layer.weight.sum() + layer.bias.sum()).backward()
    assert layer.to("float32").weight.grad is not None
    assert layer.to("float64").weight.grad is None
    assert layer.bias.grad is None


def test_to_keeps_together_what_lies_side_by_side() -> None:
    tree = Tree()
    arranged = [tree.by_name["left"].weight, tree.first.bias, tree.pair[0]]
    lay_out(np.arange(7, dtype=np.float32), arranged)
    tree.to("float64")
    assert all(p.dtype == np.float64 for p in tree.parameters())
    joined = neighbours([p.array.reshape(-1) for p in arranged])
    assert joined is not None and joined.tolist() == list(range(7))
    assert [p.shape for p in arranged] == [(1, 3), (3,), (1,)]


def test_to_refuses_parameters_of_an_optimizer() -> None:
    tree = Tree()
    optimizer = SGD([tree.first.bias], lr=0.1)
    with pytest.raises(GraphError, match=r"first\.bias belongs to an optimizer: convert before you build it") as caught:
        tree.to("float64")
    assert caught.value.code == "graph-owner"
    assert tree.first.weight.dtype == np.float32
    del optimizer  # nobody holds the parameters any more
    assert tree.to("float64").first.bias.dtype == np.float64


def test_lists_and_other_libraries_arrays_are_loaded_in_the_parameters_dtype() -> None:
    class Shown:
        dtype = "float of another library"

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            return np.array([0.1, 0.2], dtype=dtype)

    layer = mg.nn.Linear(2, 1).to("float64")
    layer.load_state_dict({"weight": [[0.1, 0.2]], "bias": [0.3]})
    assert layer.weight.tolist() == [[0.1, 0.2]] and layer.bias is not None and layer.bias.tolist() == [0.3]  # no detour by float32
    layer.load_state_dict({"weight": np.zeros((1, 2)), "bias": [0.0]})
    layer.weight.assign([Shown()])
    assert layer.weight.tolist() == [[0.1, 0.2]]


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: setattr(layer, "weight", np.zeros((2, 2))),
        lambda layer: setattr(layer, "weight", mg.randn(2, 2)),
        lambda layer: setattr(layer, "bias", layer.bias * 0.5),
        lambda layer: setattr(layer, "running_mean", [0.0, 0.0]),
        lambda layer: setattr(layer, "num_batches_tracked", layer.num_batches_tracked + 1),
    ],
)
def test_nothing_else_takes_the_place_of_a_parameter_or_buffer(change: Any) -> None:
    layer = mg.nn.BatchNorm1d(2)
    before = layer.state_dict()
    with pytest.raises(StateDictError, match=r"BatchNorm1d\.\w+ is a (Parameter|Buffer), and a \w+ in its place would be neither trained"):
        change(layer)
    assert list(layer.state_dict()) == list(before)
    layer.bias = None
    layer.weight = mg.Parameter([2.0, 2.0])
    assert list(layer.state_dict()) == ["weight", "running_mean", "running_var", "num_batches_tracked"]


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


# ---------------------------------------------------------------- hooks
def test_forward_hooks_see_and_replace_arguments_and_output() -> None:
    layer, x, seen = Linear(2, 3), np.ones((1, 2), np.float32), []
    plain = layer(x).numpy()
    with layer.register_forward_hook(lambda module, args, output: seen.append((module, args, output))):
        out = layer(x)
    assert seen[0][0] is layer and seen[0][1][0] is x and seen[0][2] is out
    with layer.register_forward_hook(lambda module, args, output: output * 2.0):
        np.testing.assert_array_equal(layer(x).numpy(), 2.0 * plain)
    with layer.register_forward_pre_hook(lambda module, args: (args[0] * 0.0,)):
        np.testing.assert_array_equal(layer(x).numpy(), [layer.bias.numpy()])  # type: ignore[union-attr]
    with layer.register_forward_pre_hook(lambda module, args: args[0] * 0.0):  # the only argument may come without a tuple
        np.testing.assert_array_equal(layer(x).numpy(), [layer.bias.numpy()])  # type: ignore[union-attr]
    np.testing.assert_array_equal(layer(x).numpy(), plain)
    assert len(seen) == 1


def test_forward_hooks_run_in_order_and_take_part_in_the_gradient() -> None:
    layer = Linear(2, 1, bias=False).to("float64")
    first = layer.register_forward_hook(lambda module, args, output: output + 1.0)
    layer.register_forward_hook(lambda module, args, output: output * 10.0)
    x = np.array([[1.0, 2.0]])
    out = layer(x)
    np.testing.assert_allclose(out.numpy(), (x @ layer.weight.numpy().T + 1.0) * 10.0, rtol=1e-15)
    out.sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[10.0, 20.0]]
    first.remove()
    np.testing.assert_allclose(layer(x).numpy(), x @ layer.weight.numpy().T * 10.0, rtol=1e-15)


def test_a_module_as_a_hook_is_no_layer() -> None:
    class Probe(Module):
        def __init__(self) -> None:
            self.weight = Parameter(np.ones(1))

        def forward(self, module: Module, args: Any, output: Any) -> None:
            return None

    layer = Linear(2, 2)
    names, printed = list(layer.state_dict()), repr(layer)
    layer.register_forward_hook(Probe())
    layer.register_forward_pre_hook(lambda module, args: None)
    layer(np.ones((1, 2), np.float32))
    assert list(layer.state_dict()) == [name for name, _ in layer.named_parameters()] == names
    assert len(list(layer.named_modules())) == 1 and repr(layer) == printed
    layer.load_state_dict(Linear(2, 2).state_dict())


def test_copies_have_the_hooks_but_not_the_handles() -> None:
    layer, calls = Linear(2, 2), []
    handle = layer.register_forward_hook(lambda module, args, output: calls.append(module))
    twin = copy.deepcopy(layer)
    twin.register_forward_hook(lambda module, args, output: calls.append(module))
    x = np.ones((1, 2), np.float32)
    layer(x)
    assert calls == [layer]
    handle.remove()
    layer(x)
    assert calls == [layer]
    twin(x)
    assert calls == [layer, twin, twin]


def test_a_module_s_hook_is_a_function() -> None:
    with pytest.raises(ArgumentError, match="function"):
        Linear(1, 1).register_forward_hook(3)  # type: ignore[arg-type]
