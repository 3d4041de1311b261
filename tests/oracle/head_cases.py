"""Every head of every family: what it is called with, what transformers computes for it, and that ours computes the same.

Where padding takes part in what transformers computes, the expected value is made of its logits at real tokens: an answer's place is
looked for among them alone, and a token is predicted by the real one right before it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from models import cases, sibling_cases
from oracle.agreement import agree, agree_on_gradients
from oracle.twins import GRADIENT, HIDDEN, LOSS, family_of, is_norm, packed, ragged, results_of, their_gradients, torch, torched
from support import gradients_of

HIDDEN_32, LOGITS_32, LOSS_32, GRADIENT_32 = 1e-5, 2e-6, 1e-6, 1e-5
"""Of float32 against float64: PyTorch's own lies up to 1.3e-6 (hidden), 2.6e-7 (logits) and 2.2e-6 (gradients) off in 2 to 4 layers."""

SLACK = 4
"""How far two roundings of the same sum may lie apart, as a multiple of the one that is known: sums in another order."""

cross_entropy = torch.nn.functional.cross_entropy

KINDS = (*cases.HEADS, *sibling_cases.KINDS)
TOKEN_HEADS = (*cases.TOKEN_HEADS, *sibling_cases.TOKEN_HEADS)
SEQUENCE_TASKS = ("classes", "several classes", "number", "several numbers")
CASES = [(kind, task) for kind in KINDS for task in (SEQUENCE_TASKS if kind.endswith("ForSequenceClassification") else ("",))]
IDS = [f"{kind} {task}".strip() for kind, task in CASES]

CAUSAL = tuple(kind for kind in KINDS if kind.endswith(("LMHeadModel", "ForCausalLM")))
LANGUAGE_MODELS = ("BertForPreTraining", *CAUSAL, *(kind for kind in KINDS if kind.endswith("ForMaskedLM")))
ENCODERS = tuple(kind for kind in KINDS if kind.removeprefix(family_of(kind)) == "Model")
CHOICES = tuple(kind for kind in KINDS if kind.endswith("ForMultipleChoice"))


def others_of(kind: str, task: str, labels: int) -> dict[str, Any]:
    """Keys of the configuration that belong to a head."""
    if kind in CAUSAL:
        return {"is_decoder": True}
    if kind.endswith("ForQuestionAnswering"):
        return {"num_labels": 2}
    problem = {"several classes": "multi_label_classification", "several numbers": "regression"}.get(task)
    return {"num_labels": 1 if task == "number" else labels, "problem_type": problem}


def inputs_for(kind: str, generator: np.random.Generator, config: Any, batch: int, longest: int, holes: bool = False) -> dict[str, Any]:
    """Padded inputs. For multiple choice the sequences are two choices of each example in turn (not yet in an axis). Under RoBERTa's mask
    stand padding ids where real tokens follow (see the test of masks that hide real tokens)."""
    feed: dict[str, Any] = ragged(generator, config, 2 * batch if kind in CHOICES else batch, longest, holes)
    if family_of(kind) == "Roberta" and holes:
        feed["input_ids"] = np.where(feed["attention_mask"] == 1, feed["input_ids"], config.pad_token_id)
    if kind in CHOICES:  # equal choices have no gradient but rounding
        feed["input_ids"][1::2, 0] = (feed["input_ids"][::2, 0] + 1) % config.vocab_size
    return feed


def with_labels(kind: str, task: str, generator: np.random.Generator, config: Any, feed: dict[str, Any]) -> dict[str, Any]:
    """Inputs and random labels for them, some ignored."""
    real, labels = feed["attention_mask"] == 1, config.num_labels
    batch, longest = len(real) // (2 if kind in CHOICES else 1), real.shape[1]
    ignored = (generator.random(real.shape) < 0.3) & (np.arange(longest) > 0)
    own: dict[str, Any] = {}
    if kind in LANGUAGE_MODELS:
        own["labels"] = np.where(real & ~ignored, generator.integers(0, config.vocab_size, real.shape), -100)
    elif kind.endswith("ForTokenClassification"):
        own["labels"] = np.where(real & ~ignored, generator.integers(0, labels, real.shape), -100)
    elif kind == "ElectraForPreTraining":
        own["labels"] = generator.integers(0, 2, real.shape)
    elif kind in ("BertForNextSentencePrediction", *CHOICES):
        own["labels"] = generator.integers(0, 2, batch)
    elif kind.endswith("ForQuestionAnswering"):  # real places, before the first and beyond the last
        for name in ("start_positions", "end_positions"):
            places = [generator.choice(np.flatnonzero(row)) for row in real]
            places[1:] = [generator.choice([place, -1, longest, longest + 7]) for place in places[1:]]
            own[name] = np.array(places)
    elif task:
        own["labels"] = {
            "classes": generator.integers(0, labels, batch),
            "several classes": generator.integers(0, 2, (batch, labels)).astype(float),
            "number": generator.standard_normal(batch, np.float32).astype(float),  # which float32 can hold as well
            "several numbers": generator.standard_normal((batch, labels), np.float32).astype(float),
        }[task]
    if kind == "BertForPreTraining":
        own["next_sentence_label"] = generator.integers(0, 2, batch)
    return feed | own


