"""Our pipelines give what transformers' give: the same dictionaries, labels and spans, scores within float32 rounding.

transformers 5 has no question answering: there every span of every window is scored from its model's logits, one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import LABELS, TEXTS, directory
from tokenizer_files import byte_pairs, write_roberta

import minigrad as mg

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")
pytestmark = pytest.mark.oracle

SCORE = 1e-5
"""Float32 rounding of probabilities."""


def both(task: str, folder: Path) -> tuple[Any, Any]:
    return mg.pipeline(task, folder), transformers.pipeline(task, model=str(folder), tokenizer=str(folder), device="cpu")


def same(ours: Any, theirs: Any) -> int:
    """Equal in every key, list and text, and in numbers within SCORE; returns the dictionaries compared."""
    if isinstance(theirs, list):
        assert isinstance(ours, list) and len(ours) == len(theirs), (ours, theirs)
        return sum(same(a, b) for a, b in zip(ours, theirs, strict=True))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if key == "score":
            assert isinstance(ours[key], float) and abs(ours[key] - float(value)) < SCORE, (ours, theirs)
        else:
            assert ours[key] == value, (ours, theirs)
    return 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": {0: "bad", 1: "so so", 2: "good"}},
        {"id2label": {0: "a", 1: "b"}, "problem_type": "multi_label_classification"},
        {"id2label": {0: "how much"}},
        {"id2label": {0: "how much"}, "problem_type": "regression"},
    ],
    ids=["classes", "several at once", "one label", "regression"],
)
def test_text_classification(tmp_path: Path, changes: dict[str, Any], seed: int) -> None:
    ours, theirs = both("text-classification", directory(tmp_path, "BertForSequenceClassification", seed, **changes))
    same(ours(TEXTS), theirs(TEXTS))
    same(ours(TEXTS[0]), theirs(TEXTS[0]))
    for top_k in (None, 1, 2):
        same(ours(TEXTS, top_k=top_k), theirs(TEXTS, top_k=top_k))
        same(ours(TEXTS[0], top_k=top_k), theirs(TEXTS[0], top_k=top_k))
    for function in ("softmax", "sigmoid", "none"):
        same(ours(TEXTS, function_to_apply=function), theirs(TEXTS, function_to_apply=function))
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, reversed(TEXTS), strict=True)]
    same(ours(pairs), theirs(pairs))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification(tmp_path: Path, strategy: str, seed: int) -> None:
    ours, theirs = both("token-classification", directory(tmp_path, "BertForTokenClassification", seed, id2label=LABELS))
    found = ours(TEXTS, aggregation_strategy=strategy)
    assert same(found, theirs(TEXTS, aggregation_strategy=strategy)) > 15
    assert len({entity.get("entity") or entity["entity_group"] for entities in found for entity in entities}) >= 3, "the labels vary"
    same(ours(TEXTS[1], aggregation_strategy=strategy), theirs(TEXTS[1], aggregation_strategy=strategy))
    ignored = ["B-PER", "MISC", "PER"]
    options = {"aggregation_strategy": strategy, "ignore_labels": ignored}
    same(ours(TEXTS, **options), theirs(TEXTS, **options))


@pytest.mark.parametrize("seed", range(3))
def test_windows(tmp_path: Path, seed: int) -> None:
    """Of a model that reads each token alone, so that what surrounds a token in a window makes no difference, and token by token, for
    transformers takes the words that a window's edge cuts for words."""
    folder = directory(tmp_path, "BertForTokenClassification", seed, id2label=LABELS)
    model = mg.models.load(folder)
    for name, parameter in model.named_parameters():
        if "position" in name or "attention.output.dense" in name:
            parameter.assign(np.zeros(parameter.shape, np.float32))
    model.save_pretrained(folder)
    ours, theirs = both("token-classification", folder)
    options = {"aggregation_strategy": "simple", "stride": 24}
    long = " ".join(TEXTS * 6)
    found, expected = ours(long, **options), theirs(long, **options)
    places = [(entity["start"], entity["end"], entity["entity_group"], entity["word"]) for entity in found]
    assert len(found) > 100 and places == [(e["start"], e["end"], e["entity_group"], e["word"]) for e in expected]


ODD = [
    "Maria MÜLLER-Lüdenscheidt's e\u0301cole", "cafe\u0301 nai\u0308ve in Berlin", "👩‍👩‍👧 Maria 👍🏽 in 🇩🇪 Berlin!", "a\x00b nul",
    "İstanbul ﬁne ǅ ①½", "中文 Maria 日本語テキスト", "word" * 20, "\u200b \ufeff", "Maria\u00a0Berlin\u3000nurse",
    "the-pump/was;leak,(nurse)", "שלום مرحبا Maria", "Maria\nBerlin\r\nnurse\tx", "[MASK] Maria [SEP] Berlin [UNK]", "Ⅷ ﷺ",
    "<s> Maria </s>", "###", "##ing ##ed", "",
]  # fmt: skip


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_odd_texts(tmp_path: Path, strategy: str) -> None:
    ours, theirs = both("token-classification", directory(tmp_path, "BertForTokenClassification", 5, id2label=LABELS))
    for text in ODD:
        same(ours(text, aggregation_strategy=strategy), theirs(text, aggregation_strategy=strategy))


