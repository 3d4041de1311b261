"""Scores of entities and of tags, by examples worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minigrad.errors import ArgumentError, DTypeError, MinigradError, ShapeError
from minigrad.train.metrics import (
    ClassScores,
    entity_counts,
    entity_f1,
    entity_precision,
    entity_recall,
    ner_report,
    tag_accuracy,
    tag_counts,
    tag_f1_macro,
)

GOLD = [["B-PER", "I-PER", "O", "B-LOC"], [], ["O", "B-PER"]]
PREDICTED = [["B-PER", "I-PER", "O", "B-ORG"], [], ["B-PER", "I-PER"]]


def test_report_by_hand() -> None:
    report = ner_report(GOLD, PREDICTED)
    assert report.entity.classes == {
        "LOC": ClassScores(0.0, 0.0, 0.0, 1),
        "ORG": ClassScores(0.0, 0.0, 0.0, 0),
        "PER": ClassScores(1 / 2, 1 / 2, 1 / 2, 2),  # the second begins a word early
    }
    assert report.entity.micro == ClassScores(1 / 3, 1 / 3, 2 / 6, 3)
    assert report.entity.macro.f1 == pytest.approx(1 / 6, rel=1e-15)  # the order of the sum is not fixed
    assert report.entity.weighted.f1 == pytest.approx(1 / 3, rel=1e-15)
    assert report.token.accuracy == 3 / 6
    assert report.token.classes["B-PER"] == ClassScores(1 / 2, 1 / 2, 1 / 2, 2)
    assert report.token.classes["I-PER"] == ClassScores(1 / 2, 1.0, 2 / 3, 1)
    assert list(report.token.classes) == ["B-LOC", "B-ORG", "B-PER", "I-PER", "O"]


def test_an_inside_tag_without_a_beginning() -> None:
    gold, predicted = [["O", "B-PER", "I-PER"]], [["O", "I-PER", "I-PER"]]
    assert ner_report(gold, predicted).entity.micro.f1 == 1.0
    strict = ner_report(gold, predicted, mode="strict").entity
    assert strict.micro == ClassScores(0.0, 0.0, 0.0, 1)
    assert ner_report(predicted, predicted, mode="strict").entity.classes == {}
    # A type that changes inside: two entities by default, in strict mode only the first has a beginning.
    assert entity_counts([["B-PER", "I-LOC"]], [["B-PER", "I-LOC"]])[0] == ["LOC", "PER"]
    assert entity_counts([["B-PER", "I-LOC"]], [["B-PER", "I-LOC"]], mode="strict")[0] == ["PER"]


def test_spans_that_end_elsewhere_are_wrong() -> None:
    assert ner_report([["B-PER", "I-PER"]], [["B-PER", "B-PER"]]).entity.micro == ClassScores(0.0, 0.0, 0.0, 1)
    assert ner_report([["B-PER", "O"]], [["B-PER", "I-PER"]]).entity.micro.f1 == 0.0


def test_counts_by_sentence() -> None:
    types, counts = entity_counts(GOLD, PREDICTED)
    assert types == ["LOC", "ORG", "PER"]
    np.testing.assert_array_equal(counts, [[[0, 0, 1], [0, 1, 0], [1, 1, 1]], [[0, 0, 0]] * 3, [[0, 0, 0], [0, 0, 0], [0, 1, 1]]])
    report = ner_report(GOLD, PREDICTED)
    micro = report.entity.micro
    assert (entity_f1(counts), entity_precision(counts), entity_recall(counts)) == (micro.f1, micro.precision, micro.recall)
    assert entity_f1(counts[:1]) == 2 * 1 / (2 + 2)
    tags = tag_counts(GOLD, PREDICTED)[1]
    assert (tag_accuracy(tags), tag_f1_macro(tags)) == (report.token.accuracy, report.token.macro.f1)


def test_without_entities_all_is_zero() -> None:
    report = ner_report([["O", "O"]], [["O", "O"]])
    assert report.entity.classes == {} and report.entity.micro == report.entity.macro == ClassScores(0.0, 0.0, 0.0, 0)
    assert report.token.accuracy == 1.0
    assert entity_f1(entity_counts([["O"]], [["O"]])[1]) == 0.0
    assert "micro average" in str(report)


def test_table_and_dict() -> None:
    report = ner_report(GOLD, PREDICTED)
    lines = str(report).splitlines()
    assert lines[0].split() == ["entities", "|", "tags"]
    left, right = zip(*(line.split(" | ") for line in lines if " | " in line), strict=True)
    assert left[2].split() == ["LOC", "0.0000", "0.0000", "0.0000", "1"]
    assert right[2].split() == [
        "B-LOC",
        "0.0000",
        "0.0000",
        "0.0000",
        "1",
    ]
    assert left[-3].split() == ["micro", "average", "0.3333", "0.3333", "0.3333", "3"]
    assert right[-3].split() == ["accuracy", "0.5000", "6"]
    assert left[-1].split()[:2] == right[-1].split()[:2] == ["weighted", "average"]
    assert len({line.index("|") for line in lines}) == 1
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["entity"]["micro"] == {"precision": 1 / 3, "recall": 1 / 3, "f1": 2 / 6, "support": 3}
    assert plain["token"]["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("gold", "predicted", "error", "words"),
    [
        ([["O"]], [["O"], ["O"]], ShapeError, "equally many sentences, got 1 and 2"),
        ([["O"], ["O", "O", "O"]], [["O"], ["O", "O"]], ShapeError, r"sentence 1 has 3 gold tag\(s\) and 2 predicted"),
        ([["O"], ["O", -100]], [["O"], ["O", "O"]], DTypeError, "sentence 1 of the gold tags: tag 1 must be a string .* got -100"),
        ([["O", "O"]], [["O", "-100"]], ArgumentError, "sentence 0 of the predicted tags, word 1: the tag '-100'"),
        ([["O", ""]], [["O", "O"]], ArgumentError, "sentence 0 of the gold tags, word 1: the tag ''"),
        ([["X"]], [["O"]], ArgumentError, "the tag 'X'"),
        ([["B-"]], [["O"]], ArgumentError, "the tag 'B-'"),
        ([], [], ArgumentError, "no tags"),
        ([[]], [[]], ArgumentError, "no tags"),
        (["O"], ["O"], DTypeError, "sentence 0 of the gold tags must be a sequence of tags, got 'O'"),
        ("O", "O", DTypeError, "gold must be a sequence of sentences"),
        (None, [["O"]], DTypeError, "gold must be a sequence of sentences"),
    ],
)
def test_refused(gold: object, predicted: object, error: type[MinigradError], words: str) -> None:
    for call in (ner_report, entity_counts, tag_counts):
        with pytest.raises(error, match=words):
            call(gold, predicted)  # type: ignore[operator]


def test_strict_mode_reads_iob2_alone() -> None:
    assert ner_report([["S-PER"]], [["S-PER"]]).entity.micro.f1 == 1.0
    with pytest.raises(ArgumentError, match="word 0: the tag 'S-PER' is none of IOB2"):
        ner_report([["S-PER"]], [["S-PER"]], mode="strict")
    with pytest.raises(ArgumentError, match="mode must be one of 'default', 'strict', got 'lenient'"):
        ner_report([["O"]], [["O"]], mode="lenient")
