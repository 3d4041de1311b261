"""The metrics equal scikit-learn's, seqeval's and SciPy's on random cases, degenerate ones among them.

`HYPOTHESIS_PROFILE=thorough` runs 10,000 cases of each family, otherwise 200; `-s` prints how many and the largest difference.
"""

from __future__ import annotations

import math
import os
import string
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from minigrad.train import metrics
from minigrad.train.metrics import ClassificationReport, ClassScores, EntityReport

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, the `oracle` extra")
stats = pytest.importorskip("scipy.stats", reason="needs SciPy, which scikit-learn brings")
# The oracles warn of every degenerate case, of which there are many.
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

CASES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 200
AVERAGES = ("micro", "macro", "weighted")
Ints = NDArray[np.int64]
T = TypeVar("T")


class Tally:
    """Compares case by case, and says at the end how many there were and how far apart the furthest were."""

    def __init__(self, family: str, tolerance: float) -> None:
        self.family, self.tolerance = family, tolerance
        self.cases, self.worst = 0, 0.0

    def __iter__(self) -> Iterator[tuple[int, np.random.Generator]]:
        for case in range(CASES):
            yield case, np.random.default_rng(case)
            self.cases += 1

    def equal(self, ours: object, theirs: object, what: object) -> None:
        one, other = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
        assert one.shape == other.shape and (np.isnan(one) == np.isnan(other)).all(), (what, one, other)
        apart = float(np.max(np.nan_to_num(np.abs(one - other)), initial=0.0))
        assert apart <= self.tolerance, (what, one, other)
        self.worst = max(self.worst, apart)

    def finish(self) -> None:
        assert self.cases == CASES
        print(f"\n{self.family}: {self.cases:,} cases, largest difference {self.worst:.1e}")


def some_classes(case: int, generator: np.random.Generator, least: int = 1) -> tuple[Ints, Ints, int]:
    """Labels, predictions and the number of classes; in turn of any kind, of one label, of one prediction, and all right."""
    classes, size = int(generator.integers(least, 7)), int(generator.integers(1, 60))
    labels = generator.integers(0, classes, size)
    predictions = np.where(generator.random(size) < 0.5, labels, generator.integers(0, classes, size))
    match case % 8:
        case 1:
            labels = np.full(size, classes - 1)
        case 2:
            predictions = np.full(size, classes - 1)
        case 3:
            predictions = labels.copy()
    return labels, predictions, classes


def rows(report: ClassificationReport | EntityReport) -> list[list[float]]:
    """Of the classes, as scikit-learn and seqeval give them: precision, recall, F1 and support, each a row."""
    return [[getattr(scores, name) for scores in report.classes.values()] for name in ("precision", "recall", "f1", "support")]


def four(scores: ClassScores) -> list[float]:
    return [scores.precision, scores.recall, scores.f1, scores.support]


