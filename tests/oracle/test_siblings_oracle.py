"""RoBERTa, DistilBERT and ELECTRA equal transformers, head by head: logits, losses and gradients, padded and packed, and files both ways.

As for BERT, padding is taken out of what transformers computes: an answer's place is looked for among real tokens alone.
`python -m pytest tests/oracle/test_siblings_oracle.py -s` prints the largest errors and the number of comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.sibling_cases import CONFIGS, KINDS, TOKEN_HEADS, family_of
from oracle.agreement import agree, agree_on_gradients, summary
from oracle.twins import GRADIENT, HIDDEN, LOSS, configurations, packed, ragged, torch, torched, transformers
from support import gradients_of

from minigrad import models

pytestmark = pytest.mark.oracle

cross_entropy = torch.nn.functional.cross_entropy

SEQUENCE_TASKS = ("classes", "several classes", "number", "several numbers")
CASES = [(kind, task) for kind in KINDS for task in (SEQUENCE_TASKS if kind.endswith("ForSequenceClassification") else ("",))]
IN_DISTILBERT = models.DistilBertConfig.published_keys

every_kind = pytest.mark.parametrize("kind", KINDS)
every_case = pytest.mark.parametrize(("kind", "task"), CASES, ids=[f"{kind} {task}".strip() for kind, task in CASES])


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nthe siblings of BERT against transformers {transformers.__version__}:\n{summary()}")


# ---------------------------------------------------------------- the same model twice
def keys_of(family: str, values: dict[str, Any], pad: int = 1, narrower: int = 0) -> dict[str, Any]:
    """BERT's keys of config.json as a family has them. narrower: by how much ELECTRA's embeddings are; pad: RoBERTa's padding id."""
    if family == "DistilBert":
        own = {IN_DISTILBERT.get(key, key): value for key, value in values.items() if key not in ("type_vocab_size", "layer_norm_eps")}
        return own | {"qa_dropout": 0.0, "seq_classif_dropout": 0.0}
    if family == "Electra":
        return values | {"embedding_size": max(values["hidden_size"] - narrower, 3)}
    more = pad + 1
    return values | {
        "pad_token_id": pad,
        "vocab_size": values["vocab_size"] + more,
        "max_position_embeddings": values["max_position_embeddings"] + more,
    }


def build(
    kind: str, values: dict[str, Any], seed: int, scale: float = 0.25, published: str | None = None, **others: Any
) -> tuple[Any, Any]:
    """Ours and theirs, with the same random weights of deviation `scale`, both in float64. published: what theirs is called."""
    family = family_of(kind)
    theirs_called = published or family
    config = getattr(transformers, f"{theirs_called}Config")(**values, **others)
    config._attn_implementation = "eager"
    theirs = getattr(transformers, theirs_called + kind.removeprefix(family))(config).double().eval()
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            centre = 1.0 if name.lower().replace("_", "").endswith("layernorm.weight") else 0.0
            parameter.copy_(torch.from_numpy(centre + scale * generator.standard_normal(tuple(parameter.shape))))
    ours = getattr(models, kind)(CONFIGS[family].from_dict(config.to_dict() | {"num_labels": config.num_labels})).to("float64")
    ours.load_state_dict({name: parameter.detach().numpy() for name, parameter in used(theirs).items()})
    return ours.eval(), theirs


def used(model: Any) -> dict[str, Any]:
    """The parameters of transformers' model that its result depends on, under the names by which it saves them."""
    tied = model.config.tie_word_embeddings
    elsewhere = {"lm_head.decoder.weight", "lm_head.decoder.bias", "vocab_projector.weight"} if tied else {"lm_head.bias"}
    return {name: parameter for name, parameter in model.named_parameters(remove_duplicate=False) if name not in elsewhere}


def inputs_for(kind: str, generator: np.random.Generator, config: Any, batch: int, longest: int, holes: bool) -> dict[str, Any]:
    """Padded inputs. Under RoBERTa's mask stand padding ids where real tokens follow (see the test of masks that hide real tokens)."""
    feed = ragged(generator, config, batch, longest, holes)
    if family_of(kind) == "Roberta" and holes:
        feed["input_ids"] = np.where(feed["attention_mask"] == 1, feed["input_ids"], config.pad_token_id)
    return feed


