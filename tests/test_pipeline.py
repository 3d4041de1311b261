"""Pipelines: results in the caller's order whatever the batches, spans that point into the text, no padding, and errors that name the text.

That the results equal transformers' is tested in tests/oracle.
"""

from __future__ import annotations

import sys
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import LABELS, TEXTS, directory

import minigrad as mg
from minigrad.data import progress
from minigrad.errors import ArgumentError, DTypeError, InputError, MissingExtraError, NonFiniteError, WeightFileError
from minigrad.packing import PackedTokens
from minigrad.pipeline import TASKS, SentenceSimilarity, TextClassification, TokenClassification, base
from minigrad.pipeline.entities import STRATEGIES

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


@pytest.mark.parametrize("task", KINDS)
def test_workers_change_nothing(task: str, folders: dict[str, Path]) -> None:
    texts = MASKED if task == "fill-mask" else TEXTS
    assert close(call(task, folders[task], texts, workers=2), call(task, folders[task], texts))


def test_workers_know_weights_that_have_changed_in_between(folders: dict[str, Path]) -> None:
    one, two = (mg.pipeline("text-classification", folders["text-classification"], workers=n) for n in (1, 2))
    before = one(TEXTS)
    assert close(two(TEXTS), before)
    for predict in (one, two):
        predict.model.load_state_dict({name: 1.5 * array for name, array in predict.model.state_dict().items()})
    after = two(TEXTS)
    assert close(after, one(TEXTS)) and not close(after, before)


def test_workers_know_another_model_whose_parameters_have_changed_as_often(folders: dict[str, Path]) -> None:
    one, two = (mg.pipeline("text-classification", folders["text-classification"], workers=n) for n in (1, 2))
    for predict, factor in ((one, 1.5), (two, 1.0)):
        predict.model.load_state_dict({name: factor * array for name, array in predict.model.state_dict().items()})
    before = two(TEXTS)
    two.model = one.model
    assert close(two(TEXTS), one(TEXTS)) and not close(one(TEXTS), before)


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
    assert close(always(TEXTS), now(TEXTS, top_k=np.int64(2))) and len(always(TEXTS, top_k=1)[0]) == 1


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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_lost_accent_joins_no_words(folders: dict[str, Path], strategy: str) -> None:
    """The token is shorter than its text, which is no sign that it continues a word."""
    predict = mg.pipeline("token-classification", folders["token-classification"], aggregation_strategy=strategy, ignore_labels=())
    plain, accented = ([{**entity, "start": 0, "end": 0} for entity in predict(f"the nurse pu{mark}mp works")] for mark in ("", "\u0308"))
    assert close(plain, accented) and len(plain) > 1


def test_a_model_in_memory_makes_a_pipeline_too(folders: dict[str, Path]) -> None:
    folder = folders["text-classification"]
    model = mg.models.load(folder).train()
    predict = TextClassification(model, mg.data.Tokenizer.from_pretrained(folder), top_k=1)
    assert close(predict(TEXTS), mg.pipeline("text-classification", folder)(TEXTS, top_k=1)), "dropout is off meanwhile"
    assert model.training


@pytest.mark.parametrize("task", TASKS)
def test_a_wrong_model_or_tokenizer_is_refused_when_the_pipeline_is_made(task: str, folders: dict[str, Path]) -> None:
    kind = TASKS[task]
    tokenizer = mg.data.Tokenizer.from_pretrained(folders[task])
    right, wrong = (
        mg.models.load(folders[task]),
        mg.models.load(folders["text-classification" if kind.head == "base" else "feature-extraction"]),
    )
    more = {"pooling": "mean"} if task == "sentence-similarity" else {}
    kind(right, tokenizer, **more)
    for model in (wrong, tokenizer, str(folders[task]), None):
        with pytest.raises(
            ArgumentError, match=f"{kind.__name__} takes a model with the head '{kind.head}'.*; got {type(model).__name__}$"
        ):
            kind(model, tokenizer, **more)
    for other in (right, str(folders[task]), None):
        with pytest.raises(ArgumentError, match=f"{kind.__name__} takes a tokenizer beside the model.*; got {type(other).__name__}$"):
            kind(right, other, **more)  # type: ignore[arg-type]


