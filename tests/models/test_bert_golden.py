"""BERT against stored results of transformers (float64, eager attention), made by `tests/make_golden.py`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import absolute_error, gradient_errors, gradients_of, without_kernels

from minigrad import models
from minigrad.data import Tokenizer
from minigrad.models import BertConfig, BertForSequenceClassification, BertModel
from minigrad.models.pretrained import PretrainedModel
from minigrad.optim import AdamW, LinearSchedule, clip_grad_norm, decay_groups

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
HEADS = sorted(path.stem.removeprefix("head_") for path in GOLDEN.glob("head_*.npz"))
CASES = sorted(path.stem.removeprefix("bert_") for path in GOLDEN.glob("bert_*.npz") if path.stem != "bert_curve")


def read(name: str, family: str = "bert") -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{family}_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def part(arrays: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(kind): value for key, value in arrays.items() if key.startswith(kind)}


def build(arrays: dict[str, np.ndarray], dtype: str) -> PretrainedModel:
    config = BertConfig.from_dict(json.loads(str(arrays["config"])))
    weights = part(arrays, "weight:")
    model: PretrainedModel
    if "classifier.weight" in weights:
        model = BertForSequenceClassification(config)
    else:
        model = BertModel(config, add_pooling_layer="pooler.dense.weight" in weights)
    model.to(dtype).load_state_dict(weights)
    return model.eval()


def run(model: Any, arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs under the golden file's names, and every parameter's gradient."""
    feed = {key: arrays[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    if "labels" in arrays:
        output = model(**feed, labels=arrays["labels"])
        found, loss = {"logits": output.logits}, output.loss
    else:
        output = model(**feed)
        found = {"hidden": output.last_hidden_state}
        loss = (output.last_hidden_state * arrays["hidden_cotangent"].astype(output.last_hidden_state.dtype)).sum()
        if output.pooler_output is not None:
            found["pooled"] = output.pooler_output
            loss = loss + (output.pooler_output * arrays["pooled_cotangent"].astype(output.pooler_output.dtype)).sum()
    loss.backward()
    return {key: np.array(value.numpy()) for key, value in (found | {"loss": loss}).items()}, gradients_of(model)


def test_every_golden_file_is_used() -> None:
    """The files cover the forms of gelu and relu, both heads, no pooler, and masks with holes and with a masked first column."""
    assert len(CASES) == 7
    assert {json.loads(str(read(name)["config"]))["hidden_act"] for name in CASES} == {"gelu", "gelu_new", "relu"}


@pytest.mark.parametrize("name", CASES)
def test_float64(name: str) -> None:
    """The tolerances leave float64 rounding and nothing else. The hidden rows of padding are zeros here (stored as zeros too)."""
    arrays = read(name)
    found, gradients = run(build(arrays, "float64"), arrays)
    for key in found.keys() - {"loss"}:
        assert absolute_error(found[key], arrays[key]) < 1e-10, key
    assert found.keys() - {"loss"} == {"hidden", "pooled", "logits"} & arrays.keys()
    assert absolute_error(found["loss"], arrays["loss"]) < 1e-12 * max(1.0, abs(float(arrays["loss"])))
    errors = gradient_errors(gradients, part(arrays, "gradient:"))
    assert max(errors.values()) < 1e-9, errors
    for key, gradient in gradients.items():
        assert not key.endswith("key.bias") or np.abs(gradient).max() < 1e-6  # zero but for rounding: see `gradient_errors`


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "bodies"])
@pytest.mark.parametrize("name", CASES)
def test_float32(name: str, kernels: bool) -> None:
    """Float32 rounding through two layers: PyTorch's own float32 lies 1e-6 (hidden, gradients) and 3e-7 (logits) from its float64."""
    arrays = read(name)
    with nullcontext() if kernels else without_kernels():
        found, gradients = run(build(arrays, "float32"), arrays)
    for key, tolerance in {"hidden": 1e-5, "pooled": 1e-5, "logits": 2e-6}.items():
        if key in found:
            assert absolute_error(found[key], arrays[key]) < tolerance, key
    errors = gradient_errors(gradients, part(arrays, "gradient:"))
    assert max(errors.values()) < 1e-5, errors


# ---------------------------------------------------------------- the other heads
BY_TOKEN = {"BertForMaskedLM", "BertLMHeadModel", "BertForTokenClassification"}

UNSEEN = {
    "BertForQuestionAnswering": ("qa_outputs.bias", "layer.1.output.LayerNorm.bias"),
    "BertForMultipleChoice": ("classifier.bias",),
}
"""Added to every score that one softmax compares: the gradient is zero but for rounding."""