def feed_for(kind: str, task: str, generator: np.random.Generator, config: Any, batch: int, longest: int, holes: bool) -> dict[str, Any]:
    feed = inputs_for(kind, generator, config, batch, longest, holes)
    real, labels = feed["attention_mask"] == 1, config.num_labels
    ignored = (generator.random(real.shape) < 0.3) & (np.arange(longest) > 0)
    if kind.endswith("ForMaskedLM"):
        feed["labels"] = np.where(real & ~ignored, generator.integers(0, config.vocab_size, real.shape), -100)
    elif kind.endswith("ForTokenClassification"):
        feed["labels"] = np.where(real & ~ignored, generator.integers(0, labels, real.shape), -100)
    elif kind.endswith("ForPreTraining"):
        feed["labels"] = generator.integers(0, 2, real.shape)
    elif kind.endswith("ForQuestionAnswering"):  # real places, before the first and beyond the last
        for name in ("start_positions", "end_positions"):
            places = [generator.choice(np.flatnonzero(row)) for row in real]
            places[1:] = [generator.choice([place, -1, longest, longest + 7]) for place in places[1:]]
            feed[name] = np.array(places)
    elif task:
        feed["labels"] = {
            "classes": generator.integers(0, labels, batch),
            "several classes": generator.integers(0, 2, (batch, labels)).astype(float),
            "number": generator.standard_normal(batch),
            "several numbers": generator.standard_normal((batch, labels)),
        }[task]
    return feed


def others_of(kind: str, task: str, labels: int) -> dict[str, Any]:
    """Keys of the configuration that belong to a head."""
    if kind.endswith("ForQuestionAnswering"):
        return {"num_labels": 2}
    problem = {"several classes": "multi_label_classification", "several numbers": "regression"}.get(task)
    return {"num_labels": 1 if task == "number" else labels, "problem_type": problem}


def forms_of(kind: str, feed: dict[str, Any]) -> list[dict[str, Any]]:
    """The feed as ours takes it: padded, and packed."""
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    labels = {name: value for name, value in feed.items() if name not in inputs}
    if kind in TOKEN_HEADS:
        labels["labels"] = labels["labels"][feed["attention_mask"] == 1]
    return [as_theirs(kind, feed), {"input_ids": packed(feed), **labels}]


def as_theirs(kind: str, feed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in feed.items() if name != "token_type_ids" or family_of(kind) != "DistilBert"}


