"""Pipelines: results in the caller's order whatever the batches, spans that point into the text, no padding, and errors that name the text.

That the results equal transformers' is tested in tests/oracle.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import LABELS, TEXTS, directory

import minigrad as mg
from minigrad.errors import ArgumentError, DTypeError, WeightFileError
from minigrad.packing import PackedTokens
from minigrad.pipeline import TASKS, TextClassification

KINDS = {
    "text-classification": "BertForSequenceClassification",
    "token-classification": "BertForTokenClassification",
    "fill-mask": "BertForMaskedLM",
    "question-answering": "BertForQuestionAnswering",
    "feature-extraction": "BertModel",
    "sentence-similarity": "BertModel",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "token-classification": {"aggregation_strategy": "simple"},
    "sentence-similarity": {"pooling": "mean", "normalise": True},
}
MASKED = [f"{text} [MASK]" for text in TEXTS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {task: directory(root / task, kind, id2label=LABELS) for task, kind in KINDS.items()}


def call(task: str, folder: Path, texts: Any, **options: Any) -> Any:
    predict = mg.pipeline(task, folder, **OPTIONS.get(task, {}), **options)
    if task == "question-answering":
        return predict(["Who was in Berlin?"] * len(texts), texts)
    return predict(texts[0], texts) if task == "sentence-similarity" else predict(texts)


def close(a: Any, b: Any) -> bool:
    """Equal but for float32 rounding of numbers."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(np.allclose(a, b, atol=1e-5)) if isinstance(a, float | np.ndarray) else a == b


def test_every_task_is_tested() -> None:
    assert set(KINDS) == set(TASKS)


@pytest.mark.parametrize("task", KINDS)
def test_batches_change_nothing_and_hold_no_padding(
    task: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[int] = []
    of = PackedTokens.of.__func__  # type: ignore[attr-defined]

    def counted(cls: type[PackedTokens], sequences: Any, *others: Any) -> PackedTokens:
        rows.append(sum(map(len, sequences)))
        return of(cls, sequences, *others)  # type: ignore[no-any-return]

    monkeypatch.setattr(PackedTokens, "of", classmethod(counted))
    texts = MASKED * 2 if task == "fill-mask" else TEXTS * 2
    together = call(task, folders[task], texts, batch_tokens=10**6)
    assert len(together) == len(texts) and len(rows) == 1
    apart = call(task, folders[task], texts, batch_tokens=1)
    assert len(rows) == 1 + len(texts) + (task == "sentence-similarity") and sum(rows) == 2 * rows[0], "no row but tokens"
    assert close(together, apart) and close(together[: len(TEXTS)], together[len(TEXTS) :])
    assert capsys.readouterr().err == "", "silent without a terminal"


@pytest.mark.parametrize("task", ["token-classification", "fill-mask", "feature-extraction"])
def test_one_text_gives_its_result_alone(task: str, folders: dict[str, Path]) -> None:
    predict = mg.pipeline(task, folders[task])
    assert close(predict(MASKED[0]), predict([MASKED[0]])[0])
    assert predict([]) == []


def test_one_text_to_classify_gives_a_list_as_in_transformers(folders: dict[str, Path]) -> None:
    predict = mg.pipeline("text-classification", folders["text-classification"])
    (best,) = predict(TEXTS[0])
    ranked = predict(TEXTS[0], top_k=None)
    assert close(best, ranked[0]) and {entry["label"] for entry in ranked} == set(LABELS.values())
    assert abs(sum(entry["score"] for entry in ranked) - 1) < 1e-5
    assert close(predict({"text": TEXTS[0], "text_pair": TEXTS[1]}), predict([{"text": TEXTS[0], "text_pair": TEXTS[1]}]))


def test_options_may_be_given_once_or_at_each_call(folders: dict[str, Path]) -> None:
    folder = folders["text-classification"]
    always, now = mg.pipeline("text-classification", folder, top_k=2), mg.pipeline("text-classification", folder)
    assert close(always(TEXTS), now(TEXTS, top_k=2)) and len(always(TEXTS, top_k=1)[0]) == 1


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_entities_point_into_the_text(folders: dict[str, Path], strategy: str) -> None:
    found = mg.pipeline("token-classification", folders["token-classification"])(TEXTS, aggregation_strategy=strategy, ignore_labels=[])
    for text, entities in zip(TEXTS, found, strict=True):
        covered = "".join(text[entity["start"] : entity["end"]] for entity in entities)
        assert "".join(covered.split()) == "".join(text.split()), "with no label left out, entities cover the text"
        assert all(a["end"] <= b["start"] for a, b in pairwise(entities))
        if strategy != "simple":
            for entity in entities:
                before, after = text[: entity["start"]][-1:], text[entity["end"] :][:1]
                assert not (before.isalnum() and text[entity["start"]].isalnum()) or "漢" in text
                assert not (after.isalnum() and text[entity["end"] - 1].isalnum()) or "漢" in text


def test_a_model_in_memory_makes_a_pipeline_too(folders: dict[str, Path]) -> None:
    folder = folders["text-classification"]
    model = mg.models.load(folder).train()
    predict = TextClassification(model, mg.data.Tokenizer.from_pretrained(folder), top_k=1)
    assert close(predict(TEXTS), mg.pipeline("text-classification", folder)(TEXTS, top_k=1)), "dropout is off meanwhile"
    assert model.training


# ---------------------------------------------------------------- question answering
def test_a_long_context_is_read_in_windows(folders: dict[str, Path]) -> None:
    predict = mg.pipeline("question-answering", folders["question-answering"], stride=8, max_answer_len=4)
    context = " ".join(TEXTS * 6)
    answers = predict("Who was in Berlin?", context, top_k=9)
    assert len(answers) == 9 and len({(a["start"], a["end"]) for a in answers}) == 9
    assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)
    assert all(a["answer"] == context[a["start"] : a["end"]] != "" for a in answers)
    assert max(a["end"] for a in predict("Who was in Berlin?", context, top_k=10**6)) > len(context) - 5, "the end was read, too"


