"""The same model twice, ours and transformers' (eager attention), with the same random weights, and ragged batches for both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from models.sibling_cases import CONFIGS

import minigrad as mg
from minigrad.models import BertConfig, DistilBertConfig

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")

torch.set_num_threads(1)  # the models are small, and on a shared machine two threads wait for each other

HIDDEN, LOSS, GRADIENT = 1e-10, 1e-12, 1e-9
"""Float64 rounding and nothing else."""

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
"""Whether to take the time for published sizes."""

FAMILIES = {"Bert": BertConfig, **CONFIGS}

MINI: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
"""The published "mini" with a smaller vocabulary, in BERT's keys."""

SMALL = MINI | {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": 50}

_SECOND_NAMES = {
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
    "vocab_projector.weight",
}
"""Of parameters that a tied decoder shares with the embeddings or with its own bias."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside: no progress bars, no reports of what was loaded (the tests ask for them as values)."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def family_of(kind: str) -> str:
    return next(family for family in FAMILIES if kind.startswith(family))


@st.composite
def configurations(draw: Any) -> dict[str, Any]:
    heads = draw(st.sampled_from([1, 2, 3, 5]))
    head_size = draw(st.sampled_from([4, 7] if heads < 5 else [1, 4]))  # two numbers normalised are always ±1: all gradients would be noise
    return {
        "vocab_size": draw(st.integers(2, 60)),
        "num_attention_heads": heads,
        "hidden_size": heads * head_size,
        "num_hidden_layers": draw(st.integers(0, 3)),
        "intermediate_size": draw(st.integers(1, 30)),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])),
        "max_position_embeddings": draw(st.integers(9, 12)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5])),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def keys_of(family: str, values: dict[str, Any], pad: int = 1, narrower: int = 0) -> dict[str, Any]:
    """BERT's keys of config.json as a family has them. narrower: by how much ELECTRA's embeddings are; pad: RoBERTa's padding id."""
    if family == "Bert":
        return values
    if family == "DistilBert":
        spelt = DistilBertConfig.published_keys
        own = {spelt.get(key, key): value for key, value in values.items() if key not in ("type_vocab_size", "layer_norm_eps")}
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
    """The same model twice, with the same random weights of deviation `scale`: ours and theirs, both in float64.

    values: keys of config.json as the family spells them. published: what theirs begins with, if not with the family's name.
    """
    family = family_of(kind)
    called = published or family
    config = getattr(transformers, f"{called}Config")(**values, **others)
    config._attn_implementation = "eager"
    theirs = getattr(transformers, called + kind.removeprefix(family))(config).double().eval()
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            centre = 1.0 if is_norm(name, "weight") else 0.0
            parameter.copy_(torch.from_numpy(centre + scale * generator.standard_normal(tuple(parameter.shape))))
    ours = getattr(mg.models, kind)(FAMILIES[family].from_dict(config.to_dict() | {"num_labels": config.num_labels})).to("float64")
    ours.load_state_dict({name: parameter.detach().numpy() for name, parameter in used(theirs).items()})
    return ours.eval(), theirs


def is_norm(name: str, part: str) -> bool:
    """Whether a parameter is the weight (or bias) of a layer normalisation."""
    return name.lower().replace("_", "").endswith(f"layernorm.{part}")


def used(model: Any) -> dict[str, Any]:
    """The parameters of transformers' model that its result depends on, under the names by which it saves them."""
    unread = {"cls.predictions.bias", "lm_head.bias"}  # an untied decoder has a bias of its own
    elsewhere = _SECOND_NAMES if model.config.tie_word_embeddings else unread
    return {name: parameter for name, parameter in model.named_parameters(remove_duplicate=False) if name not in elsewhere}


def ragged(generator: np.random.Generator, config: Any, batch: int, longest: int, holes: bool = False) -> dict[str, np.ndarray]:
    """Token ids, types and a mask whose first column is real; ids under the mask include [PAD], as in a batch of a published tokenizer."""
    mask = (np.arange(longest) < generator.integers(1, longest + 1, batch)[:, None]).astype(np.int64)
    if holes:
        mask = (generator.random((batch, longest)) < 0.6).astype(np.int64)
        mask[:, 0] = 1
    return {
        "input_ids": generator.integers(0, config.vocab_size, mask.shape),
        "attention_mask": mask,
        "token_type_ids": generator.integers(0, config.type_vocab_size, mask.shape),
    }


def results_of(output: Any) -> dict[str, Any]:
    """What transformers returned, but for the keys and values of earlier tokens, which only a generator of text wants."""
    return {name: value for name, value in output.items() if name not in ("past_key_values", "cache")}  # `cache` since 5.24


def torched(feed: dict[str, Any]) -> dict[str, Any]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in feed.items()}


def their_gradients(model: Any) -> dict[str, np.ndarray]:
    return {n: np.zeros(tuple(p.shape)) if p.grad is None else p.grad.numpy() for n, p in used(model).items()}


def packed(feed: dict[str, np.ndarray]) -> mg.data.PackedTokens:
    """The real tokens of padded arrays as tokens that were packed from the start."""
    inputs = (feed[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    return replace(mg.data.pack(*inputs), padded_shape=None)