def their_results(kind: str, theirs: Any, feed: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Results, and the loss that these inputs have without their padding."""
    inputs = torched(as_theirs(kind, feed))
    output = theirs(**inputs)
    found = {name: value for name, value in output.items() if name not in ("loss", "past_key_values")}
    if kind.endswith("Model"):
        weights = torch.arange(theirs.config.hidden_size).double().cos()
        loss = (output.last_hidden_state * inputs["attention_mask"][:, :, None] * weights).sum()
        return found, loss + (output.pooler_output * weights).sum() if "pooler_output" in found else loss
    if kind.endswith("ForPreTraining"):  # theirs is computed in float32, whatever the model's dtype
        real = inputs["attention_mask"] == 1
        loss = torch.nn.functional.binary_cross_entropy_with_logits(output.logits[real], inputs["labels"][real].double())
        agree(
            "loss of replaced tokens, theirs in float32", loss.detach().numpy(), output.loss.detach().numpy(), 1e-6, max(1.0, loss.item())
        )
        return found, loss
    if not kind.endswith("ForQuestionAnswering"):
        return found, output.loss
    longest, hidden = inputs["input_ids"].shape[1], inputs["attention_mask"] == 0
    losses = []
    for end in ("start", "end"):
        scores = found[f"{end}_logits"].masked_fill(hidden, torch.finfo(torch.float64).min)
        losses.append(cross_entropy(scores, inputs[f"{end}_positions"].clamp(0, longest), ignore_index=longest))
    if not hidden.any():  # then it is their loss, too
        agree("loss, as returned", sum(losses).detach().numpy() / 2, output.loss.detach().numpy(), LOSS)
    return found, sum(losses) / 2


def our_loss(kind: str, output: Any) -> Any:
    if not kind.endswith("Model"):
        return output.loss
    weights = np.cos(np.arange(output.last_hidden_state.shape[-1]))
    total = (output.last_hidden_state * weights).sum()
    return total if output.pooler_output is None else total + (output.pooler_output * weights).sum()


def unseen_by_softmax(kind: str, names: list[str]) -> set[str]:
    """Parameters whose gradient is zero but for rounding: what is added to every score that a softmax compares."""
    unseen = {name for name in names if name.endswith("k_lin.bias")}
    if kind.endswith("ForQuestionAnswering"):
        unseen |= {"qa_outputs.bias", [name for name in names if name.lower().replace("_", "").endswith("layernorm.bias")][-1]}
        if not any(".layer." in name for name in names):
            unseen.add("electra.embeddings_project.bias")
    return unseen


def check(kind: str, ours: Any, theirs: Any, feed: dict[str, Any]) -> None:
    """Results, loss and every gradient, of padded and of packed input."""
    real, family = feed["attention_mask"] == 1, family_of(kind)
    results, loss = their_results(kind, theirs, feed)
    theirs.zero_grad()
    loss.backward()
    expected = {n: np.zeros(tuple(p.shape)) if p.grad is None else p.grad.numpy() for n, p in used(theirs).items()}
    for form in forms_of(kind, feed):
        output = ours(**form)
        for name, value in results.items():
            wanted = value.detach().numpy()
            if name in ("last_hidden_state", "start_logits", "end_logits") or kind in TOKEN_HEADS:
                wanted = wanted * real.reshape(real.shape + (1,) * (wanted.ndim - 2)) if "attention_mask" in form else wanted[real]
            agree(f"{family} {'hidden' if kind.endswith('Model') else 'logits'}", getattr(output, name).numpy(), wanted, HIDDEN)
        own = our_loss(kind, output)
        if np.isnan(loss.item()):
            assert np.isnan(own.numpy())
        else:
            agree(f"{family} loss", own.numpy(), loss.detach().numpy(), LOSS, max(1.0, abs(loss.item())))
        own.backward()
        agree_on_gradients(f"{family} gradients", gradients_of(ours), expected, GRADIENT, unseen_by_softmax(kind, list(expected)))


# ---------------------------------------------------------------- results
@every_case
def test_tiny(kind: str, task: str) -> None:
    @settings(max_examples=max(8, settings().max_examples // 4))
    @given(
        values=configurations(),
        seed=st.integers(0, 2**32 - 1),
        labels=st.integers(2, 5),
        holes=st.booleans(),
        tied=st.booleans(),
        batch=st.integers(1, 5),
        longest=st.integers(1, 9),
        pad=st.integers(0, 3),
        narrower=st.sampled_from([0, 1, -2]),
    )
    def run(
        values: dict[str, Any], seed: int, labels: int, holes: bool, tied: bool, batch: int, longest: int, pad: int, narrower: int
    ) -> None:
        keys = keys_of(family_of(kind), values, pad, narrower)
        ours, theirs = build(kind, keys, seed, tie_word_embeddings=tied, **others_of(kind, task, labels))
        check(kind, ours, theirs, feed_for(kind, task, np.random.default_rng(seed), ours.config, batch, longest, holes))

    run()


MINI = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@every_case
def test_mini(kind: str, task: str) -> None:
    ours, theirs = build(kind, keys_of(family_of(kind), MINI, narrower=128), 1, scale=0.04, **others_of(kind, task, 3))
    check(kind, ours, theirs, feed_for(kind, task, np.random.default_rng(2), ours.config, 4, 40, holes=False))


SMALL = MINI | {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": 50}


def test_masks_that_hide_real_tokens_do_not_move_the_positions_of_roberta() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = build("RobertaModel", keys_of("Roberta", SMALL), 1)
    feed = ragged(generator, ours.config, 6, 12, holes=True)
    feed["input_ids"][feed["input_ids"] == 1] = 7
    feed["input_ids"][:, 4] = 1  # padding amid the text, hidden or not
    wanted = theirs(**torched(feed)).last_hidden_state.detach().numpy() * feed["attention_mask"][:, :, None]
    agree("Roberta hidden", ours(**feed).last_hidden_state.numpy(), wanted, HIDDEN)


def test_padding_on_the_left_of_roberta() -> None:
    """Positions begin at the first token that is no padding, padded and packed."""
    generator = np.random.default_rng(0)
    ours, theirs = build("RobertaModel", keys_of("Roberta", SMALL), 1)
    mask = (np.arange(9)[::-1] < np.array([9, 4, 1])[:, None]).astype(np.int64)
    ids = np.where(mask == 1, generator.integers(2, 50, mask.shape), 1)
    wanted = theirs(**torched({"input_ids": ids, "attention_mask": mask})).last_hidden_state.detach().numpy()
    agree("Roberta hidden", ours(ids, mask).last_hidden_state.numpy()[mask == 1], wanted[mask == 1], HIDDEN)
    rows = ours(models.bert.PackedTokens.of([row[own == 1] for row, own in zip(ids, mask, strict=True)])).last_hidden_state
    agree("Roberta hidden", rows.numpy(), wanted[mask == 1], HIDDEN)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("kind", ["RobertaModel", "DistilBertModel", "ElectraModel"])
def test_hidden_states_and_attentions(kind: str, holes: bool) -> None:
    ours, theirs = build(kind, keys_of(family_of(kind), SMALL, narrower=8), 5)
    feed = as_theirs(kind, inputs_for(kind, np.random.default_rng(0), ours.config, 5, 11, holes))
    wanted = {"output_hidden_states": True, "output_attentions": True}
    found, expected = ours(**feed, **wanted), theirs(**torched(feed), **wanted)
    real = feed["attention_mask"]
    assert len(found.hidden_states) == len(expected.hidden_states) == 4
    for own, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        agree("hidden states", own.numpy(), other.detach().numpy() * real[:, :, None], HIDDEN)
    assert len(found.attentions) == len(expected.attentions) == 3
    for own, other in zip(found.attentions, expected.attentions, strict=True):
        agree("attentions", own.numpy(), other.detach().numpy() * real[:, None, :, None], HIDDEN)


@pytest.mark.parametrize("kind", ["RobertaForMaskedLM", "DistilBertForMaskedLM", "ElectraForPreTraining"])
def test_word_vectors_in_place_of_ids(kind: str) -> None:
    generator = np.random.default_rng(0)
    ours, theirs = build(kind, keys_of(family_of(kind), SMALL, narrower=8), 6)
    feed = as_theirs(kind, inputs_for(kind, generator, ours.config, 4, 9, holes=False))
    width = 24 if family_of(kind) == "Electra" else 32
    vectors = generator.standard_normal((*feed.pop("input_ids").shape, width))
    found = ours(**feed, inputs_embeds=vectors).logits.numpy()
    expected = theirs(**torched(feed), inputs_embeds=torch.from_numpy(vectors)).logits.detach().numpy()
    real = feed["attention_mask"]
    agree("logits from word vectors", found, expected * real.reshape(real.shape + (1,) * (expected.ndim - 2)), HIDDEN)


# ---------------------------------------------------------------- files
def result(model: Any) -> np.ndarray[Any, Any]:
    """The first result of one batch, from either library, as float32."""
    ids = np.array([[0, 7, 11, 8, 2, 8], [0, 13, 4, 2, 1, 1]])
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    if not isinstance(model, torch.nn.Module):
        output = model(ids, mask)
        names = ("last_hidden_state", "start_logits", "logits")
        found = next(np.array(getattr(output, name).numpy()) for name in names if hasattr(output, name))
    else:
        with torch.no_grad():
            found = model(torch.from_numpy(ids), torch.from_numpy(mask))[0].float().numpy()
    return found * mask.reshape(mask.shape + (1,) * (found.ndim - 2)) if found.shape[:2] == mask.shape else found


FILES = [
    *[(kind, None, True) for kind in KINDS],
    *[(kind, None, False) for kind in KINDS if kind.endswith("ForMaskedLM")],
    ("RobertaForMaskedLM", "XLMRoberta", True),
    ("RobertaForSequenceClassification", "Camembert", True),
]


@pytest.mark.parametrize(("kind", "published", "tied"), FILES)
def test_files_cross_both_ways(tmp_path: Path, kind: str, published: str | None, tied: bool) -> None:
    family = family_of(kind)
    labels = 2 if kind.endswith("ForQuestionAnswering") else 3
    keys = keys_of(family, SMALL, narrower=8)
    ours, theirs = build(kind, keys, 3, published=published, tie_word_embeddings=tied, num_labels=labels)
    ours.to("float32").save_pretrained(tmp_path / "ours")
    theirs.float().save_pretrained(tmp_path / "theirs")
    said = json.loads((tmp_path / "theirs" / "config.json").read_text(encoding="utf-8"))
    written = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == said["architectures"]
    assert {key: written[key] for key in keys} == keys
    assert written["model_type"] == said["model_type"]
    cls = type(theirs)
    read, notes = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    untied_bias = {"lm_head.bias"} if not tied and family == "Roberta" else set()  # which their result does not depend on
    assert set(notes["missing_keys"]) <= untied_bias
    assert not notes["unexpected_keys"]
    assert not notes["mismatched_keys"]
    assert type(transformers.AutoConfig.from_pretrained(tmp_path / "ours")) is type(theirs.config)
    again = getattr(models, kind).from_pretrained(tmp_path / "theirs")
    assert not again.load_report.newly_initialised
    assert set(again.load_report.ignored) <= untied_bias
    for other in (read.eval(), again):
        assert np.abs(result(other) - result(theirs)).max() < 1e-5  # float32 rounding
    for name, parameter in used(theirs).items():
        np.testing.assert_array_equal(again.state_dict()[name], parameter.detach().numpy(), err_msg=name)
        np.testing.assert_array_equal(used(read)[name].detach().numpy(), parameter.detach().numpy(), err_msg=name)


@every_kind
def test_state_dict_has_the_names_of_transformers(kind: str) -> None:
    ours, theirs = build(kind, keys_of(family_of(kind), SMALL, narrower=8), 3)
    assert ours.state_dict().keys() == used(theirs).keys()