def run_head(arrays: dict[str, np.ndarray], dtype: str) -> tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The kind of head, its outputs and loss, and every parameter's gradient."""
    kind = str(arrays["kind"])
    model = getattr(models, kind)(BertConfig.from_dict(json.loads(str(arrays["config"])))).to(dtype)
    model.load_state_dict(part(arrays, "weight:"))
    output = model.eval()(**part(arrays, "input:"))
    output.loss.backward()
    return kind, {key: np.array(getattr(output, key).numpy()) for key in [*part(arrays, "output:"), "loss"]}, gradients_of(model)


def test_every_head_has_a_golden_file() -> None:
    """The encoder and the single-label classifier are among the cases above."""
    kinds = {str(read(name, "head")["kind"]) for name in HEADS}
    assert kinds == set(models_with_heads()) - {"BertModel"}
    assert len(HEADS) == 9


def models_with_heads() -> list[str]:
    return [name for name in models.__all__ if name.startswith("Bert") and name != "BertConfig"]


@pytest.mark.parametrize(
    ("dtype", "logits", "loss", "gradient"), [("float64", 1e-10, 1e-12, 1e-9), ("float32", 2e-6, 2e-6, 1e-5)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("name", HEADS)
def test_head(name: str, dtype: str, logits: float, loss: float, gradient: float) -> None:
    """Outputs at real tokens, loss and gradients. In float64 the tolerances leave rounding alone, for float32 see above."""
    arrays = read(name, "head")
    kind, found, gradients = run_head(arrays, dtype)
    mask = part(arrays, "input:")["attention_mask"]
    for key, expected in part(arrays, "output:").items():
        by_token = key in ("start_logits", "end_logits", "prediction_logits") or (key == "logits" and kind in BY_TOKEN)
        real = mask.reshape(mask.shape + (1,) * (expected.ndim - 2)) if by_token else 1
        assert absolute_error(found[key], expected * real) < logits * max(1.0, float(np.abs(expected).max())), key
    assert absolute_error(found["loss"], arrays["loss"]) < loss * max(1.0, abs(float(arrays["loss"])))
    errors = gradient_errors(gradients, part(arrays, "gradient:"))
    assert max(error for key, error in errors.items() if not key.endswith(UNSEEN.get(kind, "none"))) < gradient, errors
    for key, values in gradients.items():
        assert not key.endswith(("key.bias", *UNSEEN.get(kind, ()))) or np.abs(values).max() < 1e-6


def test_outputs_at_padding_are_zeros() -> None:
    arrays = read("model_masked_first")
    found, _ = run(build(arrays, "float64"), arrays)
    assert not found["hidden"][arrays["attention_mask"] == 0].any()
    assert found["hidden"][arrays["attention_mask"] == 1].all()


def test_tokenization(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "tokenization.json").read_text(encoding="utf-8"))
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in golden["vocab"]), encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert [e.ids.tolist() for e in tokenizer.encode(golden["texts"])] == golden["single"]
    assert [e.ids.tolist() for e in tokenizer.encode(golden["texts"], max_length=5)] == golden["single_max_5"]
    pairs = tokenizer.encode(golden["texts"], pairs=golden["pairs"])
    assert {"input_ids": [e.ids.tolist() for e in pairs], "token_type_ids": [e.type_ids.tolist() for e in pairs]} == golden["pair"]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_training_curve(dtype: str, tolerance: float) -> None:
    """Twenty steps of AdamW with warm-up, decay and clipping: losses and gradient norms, relative.

    Differences of one rounding (1e-16, 6e-8) grow from step to step, by a factor of up to about a hundred. Adam also makes steps of full
    size out of the rounding noise in the key biases' gradients, which changes no output but in the last digits.
    """
    arrays = read("curve")
    config, plan = json.loads(str(arrays["config"])), json.loads(str(arrays["settings"]))
    model = BertForSequenceClassification(BertConfig.from_dict(config)).to(dtype)
    model.load_state_dict(part(arrays, "weight:"))
    optimizer = AdamW(decay_groups(model.named_parameters(), plan["weight_decay"]), lr=plan["learning_rate"])
    schedule = LinearSchedule(optimizer, plan["warmup"], plan["steps"])
    for step in range(plan["steps"]):
        batch = {key: arrays[key][step] for key in ("input_ids", "attention_mask", "labels")}
        loss = model(**batch).loss
        assert loss is not None
        loss.backward()
        norm = clip_grad_norm(model.parameters(), plan["max_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert loss.item() == pytest.approx(arrays["losses"][step], rel=tolerance), step
        assert norm == pytest.approx(arrays["norms"][step], rel=10 * tolerance), step
    assert arrays["norms"].max() > plan["max_norm"] > arrays["norms"].min()  # clipping was at work, and not always