def test_one_context_serves_many_questions(folders: dict[str, Path]) -> None:
    predict = mg.pipeline("question-answering", folders["question-answering"])
    questions = ["Who?", "Where was the nurse?"]
    assert close(predict(questions, TEXTS[4]), [predict(question, TEXTS[4]) for question in questions])
    assert close(predict(question="Who?", context=TEXTS[4]), predict("Who?", TEXTS[4]))


# ---------------------------------------------------------------- what is refused
def test_a_checkpoint_without_the_head_is_refused(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WeightFileError, match=r"has no trained head for token-classification: 'classifier.weight'") as caught:
        mg.pipeline("token-classification", folders["feature-extraction"])
    assert caught.value.code == "no-head"


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask", "feature-extraction"])
def test_texts_beyond_the_model_are_named_or_cut(task: str, folders: dict[str, Path]) -> None:
    texts = ["short [MASK]", "[MASK]" + " pump" * 200]
    with pytest.raises(ArgumentError, match=r"text 1 has 203 tokens, this model reads 96: .* max_length=96") as caught:
        mg.pipeline(task, folders[task])(texts)
    assert caught.value.code == "too-long"
    assert len(mg.pipeline(task, folders[task], max_length=96)(texts)) == 2


@pytest.mark.parametrize(
    ("task", "inputs", "options", "words"),
    [
        ("text-classification", [TEXTS], {"top": 3}, "TextClassification does not take 'top'; it takes 'inputs', 'top_k'"),
        ("text-classification", [TEXTS], {"top_k": 0}, "top_k must be an integer of at least 1, got 0"),
        ("text-classification", [TEXTS], {"function_to_apply": "tanh"}, "must be one of 'softmax', 'sigmoid', 'none', got 'tanh'"),
        ("text-classification", [[{"texts": "a"}]], {}, r"inputs\[0\] must have the keys 'text'"),
        ("text-classification", [["a", {"text": "a", "text_pair": "b"}]], {}, r"inputs\[1\] and inputs\[0\] differ in kind"),
        ("text-classification", [7], {}, "pass a text or a list of texts, got int"),
        ("token-classification", [TEXTS], {"aggregation_strategy": "last"}, "must be one of 'none', 'simple'"),
        ("fill-mask", [["a [MASK]", "b"]], {}, r"text 1 has no \[MASK\] to fill"),
        ("fill-mask", ["a [MASK]"], {"top_k": 1.5}, "top_k must be an integer"),
        ("question-answering", ["Who?", ""], {}, "context 0 has no tokens"),
        ("question-answering", ["Who? " * 99, "a"], {}, "question 0 leaves no room for its context: .* tokens of 96"),
        ("question-answering", [["Who?", "Where?"], ["a"]], {}, "equal lengths, got 2 and 1"),
        ("question-answering", ["Who?", "a " * 200], {"stride": 95}, "stride must lie between 0 and"),
        ("question-answering", ["Who?", "a"], {"stride": -1}, "stride must lie between 0 and"),
        ("question-answering", ["Who?", "a"], {"max_answer_len": 0}, "max_answer_len must be"),
        ("sentence-similarity", [["a"], ["b"]], {}, "source_sentence must be one text, got list"),
    ],
)
def test_what_cannot_be_used_is_named(task: str, inputs: list[Any], options: Any, words: str, folders: dict[str, Path]) -> None:
    predict = mg.pipeline(task, folders[task], **OPTIONS.get(task, {}))
    with pytest.raises(ArgumentError, match=words):
        predict(*inputs, **options)


def test_tasks_and_options_are_checked_first(folders: dict[str, Path]) -> None:
    with pytest.raises(ArgumentError, match=r"task must be one of 'text-classification', .*, got 'translation'"):
        mg.pipeline("translation", "nowhere")
    for wrong in (0, "many", True):
        with pytest.raises(ArgumentError, match="max_length must be an integer of at least 1"):
            mg.pipeline("question-answering", folders["question-answering"], max_length=wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="does not take 'top_p'"):
        mg.pipeline("fill-mask", folders["fill-mask"], top_p=0.5)
    with pytest.raises(DTypeError, match=r"texts\[1\] must be a string, got int"):
        mg.pipeline("fill-mask", folders["fill-mask"])(["[MASK]", 7])
