"""What files say beyond heads and formats (test_formats_oracle): the same shards as transformers', untied decoders, rounding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from oracle.agreement import agree
from oracle.head_cases import expected_outputs, inputs_for
from oracle.twins import HIDDEN, SMALL, build, family_of, keys_of, quiet_transformers, results_of, torch, torched, transformers, used

import minigrad as mg
from minigrad.io import open_weights, save_file

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    with quiet_transformers():
        yield


def test_the_shards_are_those_of_transformers(tmp_path: Path) -> None:
    """Same shards, names and totals; the parameters' order, by which both fill shards, is the same too."""
    ours, theirs = build("BertForSequenceClassification", SMALL, 1, num_labels=3)
    ours.to("float32").save_pretrained(tmp_path / "ours", max_shard_size="200KB")
    theirs.float().save_pretrained(tmp_path / "theirs", max_shard_size="200KB")
    index, reference = (json.loads((tmp_path / name / "model.safetensors.index.json").read_text()) for name in ("ours", "theirs"))
    assert index["weight_map"] == reference["weight_map"]
    assert {key: index["metadata"][key] for key in reference["metadata"]} == reference["metadata"]
    for path in sorted((tmp_path / "theirs").glob("*.safetensors")):
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForPreTraining", "RobertaForMaskedLM", "DistilBertForMaskedLM"])
def test_untied_decoders_cross_both_ways(tmp_path: Path, kind: str) -> None:
    """A decoder of its own has a bias of its own; the head's, which is then read by nobody, is not written (see `used`)."""
    ours, theirs = build(kind, keys_of(family_of(kind), SMALL), 3, tie_word_embeddings=False)
    feed = inputs_for(kind, np.random.default_rng(0), ours.config, 3, 7)
    if family_of(kind) == "DistilBert":
        del feed["token_type_ids"]
    ours.to("float32").save_pretrained(tmp_path / "ours")
    theirs.float().save_pretrained(tmp_path / "theirs")
    unread = {"lm_head.bias", "cls.predictions.bias"}
    read, notes = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True, attn_implementation="eager")
    assert set(notes["missing_keys"]) <= unread
    assert not notes["unexpected_keys"] and not notes["mismatched_keys"]
    again = getattr(mg.models, kind).from_pretrained(tmp_path / "theirs")
    assert not again.load_report.newly_initialised
    assert set(again.load_report.ignored) <= unread
    for name, parameter in used(theirs).items():
        np.testing.assert_array_equal(again.state_dict()[name], parameter.detach().numpy(), err_msg=name)
        np.testing.assert_array_equal(used(read)[name].detach().numpy(), parameter.detach().numpy(), err_msg=name)
    results = results_of(read.double().eval()(**torched(feed)))
    output = again.to("float64")(**feed)
    for name, wanted in expected_outputs(kind, results, feed, is_packed=False).items():
        agree(f"{kind} untied", getattr(output, name).numpy(), wanted, HIDDEN)


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


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "Electra"])
def test_a_question_answerer_made_from_a_model_with_labels(tmp_path: Path, family: str) -> None:
    """transformers gives this head a row for each label: the labels of the model before must not stand in the file."""
    tagger, _ = build(f"{family}ForTokenClassification", keys_of(family, SMALL), 1, num_labels=5)
    tagger.to("float32").save_pretrained(tmp_path / "tagger")
    mg.models.load(tmp_path / "tagger", "question-answering").save_pretrained(tmp_path / "answerer")
    kind = getattr(transformers, f"{family}ForQuestionAnswering")
    _, notes = kind.from_pretrained(tmp_path / "answerer", output_loading_info=True)
    assert not any(notes[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not mg.models.load(tmp_path / "answerer").load_report.newly_initialised
