"""The tasks: rows of predictions and figures that are what one gets by hand, long texts, pairs, and data that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernels.cuda import recording
from small_models import directory
from train.captured.test_steps import CONFIG
from train.runs import records as rows_of

import minigrad as mg
from minigrad.data import Record, Tokenizer
from minigrad.data.loader import PackedLoader
from minigrad.data.records import Entity, LabelMap
from minigrad.errors import ArgumentError, DataError, NonFiniteError
from minigrad.models import BertConfig, BertForSequenceClassification
from minigrad.packing import PackedTokens
from minigrad.train.tasks import KINDS, Examples, Task, task_of, task_of_model
from minigrad.workers.replicas import forget_graphs


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory(tmp_path_factory.mktemp("model"), "BertModel")


@pytest.fixture(scope="module")
def tokenizer(model_directory: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(model_directory)


def some(count: int = 20, **changes: Any) -> list[Record]:
    """Records with labels and entities, unless `changes` says otherwise."""
    found = []
    for i, row in enumerate(rows_of(count, 7)):
        entities = tuple(Entity(e["start"], e["end"], e["type"]) for e in row["entities"])
        values = {"text": row["text"], "label": row["label"], "entities": entities} | changes
        found.append(Record(path="data.jsonl", line=i + 1, fields=row, **values))
    return found


def model_of(model_directory: Path, task: Task) -> Any:
    mg.manual_seed(1)
    return mg.models.load(model_directory, task.head, **task.options())


def probabilities(model: Any, tokenizer: Tokenizer, *texts: str) -> np.ndarray:
    """Of one text or pair, read alone."""
    encoding = tokenizer.encode([texts[0]], pairs=[texts[1]] if len(texts) == 2 else None)[0]
    with model.evaluating(), mg.no_grad():
        logits = model(PackedTokens.of([encoding.ids], [encoding.type_ids])).logits.numpy().astype(np.float64)
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("pairs", [False, True])
def test_rows_and_figures_of_classes(model_directory: Path, tokenizer: Tokenizer, pairs: bool) -> None:
    records = some(text_b="the nurse works well") if pairs else some()
    task = task_of("sequence-classification", records)
    model = model_of(model_directory, task)
    found = task.evaluate(model, task.examples(tokenizer, records, 64))
    assert task.labels is not None and task.labels.names == ("person", "thing")
    for i, (row, record) in enumerate(zip(found.predictions, records, strict=True)):
        p = probabilities(model, tokenizer, record.text, *((record.text_b,) if record.text_b else ()))[0]
        assert (row["row"], row["text"], row.get("text_b"), row["label"]) == (i, record.text, record.text_b, record.label)
        assert list(row["probabilities"]) == ["person", "thing"]
        np.testing.assert_allclose(list(row["probabilities"].values()), p, atol=1e-5)  # float32, in a batch and alone
        assert row["prediction"] == ("person", "thing")[int(p.argmax())]
        assert row["score"] == row["probabilities"][row["prediction"]]
        assert row["loss"] == pytest.approx(-np.log(row["probabilities"][record.label]), rel=1e-9)
    assert found.metrics["accuracy"] == np.mean([row["label"] == row["prediction"] for row in found.predictions])
    assert found.metrics["loss"] == pytest.approx(found.metrics["log_loss"], rel=1e-9)
    assert tuple(found.metrics) == task.figures


def test_rows_and_figures_of_several_classes_at_once(model_directory: Path, tokenizer: Tokenizer) -> None:
    records = [Record(r.text, ("", "a", "b, a", "c,b")[i % 4], r.path, r.line, r.fields) for i, r in enumerate(some())]
    task = task_of("multi-label-classification", records)
    assert task.labels is not None and task.labels.names == ("a", "b", "c") and task.label_counts(records) == {"a": 10, "b": 10, "c": 5}
    model = model_of(model_directory, task)
    assert model.config.problem_type == "multi_label_classification"
    found = task.evaluate(model, task.examples(tokenizer, records, 64))
    for i, row in enumerate(found.predictions):
        encoding = tokenizer.encode([row["text"]])[0]
        with model.evaluating(), mg.no_grad():
            (logits,) = model(PackedTokens.of([encoding.ids])).logits.numpy().astype(np.float64)
        p = 1 / (1 + np.exp(-logits))
        assert row["labels"] == ([], ["a"], ["a", "b"], ["b", "c"])[i % 4]
        np.testing.assert_allclose(list(row["probabilities"].values()), p, atol=1e-5)  # float32, in a batch and alone
        assert row["predictions"] == [name for name, probability in row["probabilities"].items() if probability > 0.5]
        given = np.array([name in row["labels"] for name in task.labels.names])
        assert row["loss"] == pytest.approx(-np.log(np.where(given, p, 1 - p)).mean(), rel=1e-4)
    assert found.metrics["subset_accuracy"] == np.mean([row["labels"] == row["predictions"] for row in found.predictions])
    assert tuple(found.metrics) == task.figures
    batch = next(iter(task.examples(tokenizer, records, 64, batch_size=20).loader.epoch(0)))
    with model.evaluating(), mg.no_grad():
        loss = task.objective.loss(model, batch, batch).item()
    assert loss == pytest.approx(found.metrics["loss"], rel=1e-5), "what is evaluated is what is learned"


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_says_what_it_was_trained_for(model_directory: Path, tmp_path: Path, kind: str) -> None:
    task = task_of(kind, some())
    if task.head == "sequence-classification":  # the checkpoint was trained for something else
        mg.models.load(model_directory, task.head, problem_type="multi_label_classification").save_pretrained(tmp_path / "published")
        Tokenizer.from_pretrained(model_directory).save_pretrained(tmp_path / "published")
    model = model_of(tmp_path / "published" if (tmp_path / "published").exists() else model_directory, task)
    model.save_pretrained(tmp_path / "trained")
    again = task_of_model(mg.models.load(tmp_path / "trained"))
    assert type(again) is type(task) and again.options() == task.options()


def test_one_label_of_several_is_enough_and_none_is_not() -> None:
    records = some(label="")
    with pytest.raises(DataError, match="no record has a label") as caught:
        task_of("multi-label-classification", records)
    assert caught.value.code == "one-label"
    assert task_of("multi-label-classification", [*records, *some(1, label="a|b,")], label_separator="|").labels == LabelMap(("a", "b,"))


def test_rows_and_figures_of_numbers(model_directory: Path, tokenizer: Tokenizer) -> None:
    records = [Record(r.text, str(i / 4), r.path, r.line, r.fields) for i, r in enumerate(some())]
    task = task_of("regression", records)
    found = task.evaluate(model_of(model_directory, task), task.examples(tokenizer, records, 64))
    true, said = (np.array([row[key] for row in found.predictions]) for key in ("label", "prediction"))
    np.testing.assert_array_equal(true, np.arange(20) / 4)
    assert found.metrics["mse"] == pytest.approx(np.mean((true - said) ** 2)) == found.metrics["loss"]
    assert found.metrics["pearson"] == pytest.approx(np.corrcoef(true, said)[0, 1])
    assert "score" not in found.predictions[0] and tuple(found.metrics) == task.figures


def test_rows_and_figures_of_tags(model_directory: Path, tokenizer: Tokenizer) -> None:
    records = some()
    task = task_of("token-classification", records)
    assert task.labels is not None and task.labels.names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    model = model_of(model_directory, task)
    found = task.evaluate(model, task.examples(tokenizer, records, 64))
    for row, record in zip(found.predictions, records, strict=True):
        words = record.text.split()
        assert [record.text[start:end] for start, end in row["words"]] == words
        assert row["tags"] == [{"berlin": "B-LOC", "maria": "B-PER"}.get(word, "O") for word in words]
        p = probabilities(model, tokenizer, record.text)[1:-1]  # each word is one piece
        np.testing.assert_allclose(row["scores"], p.max(axis=1), atol=1e-5)
        assert row["predicted"] == [task.labels.names[i] for i in p.argmax(axis=1)]
        gold = [task.labels.names.index(tag) for tag in row["tags"]]
        assert row["loss"] == pytest.approx(-np.log(p[np.arange(len(words)), gold]).sum(), rel=1e-4)
    right = [a == b for row in found.predictions for a, b in zip(row["tags"], row["predicted"], strict=True)]
    assert found.metrics["token_accuracy"] == pytest.approx(np.mean(right)) and tuple(found.metrics) == task.figures


def test_long_texts_are_read_in_windows_and_every_word_is_answered(model_directory: Path, tokenizer: Tokenizer) -> None:
    text = " ".join(["pump", "maria", "berlin", "well"] * 20)
    record = Record(text, None, "data.jsonl", 1, {}, entities=(Entity(5, 10, "PER"),))
    task = task_of("token-classification", some(), stride=4)
    examples = task.examples(tokenizer, [record], 16)
    assert len(examples.windows) > 5 and max(map(len, examples.loader.sequences)) <= 16
    (row,) = task.evaluate(model_of(model_directory, task), examples).predictions
    assert len(row["words"]) == len(row["tags"]) == len(row["predicted"]) == len(row["scores"]) == 80
    assert row["tags"] == ["O", "B-PER", *["O"] * 78]
    assert sum((labels != -100).sum() for labels in examples.loader.token_labels or []) == 80, "each word is learned once"


def test_a_second_text_has_no_tags(tokenizer: Tokenizer) -> None:
    task = task_of("token-classification", some())
    with pytest.raises(DataError, match="second text") as caught:
        task.examples(tokenizer, some(text_b="and another"), 16)
    assert caught.value.code == "second-text"


def test_long_texts_of_classes_are_cut_and_counted(tokenizer: Tokenizer) -> None:
    records = some(text="pump leak " * 40)
    examples = task_of("sequence-classification", records).examples(tokenizer, records, 16)
    assert examples.truncated == 20 and all(len(sequence) == 16 for sequence in examples.loader.sequences)


@pytest.mark.parametrize("kind", KINDS)
def test_records_without_labels(model_directory: Path, tokenizer: Tokenizer, kind: str) -> None:
    bare = some(3, label=None, entities=None)
    task = task_of(kind, some())
    model, examples = model_of(model_directory, task), task.examples(tokenizer, bare, 64)
    with model.evaluating(), mg.no_grad():
        rows = task.predict(model, examples)
    assert [row["row"] for row in rows] == [0, 1, 2] and not any(key in row for row in rows for key in ("label", "tags", "loss"))
    with pytest.raises(DataError, match=r"data\.jsonl: has no (labels|entities) to compare with") as caught:
        task.evaluate(model, examples)
    assert caught.value.code == "missing-label"


@pytest.mark.parametrize("kind", KINDS)
def test_scores_that_are_no_numbers(model_directory: Path, tokenizer: Tokenizer, kind: str) -> None:
    records = some(label="1") if kind == "regression" else some()
    task = task_of(kind, records)
    model = model_of(model_directory, task)
    model.classifier.bias.assign(np.full(model.classifier.bias.shape, np.nan, np.float32))
    with pytest.raises(NonFiniteError, match="scores are not finite"):
        task.evaluate(model, task.examples(tokenizer, records, 64))


def test_evaluations_in_a_row_share_their_graphs(gpu: type[recording.Recorder]) -> None:
    """A graph sees the weights that a training has changed; on the way out it goes, also after an error."""
    records, labels = some(4), LabelMap(("person", "thing", "plant"))
    task, model = task_of("sequence-classification", labels=labels), BertForSequenceClassification(BertConfig(**CONFIG)).train().to("cuda")
    examples = Examples(records, PackedLoader([range(n) for n in (5, 9, 3, 4)], labels.ids(records)))
    with pytest.raises(ArgumentError, match="over"), task.keeping_graphs(model):
        for evaluation in range(5):
            model.classifier.bias.assign(np.arange(3, dtype=np.float32) * evaluation)
            found = task.evaluate(model, examples).metrics["loss"]
        assert len(gpu.lengths) == 1
        raise ArgumentError("over")
    assert not forget_graphs()
    assert found == pytest.approx(task.evaluate(model, examples).metrics["loss"], rel=1e-6)  # float32, of a batch that is filled up or not
    assert len(gpu.lengths) == 1


def test_labels_that_training_does_not_know(tokenizer: Tokenizer) -> None:
    task = task_of("sequence-classification", some())
    with pytest.raises(DataError, match=r"data\.jsonl:1: the label 'plant' does not occur in training"):
        task.examples(tokenizer, some(2, label="plant"), 64)
    tags = task_of("token-classification", some())
    with pytest.raises(DataError, match=r"data\.jsonl:1: the tag 'B-ORG' does not occur in training"):
        tags.examples(tokenizer, some(2, text="pump leak", entities=(Entity(0, 4, "ORG"),)), 64)
    with pytest.raises(DataError, match="is no finite number"):
        task_of("regression").examples(tokenizer, some(2), 64)


def test_some_records_with_a_second_text_and_some_without(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="second text") as caught:
        task_of("sequence-classification", some()).examples(tokenizer, [*some(2, text_b="pump"), *some(1)], 64)
    assert caught.value.code == "bad-pair"


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    records = [*some(3, label="a"), *some(1, label="b"), *some(4, label="c")]
    task = task_of("sequence-classification", records, class_weights="balanced")
    np.testing.assert_allclose(task.objective.class_weights, [8 / (3 * n) for n in (3, 1, 4)], rtol=1e-6)  # type: ignore[attr-defined]


def test_arguments_that_do_not_fit() -> None:
    for weights in ("inverse", [1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(ArgumentError, match='must be "balanced" or a number for each of'):
            task_of("sequence-classification", some(), class_weights=weights)
    with pytest.raises(ArgumentError, match="for tags give a list"):
        task_of("token-classification", some(), class_weights="balanced")
    with pytest.raises(ArgumentError, match="must be one of 'sequence-classification'"):
        task_of("classification", some())
    with pytest.raises(ArgumentError, match="pass some, or the labels"):
        task_of("sequence-classification")
    with pytest.raises(DataError, match="nothing to learn"):
        task_of("sequence-classification", some(label="a"))
    with pytest.raises(DataError, match="has no label"):
        task_of("sequence-classification", some(label=None))
    assert task_of("sequence-classification", labels=LabelMap(("x", "y"))).options() == {
        "id2label": {0: "x", 1: "y"},
        "problem_type": "single_label_classification",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_examples_are_made_of(kind: str, tokenizer: Tokenizer, model_directory: Path) -> None:
    rows: Any = [{"text": "a", "label": "x"}]
    with pytest.raises(ArgumentError, match=r"`records_from\(rows\)` makes them of dicts"):
        task_of(kind, rows)
    with pytest.raises(ArgumentError, match="records must be a list"):
        task_of(kind, rows[0])
    task = task_of(kind, labels=LabelMap(("0", "1")))
    with pytest.raises(ArgumentError, match=r"`records_from\(rows\)` makes them of dicts"):
        task.examples(tokenizer, rows, 16)
    with pytest.raises(ArgumentError, match="there are no records"):
        task.examples(tokenizer, [], 16)
    for other in (str(model_directory), model_directory, None):
        with pytest.raises(ArgumentError, match="examples are made by a tokenizer"):
            task.examples(other, some(2), 16)  # type: ignore[arg-type]
