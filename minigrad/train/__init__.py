"""Fine-tuning from start to finish: settings, objectives, tasks, the trainer, its checkpoints and events, metrics and reports."""

from minigrad.train.average import Average
from minigrad.train.captured.ahead import StepResult
from minigrad.train.checkpoints.contents import Checkpoint
from minigrad.train.checkpoints.store import CheckpointStore
from minigrad.train.config import RunConfig
from minigrad.train.events import JsonLog, Progress, TensorBoard
from minigrad.train.loss_scale import LossScaler
from minigrad.train.metrics import (
    ClassificationReport,
    NerReport,
    accuracy,
    bootstrap,
    by_group,
    classification_metrics,
    classification_report,
    mcnemar,
    ner_metrics,
    ner_report,
    paired_bootstrap,
    regression_metrics,
)
from minigrad.train.objectives import LossOf, Mixed, Objective, SequenceChoices, SequenceClasses, SequenceNumbers, TokenClasses
from minigrad.train.reports.report import write_report
from minigrad.train.run import Run
from minigrad.train.settings import TrainingSettings
from minigrad.train.tasks import MultiLabelClassification, Regression, SequenceClassification, Task, TokenClassification, task_of
from minigrad.train.team import Team
from minigrad.train.trainer import Trainer, TrainingResult

__all__ = [
    "Average", "Checkpoint", "CheckpointStore", "ClassificationReport", "JsonLog", "LossOf", "LossScaler", "Mixed",
    "MultiLabelClassification", "NerReport", "Objective", "Progress", "Regression", "Run", "RunConfig", "SequenceChoices",
    "SequenceClasses", "SequenceClassification", "SequenceNumbers", "StepResult", "Task", "Team", "TensorBoard", "TokenClasses",
    "TokenClassification", "Trainer", "TrainingResult", "TrainingSettings", "accuracy", "bootstrap", "by_group", "classification_metrics",
    "classification_report", "mcnemar", "ner_metrics", "ner_report", "paired_bootstrap", "regression_metrics", "task_of", "write_report",
]  # fmt: skip
