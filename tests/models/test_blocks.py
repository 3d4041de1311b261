"""Layers that compute a block in one operation, and do not where somebody has hooked, replaced or redefined a part of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F
from minigrad.backend.precision import PRECISIONS
from minigrad.models import BertConfig, BertModel, DistilBertConfig, DistilBertModel
from minigrad.models.blocks import DenseAddNorm, Intermediate, SelfAttention
from minigrad.models.distilbert import DistilBertAttention
from minigrad.packing import PackedTokens

IDS = np.array([[2, 5, 9, 11, 3], [2, 4, 3, 0, 0]])
SIZES = {
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "max_position_embeddings": 8,
}

PARTS = {
    "self": (BertModel, lambda model: model.encoder.layer[0].attention.self, SelfAttention),
    "output of attention": (BertModel, lambda model: model.encoder.layer[0].attention.output, DenseAddNorm),
    "intermediate": (BertModel, lambda model: model.encoder.layer[0].intermediate, Intermediate),
    "output": (BertModel, lambda model: model.encoder.layer[0].output, DenseAddNorm),
    "DistilBERT's attention": (DistilBertModel, lambda model: model.transformer.layer[0].attention, DistilBertAttention),
}

each = pytest.mark.parametrize("part", PARTS)


@pytest.fixture(autouse=True)
def whole_blocks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if the CPU had versions of its own for whole blocks, which decline. The blocks that were asked of them."""
    asked: list[str] = []
    for block in (F.attention_block, F.feed_forward):

        def decline(xp: Any, *arrays: Any, _name: str = block.name, **constants: Any) -> Any:
            asked.append(_name)
            return NotImplemented

        monkeypatch.setitem(block.overrides, "numpy", decline)
        monkeypatch.setitem(block._asks_keep, decline, False)
    return asked


def built(kind: Any) -> Any:
    mg.manual_seed(0)
    return kind((BertConfig if kind is BertModel else DistilBertConfig)(**SIZES))


def evaluated(model: Any, first_only: bool = False) -> list[np.ndarray]:
    """The rows, or the first of each sequence, with dropout, and the gradient of every parameter."""
    mg.manual_seed(1)
    rows = model.encode(IDS, IDS > 0, first_only=True).first if first_only else model(IDS, attention_mask=IDS > 0).last_hidden_state
    (rows * rows).sum().backward()
    found = [rows.numpy(), *[p.grad.numpy() for p in model.parameters() if p.grad is not None]]
    model.zero_grad()
    return found


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@each
def test_a_hook_sees_a_part_that_is_otherwise_not_called(part: str) -> None:
    kind, found, _ = PARTS[part]
    model = built(kind)
    expected, seen = evaluated(model), []
    with found(model).register_forward_hook(lambda module, args, output: seen.append(output.shape)):
        assert same(evaluated(model), expected)
    with found(model).register_forward_pre_hook(lambda module, args: seen.append(args[0].shape)):
        assert same(evaluated(model), expected)
    assert len(seen) == 2
    assert same(evaluated(model), expected) and len(seen) == 2


@each
def test_a_part_that_does_something_else_is_called(part: str) -> None:
    kind, found, made = PARTS[part]
    model = built(kind)
    expected = evaluated(model)

    class Doubled(made):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any) -> Any:
            return super().forward(*args) * 2.0

    def subclassed(module: Any) -> None:
        module.__class__ = Doubled

    def redefined(module: Any) -> None:
        module.forward = lambda *args: made.forward(module, *args) * 2.0

    results = []
    for change in (subclassed, redefined):
        model = built(kind)
        change(found(model))
        results.append(evaluated(model))
    assert same(*results) and not same(results[0], expected)


def operations(y: mg.Tensor) -> list[str]:
    """The names of the operations behind a tensor, the last one first, along their first input."""
    names, node = [], y.node
    while node is not None and node.parents:
        names.append(node.name)
        node = next(parent for parent in node.parents if parent is not None)
    return names


def test_the_poolers_layer_is_called_where_somebody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(F.dense_tanh.overrides, "numpy", F.dense_tanh.body)
    monkeypatch.setitem(F.dense_tanh._asks_keep, F.dense_tanh.body, False)
    model, packed = built(BertModel).eval(), PackedTokens.of([[2, 5, 3], [2, 3]])
    expected, dense, seen = model.pooled(packed), model.pooler.dense, []
    assert operations(expected)[0] == "dense_tanh"
    with dense.register_forward_hook(lambda module, args, output: seen.append(output.shape)):
        pooled = model.pooled(packed)
    assert same([pooled.numpy()], [expected.numpy()]) and seen == [(2, 8)] and operations(pooled)[:2] == ["tanh", "linear"]
    dense.bias = None
    assert operations(model.pooled(packed))[:2] == ["tanh", "linear"]


@pytest.mark.parametrize("kind", [BertModel, DistilBertModel])
def test_a_layer_is_two_operations(kind: Any) -> None:
    model = built(kind)
    names = ["feed_forward", "attention_block"]
    assert operations(model.encode(IDS, IDS > 0).rows)[:4] == names * 2
    assert operations(model.encode(IDS, IDS > 0, first_only=True).first)[:4] == names * 2
    other = kind((BertConfig if kind is BertModel else DistilBertConfig)(**SIZES, hidden_act="relu"))
    assert operations(other.encode(IDS, IDS > 0).rows)[0] == "dense_add_norm"


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("kind", [BertModel, DistilBertModel])
def test_where_blocks_have_no_version_of_their_own_parts_are_called_to_the_same_effect(
    kind: Any, first_only: bool, whole_blocks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(kind)
    expected = evaluated(model, first_only)
    assert whole_blocks == ["attention_block", "feed_forward"] * 2
    for block in (F.attention_block, F.feed_forward):
        monkeypatch.delitem(block.overrides, "numpy")
    assert same(evaluated(model, first_only), expected)
    assert set(operations(model.encode(IDS, IDS > 0).rows)) >= {"dense_add_norm", "dense_gelu"} and len(whole_blocks) == 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_blocks_are_one_operation_in_every_precision(precision: str, whole_blocks: list[str]) -> None:
    with mg.precision(precision):
        built(BertModel)(IDS, attention_mask=IDS > 0)
    assert whole_blocks == ["attention_block", "feed_forward"] * 2


def test_a_decoder_sees_nothing_ahead() -> None:
    model = BertModel(BertConfig(**SIZES, is_decoder=True)).eval()
    rows, changed = model(IDS[:1]).last_hidden_state.numpy(), IDS[:1].copy()
    changed[0, -1] = 7
    after = model(changed).last_hidden_state.numpy()
    np.testing.assert_array_equal(rows[:, :-1], after[:, :-1])
    assert not np.array_equal(rows[:, -1], after[:, -1])
    assert F.attention_block.name in operations(model.encode(IDS[:1]).rows)