def test_classification() -> None:
    tally = Tally("classification", 1e-13)  # a few roundings of a mean over at most 6 classes, or of a root
    theirs = sklearn_metrics.precision_recall_fscore_support
    for case, generator in tally:
        labels, predictions, classes = some_classes(case, generator)
        report = metrics.classification_report(labels, predictions, [str(i) for i in range(classes)])
        average = ("none", "macro", "weighted", "micro", "occurring")[case % 5]
        match average:
            case "none":
                tally.equal(rows(report), theirs(labels, predictions, labels=range(classes), zero_division=0), case)
            case "macro" | "weighted":
                expected = theirs(labels, predictions, labels=range(classes), average=average, zero_division=0)
                tally.equal(four(getattr(report, average))[:3], expected[:3], case)
            case _:
                average = "micro" if average == "micro" else AVERAGES[case // 5 % 3]  # over the classes that occur
                ours = [score(labels, predictions, average=average) for score in (metrics.precision, metrics.recall, metrics.f1)]
                tally.equal(ours, theirs(labels, predictions, average=average, zero_division=0)[:3], case)
        match case % 3:
            case 0:
                tally.equal(report.accuracy, sklearn_metrics.accuracy_score(labels, predictions), case)
            case 1:
                tally.equal(metrics.matthews_correlation(labels, predictions), sklearn_metrics.matthews_corrcoef(labels, predictions), case)
            case _:
                matrix = sklearn_metrics.confusion_matrix(labels, predictions, labels=range(classes))
                tally.equal(metrics.confusion_matrix(labels, predictions, classes), matrix, case)
    tally.finish()


def test_probabilities() -> None:
    tally = Tally("ROC-AUC and log-loss", 1e-13)  # scikit-learn adds up to 60 trapezia, and logarithms of up to 36
    for case, generator in tally:
        labels, _, classes = some_classes(case, generator, least=2)
        scores = generator.integers(0, 4, (len(labels), classes)) + (generator.random((len(labels), classes)) if case % 3 else 0.5)
        table = scores / scores.sum(axis=1, keepdims=True)  # every third case is full of ties
        if case % 4 == 0:
            table = np.eye(classes)[generator.integers(0, classes, len(labels))]  # of zeros and ones
        tally.equal(metrics.log_loss(labels, table), sklearn_metrics.log_loss(labels, table, labels=range(classes)), case)
        absent = len(np.unique(labels)) < classes
        if case % 2:
            binary = np.where(labels == 0, 0, 1)
            tally.equal(metrics.roc_auc(binary, table[:, 0]), sklearn_metrics.roc_auc_score(binary, table[:, 0]), case)
        elif absent:
            assert math.isnan(metrics.roc_auc(labels, table))  # scikit-learn refuses some of these and warns of the others
        elif classes > 2:
            average = ("macro", "weighted")[case // 2 % 2]
            expected = sklearn_metrics.roc_auc_score(labels, table, multi_class="ovr", average=average, labels=range(classes))
            tally.equal(metrics.roc_auc(labels, table, average=average), expected, case)
    tally.finish()


def test_multi_label() -> None:
    tally = Tally("multi-label", 1e-13)  # a few roundings of a mean over at most 6 labels
    for case, generator in tally:
        shape = generator.integers(1, 20), generator.integers(2, 7)  # scikit-learn takes one column for a binary task
        labels, predictions = (generator.random(shape) < share for share in generator.choice([0.0, 0.2, 0.5, 1.0], 2))
        if case % 4 == 0:
            predictions = labels ^ (generator.random(shape) < 0.1)
        average = AVERAGES[case % 3]
        expected = sklearn_metrics.f1_score(labels, predictions, average=average, zero_division=0)
        tally.equal(metrics.multi_label_f1(labels, predictions, average=average), expected, case)
        tally.equal(metrics.subset_accuracy(labels, predictions), sklearn_metrics.accuracy_score(labels, predictions), case)
    tally.finish()


def test_regression() -> None:
    tally = Tally("regression", 1e-13)  # sums of up to 60 numbers of up to 200 in another order
    for case, generator in tally:
        size = int(generator.integers(2, 60))
        labels, predictions = generator.normal(0, 3, size), generator.normal(0, 3, size)
        match case % 6:
            case 1:
                labels, predictions = np.round(labels), np.round(predictions)  # ties
            case 2:
                labels = np.full(size, labels[0])
            case 3:
                predictions = np.full(size, predictions[0])
            case 4:
                predictions = labels * float(generator.choice([-2.0, 1.0])) + float(generator.choice([0.0, 1.0]))
        ours = metrics.regression_metrics(labels, predictions)
        mse = sklearn_metrics.mean_squared_error(labels, predictions)
        expected = [mse, math.sqrt(mse), sklearn_metrics.mean_absolute_error(labels, predictions)]
        tally.equal([ours["mse"], ours["rmse"], ours["mae"]], expected, case)
        # An R2 far below zero is large, so it is compared by its size.
        r2 = sklearn_metrics.r2_score(labels, predictions)
        tally.equal(ours["r2"] / max(1.0, abs(r2)), r2 / max(1.0, abs(r2)), case)
        expected = [stats.pearsonr(labels, predictions).statistic, stats.spearmanr(labels, predictions).statistic]
        tally.equal([ours["pearson"], ours["spearman"]], expected, case)
    tally.finish()


def some_tags(generator: np.random.Generator, choice: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags of a few sentences, any tag after any other; in a third of the cases mostly right."""
    lengths = generator.integers(1, 8, generator.integers(1, 7))
    gold = [[choice[i] for i in generator.integers(0, len(choice), n)] for n in lengths]
    wrong = float(generator.choice([0.1, 0.6, 1.0]))
    predicted = [[tag if generator.random() > wrong else str(generator.choice(choice)) for tag in tags] for tags in gold]
    return gold, predicted


def flat(rows: Iterable[list[T]]) -> list[T]:
    return [item for row in rows for item in row]


@pytest.mark.parametrize("mode", ["default", "strict"])
def test_entities_and_tags(mode: str) -> None:
    pytest.importorskip("seqeval", reason="needs seqeval, the `oracle` extra")
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as default
    from seqeval.metrics.v1 import precision_recall_fscore_support as strict
    from seqeval.scheme import IOB2

    family = "entities (default) and tags" if mode == "default" else "entities (strict)"
    tally = Tally(family, 1e-13)  # a few roundings of a mean over at most 11 classes
    choice = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-X", "I-X"] + (["E-PER", "S-PER", "E-LOC", "S-LOC"] if mode == "default" else [])
    for case, generator in tally:
        # Now and then too few tags for any entity.
        gold, predicted = some_tags(generator, choice[: int(generator.choice([1, 2, 3, 5, len(choice)]))])
        report = metrics.ner_report(gold, predicted, mode=mode)

        def theirs(average: str | None, gold: object = gold, predicted: object = predicted) -> tuple[object, ...]:
            if mode == "default":
                return tuple(default(gold, predicted, average=average, zero_division=0))
            return tuple(strict(gold, predicted, average=average, zero_division=0, scheme=IOB2))

        tally.equal(rows(report.entity), theirs(None), case)
        average = AVERAGES[case % 3]
        if report.entity.classes:  # seqeval has no mean over no types
            tally.equal(four(getattr(report.entity, average)), theirs(average), case)
        if mode == "strict":  # the tags are counted in the same way
            continue
        true, said = flat(gold), flat(predicted)
        scores = sklearn_metrics.precision_recall_fscore_support
        if case % 2:
            tally.equal(rows(report.token), scores(true, said, zero_division=0), case)
            assert list(report.token.classes) == sorted({*true, *said})
        else:
            average = AVERAGES[1 + case // 2 % 2]
            expected = scores(true, said, average=average, zero_division=0)
            tally.equal(four(getattr(report.token, average))[:3], expected[:3], case)
            tally.equal(report.token.accuracy, float(np.mean(np.array(true) == np.array(said))), case)
    tally.finish()


def test_the_printed_reports_of_a_large_case() -> None:
    """seqeval's and scikit-learn's own reports, on more data than the cases above have."""
    seqeval = pytest.importorskip("seqeval.metrics", reason="needs seqeval, the `oracle` extra")
    generator = np.random.default_rng(0)
    pairs = [some_tags(generator, ["O", "O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"]) for _ in range(200)]
    gold, predicted = flat(pair[0] for pair in pairs), flat(pair[1] for pair in pairs)
    report = metrics.ner_report(gold, predicted)
    entities = seqeval.classification_report(gold, predicted, output_dict=True, zero_division=0)
    tokens = sklearn_metrics.classification_report(flat(gold), flat(predicted), output_dict=True, zero_division=0)
    averages = {"macro avg": "macro", "weighted avg": "weighted", "micro avg": "micro"}
    assert tokens.pop("accuracy") == report.token.accuracy
    for ours, theirs in ((report.entity, entities), (report.token, tokens)):
        found = {name: getattr(ours, averages[name]) if name in averages else ours.classes[name] for name in theirs}
        assert len(found) == len(ours.classes) + (3 if ours is report.entity else 2)
        for name, scores in found.items():
            # Tolerance: a few roundings of a mean over 5 classes.
            np.testing.assert_allclose(four(scores), [theirs[name][k] for k in ("precision", "recall", "f1-score", "support")], rtol=1e-13)


def test_answers() -> None:
    """F1 of words that may repeat is scikit-learn's F1 of the set of (word, how manieth); all cases make one table, a column for each."""
    tally = Tally("answers", 1e-15)  # one quotient, written differently
    vocabulary = ["red", "old", "theatre", "a", "the", "an", "tower", "7"]
    plain = {word for word in vocabulary if word not in ("a", "an", "the")}
    keys = [(word, k) for word in sorted(plain) for k in range(7)]
    pairs: list[tuple[list[bool], list[bool]]] = []
    cases: list[tuple[float, float, list[int]]] = []

    def dressed(words: list[str], generator: np.random.Generator) -> str:
        """The words with letters, punctuation and white space that normalisation undoes."""
        text = ""
        for word in words:
            word = word.upper() if generator.random() < 0.3 else word
            at = int(generator.integers(0, len(word) + 1))
            mark = string.punctuation[int(generator.integers(0, 32))] if generator.random() < 0.3 else ""
            text += word[:at] + mark + word[at:] + str(generator.choice([" ", "  ", "\t", " \n"]))
        return text

    def flags(words: list[str]) -> list[bool]:
        return [words.count(word) > k for word, k in keys]

    for _, generator in tally:
        texts = [[str(w) for w in generator.choice(vocabulary, generator.integers(0, 6))] for _ in range(int(generator.integers(1, 5)))]
        if generator.random() < 0.3:
            texts[0] = list(texts[-1])
        answer, *gold = texts
        # What the publication's script scores: gold answers of words only, and "" where there are none.
        kept = [[word for word in text if word in plain] for text in gold]
        kept = [text for text in kept if text] or [[]]
        given = [dressed(text, generator) for text in gold]
        said = dressed(answer, generator)
        answer = [word for word in answer if word in plain]
        assert metrics.normalised_answer(said) == " ".join(answer)
        cases.append((metrics.exact_match(said, given), metrics.answer_f1(said, given), list(range(len(pairs), len(pairs) + len(kept)))))
        pairs += [(flags(text), flags(answer)) for text in kept]
        assert cases[-1][0] == float(answer in kept)
    true, predicted = (np.array(side).T for side in zip(*pairs, strict=True))
    shares = sklearn_metrics.f1_score(true, predicted, average=None, zero_division=1)  # neither has words: 1
    for number, (_, ours, columns) in enumerate(cases):
        tally.equal(ours, shares[columns].max(), number)
    tally.finish()


def test_mcnemar() -> None:
    tally = Tally("McNemar", 1e-13)  # SciPy sums the tail by a continued fraction
    for case, generator in tally:
        chance = generator.dirichlet(np.ones(4))
        kinds = generator.choice(4, int(generator.integers(1, 120)), p=chance)
        a, b = (kinds == 0) | (kinds == 2), (kinds == 1) | (kinds == 2)
        found, only_a, only_b = metrics.mcnemar(a, b), int((kinds == 0).sum()), int((kinds == 1).sum())
        assert (found.only_a, found.only_b) == (only_a, only_b)
        n = only_a + only_b
        if n >= 25:
            tally.equal(found.p_value, stats.chi2.sf(max(abs(only_a - only_b) - 1, 0) ** 2 / n, df=1), case)
        else:
            tally.equal(found.p_value, stats.binomtest(only_a, n).pvalue if n else 1.0, case)
    tally.finish()


def test_bootstrap() -> None:
    """SciPy's percentile interval from the same seed, which draws the same records."""
    tally = Tally("bootstrap", 1e-13)  # roundings of a mean, of an interpolation
    for case, generator in tally:
        n, resamples, seed = int(generator.integers(2, 20)), int(generator.integers(2, 12)), case
        labels, predictions = generator.normal(size=n), generator.normal(size=n)
        ours = metrics.bootstrap(metrics.mean_absolute_error, labels, predictions, resamples=resamples, level=0.9, seed=seed)
        theirs = stats.bootstrap(
            (labels, predictions),
            lambda a, b, axis: np.abs(a - b).mean(axis=axis),
            n_resamples=resamples,
            paired=True,
            vectorized=True,
            confidence_level=0.9,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        tally.equal([ours.low, ours.high], list(theirs.confidence_interval), case)
    tally.finish()