def feed_for(
    kind: str, task: str, generator: np.random.Generator, config: Any, batch: int, longest: int, holes: bool = False
) -> dict[str, Any]:
    return with_labels(kind, task, generator, config, inputs_for(kind, generator, config, batch, longest, holes))


def as_called(kind: str, feed: dict[str, Any]) -> dict[str, Any]:
    """Padded arrays as a head takes them: choices in an axis of their own, no types for DistilBERT."""
    if kind in CHOICES:
        return {name: value if name == "labels" else value.reshape(-1, 2, value.shape[1]) for name, value in feed.items()}
    return {name: value for name, value in feed.items() if name != "token_type_ids" or family_of(kind) != "DistilBert"}


def in_packed_form(kind: str, feed: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in feed.items() if name not in ("input_ids", "attention_mask", "token_type_ids")}
    if "labels" in own and (kind in TOKEN_HEADS or kind == "BertForPreTraining"):
        own["labels"] = own["labels"][feed["attention_mask"] == 1]
    if kind in CHOICES:
        own["num_choices"] = 2
    return {"input_ids": packed(feed), **own}


def their_results(kind: str, theirs: Any, feed: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Results, and the loss that these inputs have without their padding (of an encoder, which has none, a sum with fixed weights)."""
    inputs = torched(as_called(kind, feed))
    output = theirs(**inputs)
    found = {name: value for name, value in results_of(output).items() if name != "loss"}
    if kind in ENCODERS:
        angles = torch.arange(theirs.config.hidden_size, dtype=theirs.dtype)
        loss = (output.last_hidden_state * inputs["attention_mask"][:, :, None] * angles.cos()).sum()
        return found, loss + (output.pooler_output * angles.sin()).sum() if "pooler_output" in found else loss
    if kind == "ElectraForPreTraining":  # theirs is computed in float32, whatever the model's dtype
        real = inputs["attention_mask"] == 1
        loss = torch.nn.functional.binary_cross_entropy_with_logits(output.logits[real], inputs["labels"][real].to(theirs.dtype))
        same_in_float32("replaced tokens", loss, output.loss, 1e-6)
        return found, loss
    if kind in CAUSAL:  # as above
        following = torch.nn.functional.pad(inputs["labels"], (0, 1), value=-100)[:, 1:]
        loss = cross_entropy(found["logits"].reshape(-1, theirs.config.vocab_size), following.reshape(-1))
        same_in_float32("a language model", loss, output.loss, 1e-5)
        return found, loss
    if not kind.endswith("ForQuestionAnswering"):
        return found, output.loss
    longest, hidden = inputs["input_ids"].shape[1], inputs["attention_mask"] == 0
    losses = []
    for end in ("start", "end"):
        scores = found[f"{end}_logits"].masked_fill(hidden, torch.finfo(theirs.dtype).min)
        losses.append(cross_entropy(scores, inputs[f"{end}_positions"].clamp(0, longest), ignore_index=longest))
    if not hidden.any() and theirs.dtype == torch.float64:  # then it is their loss, too
        agree("loss, as returned", sum(losses).detach().numpy() / 2, output.loss.detach().numpy(), LOSS)
    return found, sum(losses) / 2


def same_in_float32(what: str, loss: Any, theirs: Any, tolerance: float) -> None:
    """Our expectation against what transformers returned, which it computed in float32: rounding of a mean of positive numbers."""
    if loss.isfinite():
        agree(f"loss of {what}, theirs in float32", loss.detach().numpy(), theirs.detach().numpy(), tolerance, max(1.0, loss.item()))


def expected_outputs(kind: str, results: dict[str, Any], feed: dict[str, Any], is_packed: bool) -> dict[str, np.ndarray]:
    """What transformers computed, in the form that ours gives: rows of real tokens, or zeros for padding."""
    real, wanted = feed["attention_mask"] == 1, {}
    for name, value in results.items():
        array = value.detach().numpy()
        if kind in TOKEN_HEADS or name in ("last_hidden_state", "prediction_logits", "start_logits", "end_logits"):
            array = array[real] if is_packed else array * real.reshape(real.shape + (1,) * (array.ndim - 2))
        wanted[name] = array
    return wanted


def our_loss(kind: str, output: Any) -> Any:
    if kind not in ENCODERS:
        return output.loss
    angles = np.arange(output.last_hidden_state.shape[-1])
    total = (output.last_hidden_state * np.cos(angles)).sum()
    return total if getattr(output, "pooler_output", None) is None else total + (output.pooler_output * np.sin(angles)).sum()


def unseen_by_softmax(kind: str, names: Iterable[str]) -> set[str]:
    """Parameters whose gradient is zero but for rounding: what is added to every score that one softmax compares."""
    names = list(names)
    unseen = {name for name in names if name.endswith(("key.bias", "k_lin.bias"))}
    if kind.endswith("ForQuestionAnswering"):
        unseen |= {"qa_outputs.bias", [name for name in names if is_norm(name, "bias")][-1]}
        if not any(".layer." in name for name in names):
            unseen.add("electra.embeddings_project.bias")
    return unseen | {"classifier.bias"} if kind in CHOICES else unseen


def check(kind: str, ours: Any, theirs: Any, feed: dict[str, Any]) -> None:
    """Results, loss and every gradient in float64, of padded and of packed input."""
    results, loss = their_results(kind, theirs, feed)
    theirs.zero_grad()
    loss.backward()
    expected = their_gradients(theirs)
    for form in (as_called(kind, feed), in_packed_form(kind, feed)):
        output = ours(**form)
        for name, wanted in expected_outputs(kind, results, feed, "attention_mask" not in form).items():
            agree(f"{kind} {name}", getattr(output, name).numpy(), wanted, HIDDEN)
        own = our_loss(kind, output)
        if np.isnan(loss.item()):
            assert np.isnan(own.numpy())
        else:
            scale = max(1.0, abs(loss.item()))
            agree(f"{kind} {'sum' if kind in ENCODERS else 'loss'}", own.numpy(), loss.detach().numpy(), LOSS, scale)
        own.backward()
        agree_on_gradients(f"{kind} gradients", gradients_of(ours), expected, GRADIENT, unseen_by_softmax(kind, expected))


def check_float32(kind: str, ours: Any, theirs: Any, feed: dict[str, Any], may_cancel: bool = True) -> None:
    """Ours in float32 (packed) against theirs in float64. `ours` becomes float32.

    The bounds are meant for numbers below 1 that are no small difference of large ones. Logits above 1 are measured by the largest of
    them. Gradients of nearly equal sequences cancel (the more so between choices): there the bound is PyTorch's own error times SLACK,
    unless the caller knows that nothing cancels.
    """
    results, loss = their_results(kind, theirs, feed)
    theirs.zero_grad()
    loss.backward()
    wanted, gradients = expected_outputs(kind, results, feed, is_packed=True), their_gradients(theirs)
    unseen = unseen_by_softmax(kind, gradients)
    feed = {name: value.astype(np.float32) if value.dtype == np.float64 else value for name, value in feed.items()}
    what, bound = ("hidden", HIDDEN_32) if kind in ENCODERS else ("logits", LOGITS_32)

    single = copy.deepcopy(theirs).float()
    single.zero_grad()
    found, total = their_results(kind, single, feed)
    total.backward()
    for name, array in expected_outputs(kind, found, feed, is_packed=True).items():
        agree(f"PyTorch's float32 {what}", array, wanted[name], math.inf, 1.0 if kind in ENCODERS else magnitude(wanted[name]))
    noise = agree_on_gradients("PyTorch's float32 gradients", their_gradients(single), gradients, math.inf, unseen)

    output = ours.to("float32")(**in_packed_form(kind, feed))
    for name, array in wanted.items():
        agree(f"float32 {what}", getattr(output, name).numpy(), array, bound, 1.0 if kind in ENCODERS else magnitude(array))
    own = our_loss(kind, output)
    if kind not in ENCODERS:  # the sum that stands for an encoder's loss has no scale of its own
        agree("float32 loss", own.numpy(), loss.detach().numpy(), LOSS_32, magnitude(loss.detach().numpy()))
    own.backward()
    cancels = may_cancel and noise > GRADIENT_32 / SLACK
    kind_of = "float32 gradients that cancel" if cancels else "float32 gradients"
    agree_on_gradients(kind_of, gradients_of(ours), gradients, SLACK * noise if cancels else GRADIENT_32, unseen)


def magnitude(array: np.ndarray) -> float:
    """What an error is measured by: the largest number, if that is above 1."""
    return max(1.0, float(np.abs(array).max(initial=0.0)))
