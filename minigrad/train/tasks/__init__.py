"""What is learned, from records to figures: how a kind of task encodes its records, what it minimises, and how its results are judged.

`task` is what all have in common, `texts` and `words` are those there are, `kinds` knows them by name.
"""

from minigrad.train.tasks.kinds import KINDS, task_of, task_of_model
from minigrad.train.tasks.task import Evaluation, Examples, Task, require_labels
from minigrad.train.tasks.texts import MultiLabelClassification, Regression, SequenceClassification
from minigrad.train.tasks.words import TokenClassification

__all__ = [
    "KINDS", "Evaluation", "Examples", "MultiLabelClassification", "Regression", "SequenceClassification", "Task", "TokenClassification",
    "require_labels", "task_of", "task_of_model",
]  # fmt: skip
