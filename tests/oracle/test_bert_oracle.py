"""BERT equals transformers (eager attention, float64) on random configurations, weights and ragged batches; files cross both ways.

`python -m pytest tests/oracle/test_bert_oracle.py -s` prints the largest errors and the number of comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.agreement import agree, agree_on_gradients, summary
from oracle.twins import GRADIENT, HIDDEN, LOSS, build, configurations, ragged, their_gradients, torch, torched, transformers
from support import gradients_of

import minigrad as mg
from minigrad.data import Tokenizer

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nagreement with transformers {transformers.__version__}:\n{summary()}")


@settings(max_examples=max(30, settings().max_examples))
@given(values=configurations(), seed=st.integers(0, 2**32 - 1), labels=st.integers(1, 5), holes=st.booleans())
def test_classifier(values: dict[str, Any], seed: int, labels: int, holes: bool) -> None:
    ours, theirs = build("BertForSequenceClassification", values, seed, num_labels=labels)
    generator = np.random.default_rng(seed)
    batch = int(generator.integers(1, 6))
    feed: dict[str, Any] = ragged(generator, ours.config, batch, int(generator.integers(1, 10)), holes)
    feed["labels"] = generator.standard_normal(batch) if labels == 1 else generator.integers(0, labels, batch)
    if labels > 1 and batch > 1 and holes:
        feed["labels"][0] = -100
    expected, output = theirs(**torched(feed)), ours(**feed)
    agree("logits", output.logits.numpy(), expected.logits.detach().numpy(), HIDDEN)
    agree("loss", output.loss.numpy(), expected.loss.detach().numpy(), LOSS, max(1.0, abs(expected.loss.item())))
    expected.loss.backward()
    output.loss.backward()
    agree_on_gradients("gradients", gradients_of(ours), their_gradients(theirs), GRADIENT)


@settings(max_examples=max(30, settings().max_examples))
@given(values=configurations(), seed=st.integers(0, 2**32 - 1), holes=st.booleans(), masked_first=st.booleans(), pooler=st.booleans())
def test_encoder(values: dict[str, Any], seed: int, holes: bool, masked_first: bool, pooler: bool) -> None:
    """Hidden states of real tokens and pooled outputs. Padding differs by policy (ours are zeros): nothing is asked of it."""
    ours, theirs = build("BertModel", values, seed)
    if not pooler:
        ours.pooler = theirs.pooler = None
    generator = np.random.default_rng(seed)
    longest = int(generator.integers(2, 10))
    feed = ragged(generator, ours.config, int(generator.integers(1, 6)), longest, holes)
    if masked_first:
        feed["attention_mask"][::2, 0] = 0
        feed["attention_mask"][::2, -1] = 1
    real = feed["attention_mask"][:, :, None]
    expected, output = theirs(**torched(feed)), ours(**feed)
    agree("hidden", output.last_hidden_state.numpy(), expected.last_hidden_state.detach().numpy() * real, HIDDEN)
    weight = generator.standard_normal(expected.last_hidden_state.shape) * real
    their_sum, our_sum = (expected.last_hidden_state * torch.from_numpy(weight)).sum(), (output.last_hidden_state * weight).sum()
    if pooler:
        agree("pooled", output.pooler_output.numpy(), expected.pooler_output.detach().numpy(), HIDDEN)
        pooled_weight = generator.standard_normal(expected.pooler_output.shape)
        their_sum = their_sum + (expected.pooler_output * torch.from_numpy(pooled_weight)).sum()
        our_sum = our_sum + (output.pooler_output * pooled_weight).sum()
    their_sum.backward()
    our_sum.backward()
    agree_on_gradients("gradients", gradients_of(ours), their_gradients(theirs), GRADIENT)


TINY = {
    "vocab_size": 12,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


# ---------------------------------------------------------------- files
def test_what_we_save_transformers_loads(tmp_path: Path) -> None:
    ours, _ = build("BertForSequenceClassification", TINY, 3, num_labels=4)
    ours.to("float32").save_pretrained(tmp_path)
    loaded, notes = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    assert {key: list(value) for key, value in notes.items() if value} == {}  # nothing missing, unexpected or mis-shaped
    for name, parameter in loaded.named_parameters():
        np.testing.assert_array_equal(parameter.detach().numpy(), ours.state_dict()[name])
    feed = ragged(np.random.default_rng(0), ours.config, 4, 12)
    expected = loaded.double()(**torched(feed)).logits.detach().numpy()
    agree("logits of a saved model", ours.to("float64")(**feed).logits.numpy(), expected, HIDDEN)
    assert loaded.config.id2label == ours.config.id2label


PAIRS = [("BertForSequenceClassification", "BertForSequenceClassification"), ("BertModel", "BertModel"), ("BertForMaskedLM", "BertModel")]


@pytest.mark.parametrize(("saved", "loaded"), PAIRS)
def test_what_transformers_saves_we_load(tmp_path: Path, saved: str, loaded: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    theirs = getattr(transformers, saved)(transformers.BertConfig(**TINY, id2label={0: "no", 1: "maybe", 2: "yes"}, label2id={"no": 0}))
    theirs.save_pretrained(tmp_path)
    ours = getattr(mg.models, loaded).from_pretrained(tmp_path)
    assert ours.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    state = {name.removeprefix("bert.") if loaded == "BertModel" else name: p.detach().numpy() for name, p in theirs.named_parameters()}
    for name, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    assert not caplog.records
    assert not any("pooler" in name for name in ours.state_dict()) or saved == loaded, "a masked language model has none to read"


def test_tokenizer_files_both_ways(tmp_path: Path, shared_data: Path) -> None:
    vocabulary = shared_data / "vocabs" / "bert-base-uncased.vocab.txt"
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "vocab.txt").write_bytes(vocabulary.read_bytes())
    texts = ["The quick brown fox, unaffable!", "naïve café 中文 2024", ""]
    ours = Tokenizer.from_pretrained(tmp_path / "plain")
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs(texts)["input_ids"] == [e.ids.tolist() for e in ours.encode(texts)]
    theirs.save_pretrained(tmp_path / "theirs")
    again = Tokenizer.from_pretrained(tmp_path / "theirs")
    assert [e.ids.tolist() for e in again.encode(texts)] == [e.ids.tolist() for e in ours.encode(texts)]


def test_a_whole_directory_in_the_pipeline_of_transformers(tmp_path: Path, shared_data: Path) -> None:
    """Weights, configuration, label names and tokenizer from one folder: the answer to a text is the same."""
    (tmp_path / "vocab.txt").write_bytes((shared_data / "vocabs" / "bert-base-uncased.vocab.txt").read_bytes())
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    ours, _ = build("BertForSequenceClassification", TINY | {"vocab_size": tokenizer.vocab_size}, 4, num_labels=2)
    ours.config.id2label.update({0: "bad", 1: "good"})
    ours.to("float32").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    answer = transformers.pipeline("text-classification", str(tmp_path), top_k=None)(["a fine piece of work"])
    logits = ours(tokenizer.encode(["a fine piece of work"])[0].ids[None]).logits.numpy()[0].astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum()
    for entry in answer[0]:
        assert entry["score"] == pytest.approx(chances[ours.config.label2id[entry["label"]]], abs=1e-6)  # float32 on both sides
