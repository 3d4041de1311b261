"""Around the training loop: metrics and reports."""

from minigrad.train.metrics import ClassificationReport, accuracy, classification_report

__all__ = ["ClassificationReport", "accuracy", "classification_report"]
