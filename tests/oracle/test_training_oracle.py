"""Fifty steps of training of every head of BERT, and of one head of each other family, are those of PyTorch and transformers.

AdamW with warm-up, decay of the rate, clipping, and no weight decay on biases and LayerNorm; dropout 0, float64 on both sides.
`python -m pytest tests/oracle/test_training_oracle.py -s` prints the largest errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from oracle.agreement import agree, summary
from oracle.head_cases import (
    CAUSAL,
    CHOICES,
    ENCODERS,
    KINDS,
    LANGUAGE_MODELS,
    as_called,
    in_packed_form,
    inputs_for,
    others_of,
    their_results,
    unseen_by_softmax,
)
from oracle.twins import MINI, build, family_of, is_norm, keys_of, torch, transformers, used

from minigrad.optim import AdamW, LinearSchedule, clip_grad_norm, decay_groups

pytestmark = pytest.mark.oracle

STEPS, WARMUP = 50, 5
TINY = MINI | {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "max_position_embeddings": 16}
SIBLINGS = ("RobertaForSequenceClassification", "DistilBertForQuestionAnswering", "ElectraForPreTraining")
CASES = [(kind, "gelu") for kind in (*(kind for kind in KINDS if kind.startswith("Bert")), *SIBLINGS)]
CASES.append(("BertForSequenceClassification", "gelu_new"))

CURVE = 1e-7
"""Differences of one rounding grow from step to step; fifty steps leave them below this."""


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nfifty steps against PyTorch {torch.__version__} and transformers {transformers.__version__}:\n{summary()}")


def learnable(kind: str, feed: dict[str, Any]) -> dict[str, Any]:
    """Labels that follow from the ids; of tokens, a third is ignored. A masked token is one that the model has to tell from its place."""
    ids, real = feed["input_ids"], feed["attention_mask"] == 1
    places = np.arange(ids.shape[1])
    wanted = real & (places % 3 != 1)
    if kind in CAUSAL:  # a text that goes on as it began
        ids = (ids[:, :1] + 3 * places) % 12
        return feed | {"input_ids": ids, "labels": np.where(real, ids, -100)}
    if kind in LANGUAGE_MODELS:
        feed = feed | {"input_ids": np.where(wanted & (places > 0), 1, ids), "labels": np.where(wanted, places % 12, -100)}
        return feed | {"next_sentence_label": ids[:, 0] % 2} if kind == "BertForPreTraining" else feed
    if kind == "ElectraForPreTraining":
        return feed | {"labels": ids % 2}
    if kind.endswith("ForTokenClassification"):
        return feed | {"labels": np.where(wanted, ids % 3, -100)}
    if kind.endswith("ForQuestionAnswering"):  # from the second place to the fourth, as far as there are such
        last = real.sum(axis=1) - 1
        return feed | {"start_positions": np.minimum(1, last), "end_positions": np.minimum(3, last)}
    if kind in CHOICES:
        return feed | {"labels": ids[::2, 0] % 2}  # the choice that begins with an even number
    if kind in ENCODERS:
        return feed
    return feed | {"labels": ids[:, 0] % (2 if kind == "BertForNextSentencePrediction" else 3)}


def our_loss(kind: str, ours: Any, form: dict[str, Any]) -> Any:
    """Of an encoder, which has no loss: how far its pooled outputs are from 1/2."""
    output = ours(**form)
    return ((output.pooler_output - 0.5) ** 2).mean() if kind in ENCODERS else output.loss


def their_loss(kind: str, theirs: Any, feed: dict[str, Any]) -> Any:
    found, loss = their_results(kind, theirs, feed)
    return ((found["pooler_output"] - 0.5) ** 2).mean() if kind in ENCODERS else loss


@pytest.mark.parametrize(("kind", "activation"), CASES)
def test_fifty_steps_of_training(kind: str, activation: str) -> None:
    """What AdamW makes of the rounding noise in gradients that are zero differs between the two, and changes no output.

    Padded and packed batches take turns: they are one batch in two forms.
    """
    keys = keys_of(family_of(kind), TINY | {"hidden_act": activation}, narrower=5)
    ours, theirs = build(kind, keys, 1, **others_of(kind, "", 3))
    ours.train()
    theirs.train()
    optimizer = AdamW(decay_groups(ours.named_parameters(), 0.01), lr=5e-3)
    schedule = LinearSchedule(optimizer, WARMUP, STEPS)
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": 0.01}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in theirs.named_parameters():
        groups[name.endswith("bias") or is_norm(name, "weight")]["params"].append(parameter)
    reference = torch.optim.AdamW(groups, lr=5e-3)
    reference_schedule = transformers.get_linear_schedule_with_warmup(reference, WARMUP, STEPS)
    generator, losses, expected = np.random.default_rng(0), [], []
    for step in range(STEPS):
        feed = learnable(kind, inputs_for(kind, generator, ours.config, 8, 12))
        loss = our_loss(kind, ours, in_packed_form(kind, feed) if step % 2 else as_called(kind, feed))
        loss.backward()
        norm = clip_grad_norm(ours.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ours.zero_grad()
        reference.zero_grad()
        other = their_loss(kind, theirs, feed)
        other.backward()
        other_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        reference.step()
        reference_schedule.step()
        agree("gradient norms", np.array(norm), other_norm.numpy(), CURVE, other_norm.item())
        losses.append(loss.item())
        expected.append(other.item())
    assert np.mean(expected[-10:]) < 0.8 * np.mean(expected[:10])  # the run did train
    for own, wanted in zip(losses, expected, strict=True):
        agree(f"{kind} losses", np.array(own), np.array(wanted), CURVE, wanted)
    unseen, trained = unseen_by_softmax(kind, used(theirs)), dict(ours.named_parameters())
    for name, parameter in used(theirs).items():
        if name not in unseen:
            agree("parameters", trained[name].numpy(), parameter.detach().numpy(), CURVE)
