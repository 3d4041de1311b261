"""transformers loads what we write (whole, in shards, in halves) with nothing missing or left over, and we load what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle.twins import build, torch, transformers

import minigrad as mg
from minigrad.io import load_file, open_weights, save_file

pytestmark = pytest.mark.oracle

KINDS = ("BertModel", "BertForSequenceClassification")
SIZES = {
    "vocab_size": 40,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 10,
}
IDS = np.array([[2, 7, 1, 8, 2, 8], [3, 1, 4, 1, 5, 9]])


def read_by_transformers(kind: str, folder: Path, **arguments: Any) -> Any:
    model, notes = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True, **arguments)
    assert not any(notes.values()), notes
    return model.eval()


def result(model: Any) -> np.ndarray[Any, Any]:
    """The hidden states or logits of one batch, from either library, as float32."""
    if isinstance(model, mg.nn.Module):
        output = model(IDS)
        return np.array((output.last_hidden_state if hasattr(output, "last_hidden_state") else output.logits).numpy())
    with torch.no_grad():
        return model(torch.from_numpy(IDS))[0].float().numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("max_shard_size", ["5GB", 4000], ids=["one file", "shards"])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_what_we_write(tmp_path: Path, kind: str, max_shard_size: Any, dtype: str | None) -> None:
    ours, _ = build(kind, SIZES, 0, num_labels=3)
    ours.to("float32").save_pretrained(tmp_path, max_shard_size=max_shard_size, dtype=dtype)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == 4000)
    theirs = read_by_transformers(kind, tmp_path)
    assert theirs.dtype == getattr(torch, dtype or "float32"), "config.json says how the weights are stored"
    again = getattr(mg.models, kind).from_pretrained(tmp_path)
    for name, parameter in theirs.named_parameters():
        expected = torch.from_numpy(np.array(ours.state_dict()[name])).to(parameter.dtype)
        assert torch.equal(parameter, expected), f"{name} is rounded as PyTorch rounds"
        np.testing.assert_array_equal(again.state_dict()[name], parameter.detach().float().numpy(), err_msg=name)
    assert np.abs(result(again) - result(theirs.float())).max() < 1e-5  # float32 rounding


def test_the_shards_are_those_of_transformers(tmp_path: Path) -> None:
    """Same shards, names and totals; the parameters' order, by which both fill shards, is the same too."""
    ours, theirs = build("BertForSequenceClassification", SIZES, 1, num_labels=3)
    ours.to("float32").save_pretrained(tmp_path / "ours", max_shard_size="4KB")
    theirs.float().save_pretrained(tmp_path / "theirs", max_shard_size="4KB")
    index, reference = (json.loads((tmp_path / name / "model.safetensors.index.json").read_text()) for name in ("ours", "theirs"))
    assert index["weight_map"] == reference["weight_map"]
    assert {key: index["metadata"][key] for key in reference["metadata"]} == reference["metadata"]
    for path in sorted((tmp_path / "theirs").glob("*.safetensors")):
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["whole", "shards", "half", "bin", "bin shards"])
def test_we_load_what_transformers_and_pytorch_write(tmp_path: Path, kind: str, form: str) -> None:
    _, theirs = build(kind, SIZES, 2, num_labels=3)
    theirs = theirs.to(torch.bfloat16 if form == "half" else torch.float32)
    theirs.save_pretrained(tmp_path, max_shard_size="4KB" if "shards" in form else "5GB")
    if "bin" in form:
        as_pytorch_files(tmp_path, theirs)
    ours = getattr(mg.models, kind).from_pretrained(tmp_path)
    assert not ours.load_report.newly_initialised and not ours.load_report.ignored
    for name, parameter in theirs.named_parameters():
        np.testing.assert_array_equal(ours.state_dict()[name], parameter.detach().float().numpy(), err_msg=name)


def as_pytorch_files(folder: Path, model: Any) -> None:
    """Put what torch.save writes in the place of safetensors files, shard for shard."""
    state = model.state_dict()
    for path in sorted(folder.glob("*.safetensors")):
        names = load_file(path).keys()
        torch.save(
            {name: state[name].clone() for name in names}, str(path).replace("model", "pytorch_model").replace(".safetensors", ".bin")
        )
        path.unlink()
    index = folder / "model.safetensors.index.json"
    if index.exists():
        text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()


@pytest.mark.parametrize("tie", [True, False])
def test_tied_and_untied_decoders_cross_both_ways(tmp_path: Path, tie: bool) -> None:
    ours, theirs = build("BertForMaskedLM", SIZES, 3, tie_word_embeddings=tie)
    ours.to("float32").save_pretrained(tmp_path / "ours")
    theirs.float().save_pretrained(tmp_path / "theirs")
    read = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    assert np.abs(result(read) - result(theirs)).max() < 1e-5  # float32 rounding
    again = mg.models.BertForMaskedLM.from_pretrained(tmp_path / "theirs")
    assert np.abs(result(again) - result(theirs)).max() < 1e-5


def test_bfloat16_is_rounded_as_pytorch_rounds(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    bits = generator.integers(0, 2**32, 200_000, dtype=np.uint32)
    bits[::3] = bits[::3] & 0xFFFF0000 | 0x8000  # ties
    values = bits.view(np.float32)
    values = values[~(np.isfinite(values) & (np.abs(values) > 3.38e38))]  # refused, where PyTorch gives infinity
    save_file({"x": values}, tmp_path / "model.safetensors", dtype="bfloat16")
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    with open_weights(tmp_path) as source:
        np.testing.assert_array_equal(source.read("x"), expected)