def test_similarity_of_a_model_in_memory(folders: dict[str, Path]) -> None:
    folder = folders["sentence-similarity"]
    model, tokenizer = mg.models.load(folder), mg.data.Tokenizer.from_pretrained(folder)
    expected = mg.pipeline("sentence-similarity", folder, pooling="cls", normalise=True)(TEXTS[0], TEXTS)
    assert close(SentenceSimilarity(model, tokenizer, pooling="cls")(TEXTS[0], TEXTS), expected)
    with pytest.raises(ArgumentError, match="needs pooling, one of 'mean', 'cls', 'max'"):
        SentenceSimilarity(model, tokenizer)
    encoder = mg.models.SentenceEncoder.from_pretrained(folder, pooling="cls", normalise=True)
    assert close(SentenceSimilarity(encoder)(TEXTS[0], TEXTS), expected)
    with pytest.raises(ArgumentError, match="it has its own"):
        SentenceSimilarity(encoder, tokenizer)


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "fill-mask", "feature-extraction"])
def test_an_iterator_gives_an_iterator(task: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless ones, too: no more is read ahead than a chunk."""
    monkeypatch.setattr(base, "CHUNK_TEXTS", 4)
    predict = mg.pipeline(task, folders[task])
    read: list[str] = []
    texts = (read.append(text) or text for text in cycle(MASKED))  # type: ignore[func-returns-value]
    found = [next(results) for results in [predict(texts)] for _ in range(6)]
    assert close(found, predict(MASKED)) and len(read) == 8
    assert list(predict(iter([]))) == []
    with pytest.raises(DTypeError, match=r"texts\[5\] must be a string, got int"):
        list(predict(iter([*MASKED[:5], 7])))


@pytest.mark.parametrize("task", KINDS)
def test_how_far_it_is_counts_texts(
    task: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where texts are read in several windows; of an iterator as it goes, with a total if it gives a hint."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(base, "CHUNK_TEXTS", 4)
    texts = [f"[MASK] {'pump ' * 20 * i}" for i in range(5)] if task == "fill-mask" else [f"pump {'pump ' * 80 * i}" for i in range(5)]
    options = {"max_length": 96} if task in ("text-classification", "fill-mask", "feature-extraction") else {}
    call(task, folders[task], texts, batch_tokens=1, **options)
    lines = capsys.readouterr().err.splitlines()
    count = len(texts) + (task == "sentence-similarity")
    assert len(lines) >= 4 and lines[-1].startswith(f"{count} of {count} texts, ")
    numbers = [int(line.split()[0]) for line in lines]
    assert numbers == sorted(numbers)
    if task not in ("question-answering", "sentence-similarity"):
        list(mg.pipeline(task, folders[task], **OPTIONS.get(task, {}), **options)(iter(texts)))
        assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == ["4 of 5 texts", "5 of 5 texts"]
        list(mg.pipeline(task, folders[task], progress=False)(text for text in ["[MASK]"]))
        list(mg.pipeline(task, folders[task])(text for text in ["[MASK]"]))
        assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == ["1 texts"]


def test_without_the_bars_library(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    predict = mg.pipeline("text-classification", folders["text-classification"])
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert len(predict(TEXTS)) == len(TEXTS)  # a line now and then is written without it
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(MissingExtraError, match="pip install tqdm"):
        predict(TEXTS)


def test_large_scores_do_not_overflow(folders: dict[str, Path]) -> None:
    folder = folders["text-classification"]
    model = mg.models.load(folder)
    model.classifier.bias.assign(np.array([-500, 500, 0, 1, -1e4, 1e4], np.float32))
    scores = TextClassification(model, mg.data.Tokenizer.from_pretrained(folder), top_k=None, function_to_apply="sigmoid")("x")
    found = {entry["label"]: entry["score"] for entry in scores}
    assert found["O"] < 1e-100 or found["O"] == 0
    assert found["B-PER"] == found["MISC"] == 1 and found["I-LOC"] == 0


# ---------------------------------------------------------------- windows
def without_context(folder: Path, kind: str) -> Any:
    """A model that reads every token alone, so that windows can change nothing."""
    model = mg.models.load(directory(folder, kind, id2label=LABELS))
    for name, parameter in model.named_parameters():
        if "position" in name or "attention.output.dense" in name:
            parameter.assign(np.zeros(parameter.shape, np.float32))
    return model


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_windows_lose_and_cut_no_entity(tmp_path: Path, strategy: str) -> None:
    model, tokenizer = without_context(tmp_path, "BertForTokenClassification"), mg.data.Tokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, f"{TEXTS[0]} {TEXTS[1]}", ""]
    whole = TokenClassification(model, tokenizer, aggregation_strategy=strategy)
    for size in (3, 7, 20):
        cut = TokenClassification(model, tokenizer, aggregation_strategy=strategy, max_length=size)
        for stride in (None, 0, (size - 2) // 3):
            assert close(cut(texts, stride=stride), whole(texts))
    long = " ".join(TEXTS * 4)
    (found,) = whole([long], ignore_labels=())
    assert len(tokenizer.encode([long])[0]) > 96 and found[0]["start"] == 0 and found[-1]["end"] == len(long.rstrip())
    with pytest.raises(ArgumentError, match="stride must lie between 0 and 93, as text 1 leaves 94 tokens"):
        whole(["x", long], stride=94)
    with pytest.raises(ArgumentError, match="text 0 leaves no room for text: 2 other tokens of 2"):
        TokenClassification(model, tokenizer, max_length=2)(["x"])


# ---------------------------------------------------------------- fill-mask
def test_targets(folders: dict[str, Path]) -> None:
    predict = mg.pipeline("fill-mask", folders["fill-mask"])
    every = {entry["token_str"]: entry for entry in predict(MASKED[0], top_k=10**6)}
    for targets in (["pump", "Berlin", "berlin"], "nurse", ("##ed", "x")):
        found = predict(MASKED[0], targets=targets)
        assert found == sorted(found, key=lambda entry: -entry["score"])
        names = {name.lower() for name in ([targets] if isinstance(targets, str) else targets)}
        assert {predict.tokenizer.convert_ids_to_tokens([entry["token"]])[0] for entry in found} == names
        assert all(close(entry, every[entry["token_str"]]) for entry in found), "scores are not shared out anew"
    for targets, words in (
        (["leaking"], r"the target 'leaking' is no single token of the vocabulary; its tokens: 'leak', '##ing'"),
        (["漢"], "is no single token .* 'UNK"),
        ([""], "its tokens: none"),
        ([], "targets must hold a word"),
        (7, "pass a text"),
    ):
        with pytest.raises(ArgumentError, match=words.replace("'UNK", r"'\[UNK")):
            predict(MASKED[0], targets=targets)
    with pytest.raises(DTypeError):
        predict(MASKED[0], targets=[7])


def test_a_vocabulary_larger_than_the_model(tmp_path: Path) -> None:
    folder = directory(tmp_path, "BertForMaskedLM")
    tokens = (folder / "vocab.txt").read_text(encoding="utf-8") + "spare\n"
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    (folder / "vocab.txt").write_text(tokens, encoding="utf-8")
    predict = mg.pipeline("fill-mask", folder)
    assert len(predict("a [MASK]", top_k=10**6)) == len(tokens.split()) - 1
    with pytest.raises(ArgumentError, match=r"the target 'spare' has the id \d+, but the model knows \d+ tokens"):
        predict("a [MASK]", targets="spare")


# ---------------------------------------------------------------- question answering
def test_no_answer_is_an_answer_if_wished(folders: dict[str, Path]) -> None:
    predict = mg.pipeline("question-answering", folders["question-answering"], top_k=10**6)
    some, all_ = predict("Who?", TEXTS[4]), predict("Who?", TEXTS[4], handle_impossible_answer=True)
    (none,) = [answer for answer in all_ if not answer["answer"]]
    assert close([answer for answer in all_ if answer["answer"]], some) and (none["start"], none["end"]) == (0, 0)
    assert sum(answer["score"] for answer in all_) < 1 and 0 < none["score"] < 1


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


@pytest.mark.parametrize("task", ["text-classification", "fill-mask", "feature-extraction"])
def test_texts_beyond_the_model_are_named_or_cut(task: str, folders: dict[str, Path]) -> None:
    texts = ["short [MASK]", "[MASK]" + " pump" * 200]
    ways = r"mg\.pipeline\(\.\.\., max_length=96\), on the command line --max-length 96"
    with pytest.raises(InputError, match=f"^text 1 has 203 tokens, this model reads 96: .* {ways}$") as caught:
        mg.pipeline(task, folders[task])(texts)
    assert caught.value.code == "too-long" and (caught.value.name, caught.value.number) == ("text", 1)
    assert caught.value.reason.startswith("has 203 tokens")
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
        ("question-answering", ["Who? " * 99, "a"], {}, "question 0 leaves no room for text: .* tokens of 96"),
        ("question-answering", [["Who?", "Where?"], ["a"]], {}, "question and context must have equal lengths, got 2 and 1"),
        ("question-answering", ["Who?", None], {}, "got NoneType"),
        ("text-classification", [None], {}, "pass a text or a list of texts, got NoneType"),
        ("feature-extraction", [b"text"], {}, "pass a text or a list of texts, got bytes"),
        ("fill-mask", [np.array("text")], {}, "pass a text or a list of texts, got ndarray"),
        ("text-classification", [TEXTS], {"top_k": True}, "top_k must be an integer of at least 1, got True"),
        ("token-classification", [TEXTS], {"ignore_labels": "O"}, "ignore_labels must be a list of labels, got 'O'"),
        ("token-classification", [TEXTS], {"ignore_labels": None}, "ignore_labels must be a list of labels, got None"),
        ("question-answering", ["Who?", "a " * 200], {"stride": 95}, "stride must lie between 0 and"),
        ("question-answering", ["Who?", "a"], {"stride": -1}, "stride must be an integer of at least 0"),
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
    with pytest.raises(ArgumentError, match="does not take 'inputs'; it takes no options"):
        mg.pipeline("feature-extraction", folders["feature-extraction"], inputs="a")
    with pytest.raises(DTypeError, match=r"context\[0\] must be a string, got int"):
        mg.pipeline("question-answering", folders["question-answering"])("Who?", [7])
    with pytest.raises(DTypeError, match=r"texts\[1\] must be a string, got int"):
        mg.pipeline("fill-mask", folders["fill-mask"])(["[MASK]", 7])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("task", KINDS)
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # NumPy's word for what is made here on purpose
def test_broken_weights_give_no_answer(task: str, value: float, folders: dict[str, Path]) -> None:
    """They must not pass for "no entities" or for the first word of the context."""
    predict = mg.pipeline(task, folders[task], **OPTIONS.get(task, {}))
    for name, parameter in predict.model.named_parameters():
        if name.endswith("bias"):
            parameter.assign(np.full(parameter.shape, value, np.float32))
    inputs = {"question-answering": ("Who?", "Maria"), "sentence-similarity": ("Maria", ["Berlin"])}.get(task, ("Maria [MASK]",))
    with pytest.raises(NonFiniteError, match="the model's answer holds NaN or infinities: its weights are broken"):
        predict(*inputs)


@pytest.mark.parametrize(
    ("kind", "task", "words"),
    [
        ("BertForSequenceClassification", "token-classification", "its classifier was trained for sequence-classification, not for"),
        ("BertForMultipleChoice", "text-classification", "its classifier was trained for multiple-choice, not for"),
        ("BertForTokenClassification", "text-classification", "'bert.pooler.dense.bias' would be random"),
    ],
)
def test_a_classifier_of_another_kind_is_not_taken_for_the_tasks(tmp_path: Path, kind: str, task: str, words: str) -> None:
    """Their weights have the same names and shapes."""
    folder = directory(tmp_path, kind, id2label={0: "a"})
    with pytest.raises(WeightFileError, match=words) as caught:
        mg.pipeline(task, folder)
    assert caught.value.code == "no-head"
