"""The classification metrics equal scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from minigrad.train.metrics import ClassScores, accuracy, classification_report

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, the `oracle` extra")
pytestmark = pytest.mark.oracle


# The last two cases have classes that are never the label and never predicted.
@pytest.mark.parametrize(("classes", "size"), [(2, 50), (7, 1000), (30, 40), (5, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(classes: int, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, size)
    predictions = np.where(generator.random(size) < 0.6, labels, generator.integers(0, classes, size))
    names = [f"class {i}" for i in range(classes)]
    report = classification_report(labels, predictions, names)
    expected = sklearn_metrics.classification_report(
        labels, predictions, labels=range(classes), target_names=names, output_dict=True, zero_division=0.0
    )
    # With every class listed scikit-learn names the accuracy as such only if all of them occur.
    assert report.accuracy == accuracy(labels, predictions) == sklearn_metrics.accuracy_score(labels, predictions)

    def check(scores: ClassScores, theirs: dict[str, float]) -> None:
        ours = [scores.precision, scores.recall, scores.f1, scores.support]
        # Tolerance: a few roundings of a mean over at most 30 classes.
        np.testing.assert_allclose(ours, [theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"]], rtol=1e-13)

    for name in names:
        check(report.classes[name], expected[name])
    check(report.macro, expected["macro avg"])
    check(report.weighted, expected["weighted avg"])