@pytest.mark.parametrize("seed", range(3))
def test_fill_mask(tmp_path: Path, seed: int) -> None:
    ours, theirs = both("fill-mask", directory(tmp_path, "BertForMaskedLM", seed))
    texts = [f"{text} It's [MASK] again." for text in TEXTS]
    for top_k in (5, 1, 60):
        same(ours(texts, top_k=top_k), theirs(texts, top_k=top_k))
    same(ours(texts[1]), theirs(texts[1]))
    targets = ["pump", "nurse", "maria", "x"]
    same(ours(texts, targets=targets), theirs(texts, targets=targets))
    same(ours(texts, targets=targets, top_k=2), theirs(texts, targets=targets, top_k=2))
    several = "[MASK] was in [MASK], and [MASK]"
    same(ours(several), theirs(several))
    same(ours([texts[0], several]), theirs([texts[0], several]))


def test_feature_extraction(tmp_path: Path) -> None:
    ours, theirs = both("feature-extraction", directory(tmp_path, "BertModel"))
    for text, found, wanted in zip(TEXTS, ours(TEXTS), theirs(TEXTS), strict=True):
        assert np.abs(found - np.array(wanted)[0]).max() < SCORE * 10, text  # hidden states are of size 1 to 3
    assert np.abs(ours(TEXTS[0]) - np.array(theirs(TEXTS[0]))[0]).max() < SCORE * 10


def expected_answers(
    model: Any, tokenizer: Any, question: str, context: str, size: int, stride: int, longest: int
) -> dict[tuple[int, int], float]:
    """Every span of whole words by its best score, from transformers' own windows and logits."""
    given = tokenizer(
        question, context, truncation="only_second", max_length=size, stride=stride, return_overflowing_tokens=True, padding=False
    )
    found: dict[tuple[int, int], float] = {}
    whole = tokenizer(question, context)
    for w, ids in enumerate(given["input_ids"]):
        with torch.no_grad():
            output = model(torch.tensor([ids]), token_type_ids=torch.tensor([given["token_type_ids"][w]]))
        sequence = given.sequence_ids(w)
        allowed = [i for i in range(len(ids)) if i == 0 or sequence[i] == 1]
        start, end = (torch.softmax(logits[0, allowed].double(), 0).tolist() for logits in (output.start_logits, output.end_logits))
        words = given.word_ids(w)
        for a in range(1, len(allowed)):
            for b in range(a, min(a + longest, len(allowed))):
                first = whole.word_to_chars(words[allowed[a]], sequence_index=1).start
                last = whole.word_to_chars(words[allowed[b]], sequence_index=1).end
                found[first, last] = max(found.get((first, last), 0.0), start[a] * end[b])
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [None, 40, 33])
def test_question_answering(tmp_path: Path, seed: int, size: int | None) -> None:
    folder = directory(tmp_path, "BertForQuestionAnswering", seed, scale=0.2)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = mg.pipeline("question-answering", folder, max_length=size)
    question, contexts = "Who was in Berlin?", [" ".join(TEXTS[:3]), TEXTS[0], TEXTS[4]]
    for stride, longest in ((8, 15), (0, 3)):
        options = {"top_k": 5, "stride": stride, "max_answer_len": longest}
        for context, answers in zip(contexts, ours([question] * 3, contexts, **options), strict=True):
            expected = expected_answers(model, tokenizer, question, context, size or 96, stride, longest)
            assert len(answers) == 5
            for answer, wanted in zip(answers, sorted(expected.values(), reverse=True), strict=False):
                assert abs(answer["score"] - wanted) < SCORE
                assert abs(expected[answer["start"], answer["end"]] - answer["score"]) < SCORE
                assert answer["answer"] == context[answer["start"] : answer["end"]]
            assert ours(question, context, **(options | {"top_k": 1}))["answer"] == ours(question, context, **options)[0]["answer"]


# transformers guesses where words end, and says so; we do the same: a word is what stands between spaces
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_roberta(tmp_path: Path, strategy: str) -> None:
    vocab, merges = byte_pairs(TEXTS)
    write_roberta(tmp_path, vocab, merges)
    tokenizer = mg.data.Tokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32, "max_position_embeddings": 130}
    config = transformers.RobertaConfig(vocab_size=tokenizer.vocab_size, id2label=LABELS, type_vocab_size=1, initializer_range=0.3, **sizes)
    torch.manual_seed(0)
    transformers.RobertaForTokenClassification(config).save_pretrained(tmp_path)
    ours, theirs = both("token-classification", tmp_path)
    assert same(ours(TEXTS, aggregation_strategy=strategy), theirs(TEXTS, aggregation_strategy=strategy)) > 15
    transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path)
    ours, theirs = both("fill-mask", tmp_path)
    texts = [f"{text} It's <mask> again." for text in TEXTS]
    same(ours(texts), theirs(texts))
