"""The same BERT twice, ours and transformers' (eager attention), with the same random weights, and ragged batches for both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import minigrad as mg
from minigrad.models import BertConfig

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")

HIDDEN, LOSS, GRADIENT = 1e-10, 1e-12, 1e-9
"""Float64 rounding and nothing else."""

UNUSED = "cls.predictions.bias"
"""In transformers a parameter that nothing reads, where the decoder is untied (it then has a bias of its own)."""


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


def build(kind: str, settings_: dict[str, Any], seed: int, scale: float = 0.25, **others: Any) -> tuple[Any, Any]:
    """The same model twice, with the same random weights of deviation `scale`: ours and theirs, both in float64."""
    config = transformers.BertConfig(**settings_, **others)
    config._attn_implementation = "eager"
    theirs = getattr(transformers, kind)(config).double().eval()
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(torch.from_numpy(centre + scale * generator.standard_normal(tuple(parameter.shape))))
    ours = getattr(mg.models, kind)(BertConfig.from_dict(config.to_dict() | {"num_labels": config.num_labels})).to("float64")
    ours.load_state_dict({name: parameter.detach().numpy() for name, parameter in used(theirs).items()})
    return ours.eval(), theirs


def used(model: Any) -> dict[str, Any]:
    """The parameters of transformers' model that its result depends on."""
    named = dict(model.named_parameters())
    if "cls.predictions.decoder.bias" in named:
        del named[UNUSED]
    return named


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


def torched(feed: dict[str, Any]) -> dict[str, Any]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in feed.items()}


def their_gradients(model: Any) -> dict[str, np.ndarray]:
    return {n: np.zeros(tuple(p.shape)) if p.grad is None else p.grad.numpy() for n, p in used(model).items()}


def packed(feed: dict[str, np.ndarray]) -> mg.data.PackedTokens:
    """The real tokens of padded arrays as tokens that were packed from the start."""
    inputs = (feed[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    return replace(mg.data.pack(*inputs), padded_shape=None)
