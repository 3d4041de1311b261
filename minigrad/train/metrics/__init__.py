"""Metrics of predictions, their confidence intervals, and tests of whether two models differ: one module for each kind of score."""

from minigrad.train.metrics.answers import AnswerScores, answer_f1, answer_scores, exact_match, normalised_answer
from minigrad.train.metrics.bootstrap import Comparison, Interval, bootstrap, paired_bootstrap
from minigrad.train.metrics.classification import (
    accuracy,
    classification_report,
    confusion_matrix,
    f1,
    matthews_correlation,
    precision,
    recall,
)
from minigrad.train.metrics.compare import McNemar, mcnemar
from minigrad.train.metrics.entities import (
    NerReport,
    entity_counts,
    entity_f1,
    entity_precision,
    entity_recall,
    ner_report,
    tag_accuracy,
    tag_counts,
    tag_f1_macro,
)
from minigrad.train.metrics.groups import GroupReport, GroupScore, by_group
from minigrad.train.metrics.multi_label import multi_label_f1, subset_accuracy
from minigrad.train.metrics.probabilities import log_loss, roc_auc
from minigrad.train.metrics.regression import (
    mean_absolute_error,
    mean_squared_error,
    pearson,
    r2,
    root_mean_squared_error,
    spearman,
)
from minigrad.train.metrics.report import ClassificationReport, ClassScores, EntityReport
from minigrad.train.metrics.summaries import HIGHER_IS_BETTER, classification_metrics, multi_label_metrics, ner_metrics, regression_metrics

__all__ = [
    "HIGHER_IS_BETTER", "AnswerScores", "ClassScores", "ClassificationReport", "Comparison", "EntityReport", "GroupReport", "GroupScore",
    "Interval", "McNemar", "NerReport", "accuracy", "answer_f1", "answer_scores", "bootstrap", "by_group", "classification_metrics",
    "classification_report", "confusion_matrix", "entity_counts", "entity_f1", "entity_precision", "entity_recall", "exact_match", "f1",
    "log_loss", "matthews_correlation", "mcnemar", "mean_absolute_error", "mean_squared_error", "multi_label_f1", "multi_label_metrics",
    "ner_metrics", "ner_report", "normalised_answer", "paired_bootstrap", "pearson", "precision", "r2", "recall", "regression_metrics",
    "roc_auc", "root_mean_squared_error", "spearman", "subset_accuracy", "tag_accuracy", "tag_counts", "tag_f1_macro",
]  # fmt: skip
