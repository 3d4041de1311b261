"""Directories with small random models and their tokenizers, and texts for them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.data import Tokenizer
from minigrad.models import BertConfig

WORDS = ["the", "pump", "was", "leak", "nurse", "berlin", "maria", "in", "works", "well", "##ed", "##ing", "##er"]
LETTERS = string.ascii_lowercase + string.digits
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *("##" + letter for letter in LETTERS), *".,;:!?'()-"]
TEXTS = [
    "Maria was in Berlin.",
    "The pumps leaked, and the nurse's pump was leaking again!",
    "unknown 漢字 and Zürich, naïve café",
    "x",
    "The nurse works well in Berlin; Maria Müller-Lüdenscheidt was well (1999).",
    "  two  spaces\tand a tab  ",
]
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "MISC"}


def directory(folder: Path, kind: str, seed: int = 0, scale: float = 0.2, **changes: Any) -> Path:
    """Save a model of class `kind` with random weights and an uncased tokenizer; it has as many positions as any test needs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 96}', encoding="utf-8")
    Tokenizer.from_pretrained(folder).save_pretrained(folder)
    sizes: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    values = {"vocab_size": len(TOKENS), "max_position_embeddings": 96, "is_decoder": kind == "BertLMHeadModel"} | sizes | changes
    model = getattr(mg.models, kind)(BertConfig(**values))
    generator = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        spread = 1.0 if "word_embeddings" in name else scale if parameter.ndim == 2 else scale / 5  # so that tokens stay different
        parameter.assign(centre + spread * generator.standard_normal(parameter.shape).astype(np.float32))
    model.save_pretrained(folder)
    return folder
