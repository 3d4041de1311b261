"""One name for each parameter, however a file spells it.

Nothing is guessed: a spelling is accepted because published files have it, and only where they have it (a `gamma` outside of a layer
normalisation is another model's parameter, and keeps its name).
"""

from __future__ import annotations

import re

from minigrad.models.tf_names import PublishedName, is_training_state, published_name

LEGACY = re.compile(r"(^|\.)LayerNorm\.(gamma|beta)$")
"""Layer normalisation in PyTorch files of 2018 and 2019, which kept TensorFlow's words for weight and bias."""

BUFFERS = re.compile(r"(^|\.)embeddings\.(position_ids|token_type_ids)$")
"""Index buffers in older files that no model needs."""

LAYER = re.compile(r"(^|\.)(?:encoder|transformer)\.layer\.(\d+)\.", re.ASCII)

HEADS = frozenset(
    {
        "cls", "classifier", "qa_outputs", "pooler",  # BERT
        "lm_head",  # RoBERTa
        "pre_classifier", "vocab_transform", "vocab_layer_norm", "vocab_projector",  # DistilBERT
        "discriminator_predictions", "generator_predictions", "generator_lm_head",  # ELECTRA
    }
)  # fmt: skip
"""First part of the names (after the prefix) of a head's parameters, which are ignored in a file if the model has another head, and newly
initialised if the file lacks them."""

VOCABULARY = frozenset(
    {
        "embeddings.word_embeddings.weight",
        "cls.predictions.bias", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias",
        "lm_head.bias", "lm_head.decoder.weight", "lm_head.decoder.bias",
        "vocab_projector.weight", "vocab_projector.bias",
    }
)  # fmt: skip
"""Parameters with a row (or element) for each token of the vocabulary."""

SIZED_BY_LABELS = frozenset(
    {f"classifier.{name}" for name in ("weight", "bias", "out_proj.weight", "out_proj.bias")}
)  # fmt: skip
"""Parameters with a row (or element) for each label. The caller may choose another number of labels; then they are newly initialised."""


def without_prefix(name: str, prefix: str) -> str:
    """The name of a parameter as the bare encoder, or the head, has it: `bert.pooler.dense.bias` → `pooler.dense.bias`."""
    return name.removeprefix(f"{prefix}.") if prefix else name


def published(name: str, tensorflow: bool) -> PublishedName | None:
    """The published PyTorch name of a file's tensor; None if it belongs to no model: a buffer or an optimizer's state.

    An unknown name is returned as it is. `tensorflow`: whether the names of the file are TensorFlow's.
    """
    if tensorflow:
        return None if is_training_state(name) else published_name(name) or PublishedName(name, transposed=False)
    if BUFFERS.search(name):
        return None
    modern = LEGACY.sub(lambda found: f"{found[1]}LayerNorm.{'weight' if found[2] == 'gamma' else 'bias'}", name)
    return PublishedName(modern, transposed=False)


def is_head(name: str) -> bool:
    """Whether a parameter, named without prefix, belongs to a head."""
    return name.partition(".")[0] in HEADS


def layer_of(name: str) -> int | None:
    """The index of the layer that a parameter belongs to; None outside of layers."""
    found = LAYER.search(name)
    return None if found is None else int(found[2])
