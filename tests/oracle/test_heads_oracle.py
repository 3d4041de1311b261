"""Every head of BERT equals transformers: logits, losses and gradients, padded and packed, on random configurations of several sizes.

Where padding takes part in what transformers computes, the expected value is made of its logits at real tokens: an answer's place is
looked for among them alone, and a token is predicted by the real one before it. `python -m pytest tests/oracle/test_heads_oracle.py -s`
prints the largest errors and the number of comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.cases import HEADS, TOKEN_HEADS
from oracle.agreement import agree, agree_on_gradients, summary
from oracle.twins import (
    GRADIENT,
    HIDDEN,
    LOSS,
    build,
    configurations,
    packed,
    ragged,
    their_gradients,
    torch,
    torched,
    transformers,
)
from support import gradients_of

pytestmark = pytest.mark.oracle

cross_entropy = torch.nn.functional.cross_entropy

TASKS = {kind: [""] for kind in HEADS} | {"BertForSequenceClassification": ["classes", "several classes", "number", "several numbers"]}
CASES = [(kind, task) for kind in HEADS for task in TASKS[kind]]


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nevery head against transformers {transformers.__version__}:\n{summary()}")


def others_of(kind: str, task: str, labels: int) -> dict[str, Any]:
    """Keys of the configuration that belong to a head."""
    if kind == "BertLMHeadModel":
        return {"is_decoder": True}
    if kind == "BertForQuestionAnswering":
        return {"num_labels": 2}
    problem = {"several classes": "multi_label_classification", "several numbers": "regression"}.get(task)
    return {"num_labels": 1 if task == "number" else labels, "problem_type": problem}


def feed_for(kind: str, task: str, generator: np.random.Generator, config: Any, batch: int, longest: int, holes: bool) -> dict[str, Any]:
    """Padded inputs and labels; for multiple choice the sequences are two choices of each example in turn (not yet in an axis)."""
    sequences = 2 * batch if kind == "BertForMultipleChoice" else batch
    feed: dict[str, Any] = ragged(generator, config, sequences, longest, holes)
    if kind == "BertForMultipleChoice":  # equal choices have no gradient but rounding
        feed["input_ids"][1::2, 0] = (feed["input_ids"][::2, 0] + 1) % config.vocab_size
    real, labels = feed["attention_mask"] == 1, config.num_labels
    ignored = (generator.random(real.shape) < 0.3) & (np.arange(longest) > 0)
    if kind in ("BertForMaskedLM", "BertLMHeadModel", "BertForPreTraining"):
        feed["labels"] = np.where(real & ~ignored, generator.integers(0, config.vocab_size, real.shape), -100)
    if kind == "BertForTokenClassification":
        feed["labels"] = np.where(real & ~ignored, generator.integers(0, labels, real.shape), -100)
    if kind == "BertForPreTraining":
        feed["next_sentence_label"] = generator.integers(0, 2, batch)
    if kind in ("BertForNextSentencePrediction", "BertForMultipleChoice"):
        feed["labels"] = generator.integers(0, 2, batch)
    if kind == "BertForSequenceClassification":
        shape = (batch, labels)
        feed["labels"] = {
            "classes": generator.integers(0, labels, batch),
            "several classes": generator.integers(0, 2, shape).astype(float),
            "number": generator.standard_normal(batch),
            "several numbers": generator.standard_normal(shape),
        }[task]
    if kind == "BertForQuestionAnswering":  # real places, before the first and beyond the last
        for name in ("start_positions", "end_positions"):
            places = [generator.choice(np.flatnonzero(row)) for row in real]
            places[1:] = [generator.choice([place, -1, longest, longest + 7]) for place in places[1:]]
            feed[name] = np.array(places)
    return feed


def in_packed_form(kind: str, feed: dict[str, Any]) -> dict[str, Any]:
    real = feed["attention_mask"] == 1
    others = {name: value for name, value in feed.items() if name not in ("input_ids", "attention_mask", "token_type_ids")}
    if kind in (*TOKEN_HEADS, "BertForPreTraining"):
        others["labels"] = others["labels"][real]
    if kind == "BertForMultipleChoice":
        others["num_choices"] = 2
    return {"input_ids": packed(feed), **others}


def in_choices(kind: str, feed: dict[str, Any]) -> dict[str, Any]:
    if kind != "BertForMultipleChoice":
        return feed
    return {name: value if name == "labels" else value.reshape(-1, 2, value.shape[1]) for name, value in feed.items()}


def their_results(kind: str, theirs: Any, feed: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Logits, and the loss that these inputs have without their padding."""
    inputs = torched(in_choices(kind, feed))
    output = theirs(**inputs)
    logits = {name: value for name, value in output.items() if name not in ("loss", "past_key_values")}
    if kind == "BertModel":
        real = inputs["attention_mask"][:, :, None]
        loss = (output.last_hidden_state * real * torch.arange(theirs.config.hidden_size).double().cos()).sum()
        return logits, loss + (output.pooler_output * torch.arange(theirs.config.hidden_size).double().sin()).sum()
    if kind == "BertForQuestionAnswering":
        longest, hidden = inputs["input_ids"].shape[1], inputs["attention_mask"] == 0
        losses = []
        for end in ("start", "end"):
            scores = logits[f"{end}_logits"].masked_fill(hidden, torch.finfo(torch.float64).min)
            losses.append(cross_entropy(scores, inputs[f"{end}_positions"].clamp(0, longest), ignore_index=longest))
        if not hidden.any():  # then it is their loss, too
            agree("loss, as returned", sum(losses).detach().numpy() / 2, output.loss.detach().numpy(), LOSS)
        return logits, sum(losses) / 2
    if kind == "BertLMHeadModel":  # theirs is computed in float32, whatever the model's dtype
        following = torch.nn.functional.pad(inputs["labels"], (0, 1), value=-100)[:, 1:]
        loss = cross_entropy(logits["logits"].reshape(-1, theirs.config.vocab_size), following.reshape(-1))
        if loss.isfinite():
            agree("loss of a language model, theirs in float32", loss.detach().numpy(), output.loss.detach().numpy(), 1e-5, loss.item())
        return logits, loss
    return logits, output.loss


