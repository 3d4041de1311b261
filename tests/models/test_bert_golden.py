"""BERT against stored results of transformers (float64, eager attention), made by `tests/make_golden.py`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import absolute_error, gradient_errors, gradients_of, without_kernels

from minigrad.data import Tokenizer
from minigrad.models import BertConfig, BertForSequenceClassification, BertModel
from minigrad.models.pretrained import PretrainedModel
from minigrad.optim import AdamW, LinearSchedule, clip_grad_norm, decay_groups

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = sorted(path.stem.removeprefix("bert_") for path in GOLDEN.glob("bert_*.npz") if path.stem != "bert_curve")


def read(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"bert_{name}.npz") as file:
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
