"""Tasks: how each kind encodes its records, which objective it minimises, and which metrics judge its results.

`task` is the base class, `texts` and `words` are the tasks, `kinds` finds them by name.
"""

from minigrad.train.tasks.kinds import KINDS, task_of, task_of_model
from minigrad.train.tasks.task import Evaluation, Examples, Task, require_labels
from minigrad.train.tasks.texts import MultiLabelClassification, Regression, SequenceClassification
from minigrad.train.tasks.words import TokenClassification

__all__ = [
    "KINDS", "Evaluation", "Examples", "MultiLabelClassification", "Regression", "SequenceClassification", "Task", "TokenClassification",
    "require_labels", "task_of", "task_of_model",
]  # fmt: skip