def by_token(kind: str, name: str) -> bool:
    """Whether an output has a place for every token."""
    return kind in TOKEN_HEADS or name in ("last_hidden_state", "prediction_logits", "start_logits", "end_logits")


def our_loss(kind: str, output: Any) -> Any:
    if kind != "BertModel":
        return output.loss
    h = output.last_hidden_state.shape[-1]
    return (output.last_hidden_state * np.cos(np.arange(h))).sum() + (output.pooler_output * np.sin(np.arange(h))).sum()


def unseen(kind: str, names: Iterable[str]) -> set[str]:
    """Parameters whose gradient is zero but for rounding: they are added to all scores that one softmax compares."""
    if kind == "BertForQuestionAnswering":
        return {"qa_outputs.bias", [name for name in names if name.endswith("LayerNorm.bias")][-1]}
    return {"classifier.bias"} if kind == "BertForMultipleChoice" else set()


def check(kind: str, ours: Any, theirs: Any, feed: dict[str, Any]) -> None:
    """Logits, loss and every gradient, of padded and of packed input."""
    real = feed["attention_mask"] == 1
    logits, loss = their_results(kind, theirs, feed)
    theirs.zero_grad()
    loss.backward()
    expected = their_gradients(theirs)
    for form in (in_choices(kind, feed), in_packed_form(kind, feed)):
        output = ours(**form)
        is_packed = "attention_mask" not in form
        for name, value in logits.items():
            wanted = value.detach().numpy()
            if by_token(kind, name):
                wanted = wanted[real] if is_packed else wanted * real.reshape(real.shape + (1,) * (wanted.ndim - 2))
            if name != "pooler_output" or feed["attention_mask"][:, 0].all():
                agree(f"{kind} {name}", getattr(output, name).numpy(), wanted, HIDDEN)
        own = our_loss(kind, output)
        if np.isnan(loss.item()):
            assert np.isnan(own.numpy())
        else:
            scale = max(1.0, abs(loss.item()))
            agree(f"{kind} {'sum' if kind == 'BertModel' else 'loss'}", own.numpy(), loss.detach().numpy(), LOSS, scale)
        own.backward()
        agree_on_gradients(f"{kind} gradients", gradients_of(ours), expected, GRADIENT, unseen(kind, expected))


