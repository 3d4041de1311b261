"""The start of the encoders as one operation, and as its parts where somebody has hooked, replaced or redefined one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import functional as F
from minigrad.backend.gradients import RowSparse
from minigrad.errors import IndexRangeError, ShapeError
from minigrad.models import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)
from minigrad.nn import Identity
from minigrad.op import REGISTRY

IDS = np.array([[2, 5, 9, 11, 3], [2, 4, 0, 3, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
"""One [PAD] is read as a word."""

FAMILIES: dict[Any, tuple[Any, dict[str, Any]]] = {
    BertModel: (BertConfig, {}),
    DistilBertModel: (DistilBertConfig, {}),
    ElectraModel: (ElectraConfig, {"embedding_size": 6}),
    RobertaModel: (RobertaConfig, {"pad_token_id": 0}),
}

SIZES = {
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "max_position_embeddings": 8,
}

each = pytest.mark.parametrize("kind", FAMILIES)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As if the CPU had a version of its own, which does what the body does. How many tables it was asked for, each time."""
    found: list[int] = []

    def version(xp: Any, *arrays: Any, keep: bool, **constants: Any) -> Any:
        found.append(len(constants["untrained"]))
        return REGISTRY["embed_norm"].body(xp, *arrays, **constants, keep=keep)

    monkeypatch.setitem(F.embed_norm.overrides, "numpy", version)
    monkeypatch.setitem(F.embed_norm._asks_keep, version, True)
    return found


def built(kind: Any) -> Any:
    mg.manual_seed(0)
    config, more = FAMILIES[kind]
    return kind(config(**SIZES | more))


def evaluated(model: Any) -> dict[str, np.ndarray]:
    """The rows, with dropout, and the gradient of every parameter."""
    mg.manual_seed(1)
    rows = model(IDS, attention_mask=MASK).last_hidden_state
    (rows * rows).sum().backward()
    found = {"rows": rows.numpy(), **{name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}}
    model.zero_grad()
    return found


def check_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert list(ours) == list(theirs)
    for name, mine in ours.items():
        np.testing.assert_array_equal(mine, theirs[name], err_msg=name)


@each
def test_in_one_operation_it_is_its_parts_to_the_last_bit(kind: Any, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluated(built(kind))
    assert asked == [2 if kind is DistilBertModel else 3]
    monkeypatch.delitem(F.embed_norm.overrides, "numpy")
    check_same(whole, evaluated(built(kind)))
    assert len(asked) == 1
    words = next(name for name in whole if "word_embeddings" in name)
    assert not whole[words][0].any() and whole[words][2].any()  # [PAD] is not trained


@each
def test_a_part_that_is_hooked_or_changed_is_called(kind: Any, asked: list[int]) -> None:
    for name in ("word_embeddings", "position_embeddings", "LayerNorm", "dropout"):
        model = built(kind)
        expected, seen = evaluated(model), []
        asked.clear()
        part = getattr(model.embeddings, name)
        with part.register_forward_hook(lambda module, args, output: seen.append(output.shape)):  # noqa: B023 - called before the next turn
            check_same(evaluated(model), expected)
        assert len(seen) == 1 and not asked, name
        part.forward = lambda *args: type(part).forward(part, *args) * 2.0  # noqa: B023
        assert not np.array_equal(evaluated(model)["rows"], expected["rows"]) and not asked, name


def test_a_norm_that_is_taken_out_is_none(asked: list[int]) -> None:
    model = built(BertModel)
    model.embeddings.LayerNorm = Identity()
    evaluated(model)
    assert not asked


@each
def test_given_vectors_take_the_place_of_the_words(kind: Any, asked: list[int]) -> None:
    model, ids = built(kind).eval(), np.array([[2, 5], [4, 3]])
    words = mg.Tensor(model.embeddings.word_embeddings.weight.numpy()[ids])
    given = model(inputs_embeds=words).last_hidden_state.numpy()
    assert not asked
    np.testing.assert_array_equal(given, model(ids).last_hidden_state.numpy())
    assert len(asked) == 1
    with pytest.raises(ShapeError, match="inputs_embeds holds rows of shape"):
        model(inputs_embeds=mg.zeros((2, 5, 3)))


@pytest.mark.parametrize("in_one", [False, True])
def test_ids_are_refused_before_any_table_is_read(in_one: bool, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_one:
        monkeypatch.delitem(F.embed_norm.overrides, "numpy")
    model = built(BertModel)
    with pytest.raises(
        IndexRangeError, match=r"input_ids holds 12, this model knows 0\.\.11: was it encoded with this model's tokenizer\?"
    ):
        model(np.array([[2, 12]]))
    with pytest.raises(IndexRangeError, match=r"token_type_ids holds -1, this model knows 0\.\.1"):
        model(np.array([[2, 3]]), token_type_ids=np.array([[0, -1]]))
    with pytest.raises(ShapeError, match="sequence 1 reaches position 8, this model has 8: truncate it") as caught:
        model(np.ones((2, 9), np.int64), attention_mask=np.arange(9) < np.array([[2], [9]]))
    assert caught.value.code == "too-long" and not asked


def test_gradients_of_words_stay_by_rows_and_a_forward_pass_settles_read_rows_only() -> None:
    """What an optimizer does by touched rows, which saves most of the work on a CPU."""
    model = built(BertModel)
    words = model.embeddings.word_embeddings.weight

    class Ledger:
        rows: Any = None

        def settle(self) -> None:
            raise AssertionError("the whole table is settled")

        def settle_rows(self, ids: Any) -> None:
            self.rows = np.array(ids)

    words.ledger = Ledger()
    rows = model(IDS, attention_mask=MASK).last_hidden_state
    (rows * rows).sum().backward()
    assert words.ledger.rows.tolist() == [2, 5, 9, 11, 3, 2, 4, 0, 3]
    assert isinstance(words.leaf.grad, RowSparse)
