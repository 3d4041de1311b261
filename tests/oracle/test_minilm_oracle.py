"""Every head of BERT on published weights (MiniLM-L6) equals transformers, in float64 and float32, on real texts, padded and packed.

Both libraries read the checkpoint themselves; a head that it lacks is random, and the same on both sides. Two layers and few texts; all
six layers and more texts with HYPOTHESIS_PROFILE=thorough. `python -m pytest tests/oracle/test_minilm_oracle.py -s` prints the largest
errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.cases import HEADS
from oracle.agreement import summary
from oracle.head_cases import SEQUENCE_TASKS, check, check_float32, others_of, with_labels
from oracle.twins import THOROUGH, quiet_transformers, torch, transformers, used

from minigrad import models
from minigrad.data import Tokenizer

pytestmark = pytest.mark.oracle

LAYERS = 6 if THOROUGH else 2
TEXTS = [
    ("The pump was leaking again; nurse Müller replaced it twice in 2019.", None),
    ("x", None),
    ("Does it work?", "Yes, it works like new, and the seller answered every question within the hour."),
    ("naïve café 漢字", "unaffable"),
    ("", None),
    ("Never again.", None),
    ("A list: one, two, three; four (five) & six. " * 4, "What is the last number that the list names?"),
    ("WORKS", "works"),
]
CASES = [(kind, task) for kind in HEADS for task in (SEQUENCE_TASKS if kind == "BertForSequenceClassification" else ("",))]


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    with quiet_transformers():
        yield
    print(f"\n{LAYERS} layers of MiniLM against transformers {transformers.__version__}:\n{summary()}")


@pytest.fixture(scope="module")
def feed(minilm: Path) -> dict[str, np.ndarray]:
    """The texts as padded arrays; for two layers only the short ones."""
    tokenizer = Tokenizer.from_pretrained(minilm)
    encoded = [tokenizer.encode([text], pairs=None if pair is None else [pair])[0] for text, pair in TEXTS[: None if THOROUGH else 4]]
    longest = max(len(e.ids) for e in encoded)
    arrays = {name: np.zeros((len(encoded), longest), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    for row, e in enumerate(encoded):
        n = len(e.ids)
        arrays["input_ids"][row, :n], arrays["token_type_ids"][row, :n], arrays["attention_mask"][row, :n] = e.ids, e.type_ids, 1
    return arrays


def twins(kind: str, task: str, minilm: Path, folder: Path) -> tuple[Any, Any]:
    """Ours and theirs, both in float64, read from the checkpoint with the first LAYERS layers."""
    others = others_of(kind, task, 3)
    config = json.loads((minilm / "config.json").read_text(encoding="utf-8"))
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    labels = {"id2label": {str(i): f"LABEL_{i}" for i in range(others.pop("num_labels", 2))}}
    config |= others | rates | labels | {"label2id": {name: int(i) for i, name in labels["id2label"].items()}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").symlink_to((minilm / "model.safetensors").resolve())
    ours = getattr(models, kind).from_pretrained(folder, num_hidden_layers=LAYERS)
    theirs = getattr(transformers, kind).from_pretrained(folder, num_hidden_layers=LAYERS, attn_implementation="eager", dtype=torch.float32)
    generator, own = np.random.default_rng(7), dict(ours.named_parameters())
    with torch.no_grad():
        for name, parameter in used(theirs).items():
            if name in ours.load_report.newly_initialised:
                values = (0.02 * generator.standard_normal(tuple(parameter.shape)) + ("LayerNorm.weight" in name)).astype(np.float32)
                parameter.copy_(torch.from_numpy(values))
                own[name].assign(values)
            else:
                np.testing.assert_array_equal(own[name].numpy(), parameter.numpy(), err_msg=name)
    return ours.to("float64"), theirs.double().eval()


@pytest.mark.parametrize(("kind", "task"), CASES, ids=[f"{kind} {task}".strip() for kind, task in CASES])
def test_every_head(kind: str, task: str, minilm: Path, tmp_path: Path, feed: dict[str, np.ndarray]) -> None:
    ours, theirs = twins(kind, task, minilm, tmp_path)
    whole = with_labels(kind, task, np.random.default_rng(3), ours.config, feed)
    check(kind, ours, theirs, whole)
    check_float32(kind, ours, theirs, whole)