@pytest.mark.parametrize(("kind", "task"), CASES, ids=[f"{kind} {task}".strip() for kind, task in CASES])
def test_tiny(kind: str, task: str) -> None:
    @settings(max_examples=max(15, settings().max_examples // 4))
    @given(
        values=configurations(),
        seed=st.integers(0, 2**32 - 1),
        labels=st.integers(2, 5),
        holes=st.booleans(),
        tied=st.booleans(),
        batch=st.integers(1, 5),
        longest=st.integers(1, 9),
    )
    def run(values: dict[str, Any], seed: int, labels: int, holes: bool, tied: bool, batch: int, longest: int) -> None:
        others = others_of(kind, task, labels)
        ours, theirs = build(kind, values, seed, tie_word_embeddings=tied, **others)
        holes = holes and kind != "BertLMHeadModel"  # there theirs predicts the token behind a hole from the hole
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
"""The published "mini" with a smaller vocabulary."""

BASE = MINI | {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


@pytest.mark.parametrize(("kind", "task"), CASES, ids=[f"{kind} {task}".strip() for kind, task in CASES])
def test_mini(kind: str, task: str) -> None:
    ours, theirs = build(kind, MINI, 1, scale=0.04, **others_of(kind, task, 3))
    check(kind, ours, theirs, feed_for(kind, task, np.random.default_rng(2), ours.config, 4, 40, holes=False))


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForMultipleChoice"])
def test_base(kind: str) -> None:
    """Twelve layers of the published width: one head on tokens, one on sequences."""
    ours, theirs = build(kind, BASE, 1, scale=0.02)
    check(kind, ours, theirs, feed_for(kind, "", np.random.default_rng(2), ours.config, 2, 24, holes=False))


@pytest.mark.parametrize("size", ["tiny", "mini"])
@pytest.mark.parametrize(("kind", "task"), CASES, ids=[f"{kind} {task}".strip() for kind, task in CASES])
def test_float32(kind: str, task: str, size: str) -> None:
    """Ours in float32 against theirs in float64: rounding through two and four layers.

    PyTorch's own float32 lies up to 1.3e-6 (hidden), 2.6e-7 (logits) and 2.2e-6 (gradients) from its float64 at these sizes; of multiple
    choice 1.5e-5 (gradients), which are differences between choices that nearly cancel.
    """
    tiny = {"vocab_size": 60, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    ours, theirs = build(kind, MINI | (tiny if size == "tiny" else {}), 3, scale=0.02, **others_of(kind, task, 3))
    feed = feed_for(kind, task, np.random.default_rng(4), ours.config, 4, 30, holes=False)
    logits, loss = their_results(kind, theirs, feed)
    loss.backward()
    expected = their_gradients(theirs)
    output = ours.to("float32")(**in_packed_form(kind, feed))
    real = feed["attention_mask"] == 1
    for name, value in logits.items():
        wanted = value.detach().numpy()
        if by_token(kind, name):
            wanted = wanted[real]
        what, tolerance = ("hidden", 1e-5) if kind == "BertModel" else ("logits", 2e-6)
        agree(f"float32 {what}", getattr(output, name).numpy(), wanted, tolerance)
    own = our_loss(kind, output)
    if kind != "BertModel":
        agree("float32 loss", own.numpy(), loss.detach().numpy(), 1e-6, max(1.0, abs(loss.item())))
    own.backward()
    agree_on_gradients(
        "float32 gradients", gradients_of(ours), expected, 3e-5 if kind == "BertForMultipleChoice" else 1e-5, unseen(kind, expected)
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_hidden_states_and_attentions(causal: bool, holes: bool) -> None:
    generator = np.random.default_rng(0)
    ours, theirs = build("BertModel", MINI | {"hidden_size": 32, "num_hidden_layers": 3}, 5, is_decoder=causal)
    feed = ragged(generator, ours.config, 5, 11, holes)
    wanted = {"output_hidden_states": True, "output_attentions": True}
    found, expected = ours(**feed, **wanted), theirs(**torched(feed), **wanted)
    real = feed["attention_mask"]
    assert len(found.hidden_states) == len(expected.hidden_states) == 4
    for own, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        agree("hidden states", own.numpy(), other.detach().numpy() * real[:, :, None], HIDDEN)
    assert len(found.attentions) == len(expected.attentions) == 3
    for own, other in zip(found.attentions, expected.attentions, strict=True):
        agree("attentions", own.numpy(), other.detach().numpy() * real[:, None, :, None], HIDDEN)


def test_word_vectors_in_place_of_ids() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = build("BertForMaskedLM", MINI | {"hidden_size": 32}, 6)
    feed = ragged(generator, ours.config, 4, 9)
    vectors = generator.standard_normal((*feed.pop("input_ids").shape, 32))
    found = ours(**feed, inputs_embeds=vectors).logits.numpy()
    expected = theirs(**torched(feed), inputs_embeds=torch.from_numpy(vectors)).logits.detach().numpy()
    agree("logits from word vectors", found, expected * feed["attention_mask"][:, :, None], HIDDEN)
