"""What a training step minimises: losses over the items of a whole step, computed part by part.

The loss of a step is the sum over its items divided by how many there are. A part of the step contributes its own sum, divided by the
count of the whole, so the parts' losses and gradients add up to those of the step, however unequal the parts are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad import functional as F
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, IndexRangeError, ShapeError
from minigrad.files import quoted
from minigrad.models.losses import IGNORED
from minigrad.tensor import Tensor


class Objective(ABC):
    """A loss that is a mean over items."""

    ignores: ClassVar[bool] = False
    """Whether an item with the label -100 adds nothing, so that batches can be filled up with such."""

    @abstractmethod
    def count(self, batch: Batch) -> float:
        """What the sum over the items of `batch` is divided by; 0 if it has none."""

    @abstractmethod
    def share(self, model: Any, part: Batch, count: float) -> Tensor:
        """The sum over the items of `part`, divided by `count`. Shapes: → ().

        It is linear in 1 / count, adds nothing for an item with the label -100 where `ignores` is set, and depends on the model, the part
        and the objective's attributes alone: a captured step computes it once with the count 1, on a batch filled up with such items, and
        replays that with other batches. A class with a `loss` of its own is not captured.
        """

    def loss(self, model: Any, part: Batch, whole: Batch) -> Tensor:
        """The part's share of the loss of the whole step. Shapes: → ()."""
        return self.share(model, part, self.count(whole))


@dataclass(frozen=True)
class LossOf:
    """What a team makes smaller: the objective's loss of a model."""

    model: Any
    objective: Objective

    def __call__(self, part: Batch, whole: Batch) -> Tensor:
        return self.objective.loss(self.model, part, whole)


class _Classes(Objective):
    """Cross-entropy, with weights of the classes and label smoothing.

    class_weights: (classes,), None for all 1; the mean divides by the sum of the labels' weights. label_smoothing ε makes the target
    (1 - ε) · one-hot + ε / classes (Szegedy et al., arXiv 1512.00567).
    Raises: ArgumentError for weights that are negative, not finite or all 0, and a smoothing outside 0 … 1.
    """

    ignores = True

    def __init__(self, class_weights: ArrayLike | None = None, label_smoothing: float = 0.0) -> None:
        self.class_weights = None if class_weights is None else np.asarray(class_weights, np.float32)
        if self.class_weights is not None and not (
            self.class_weights.ndim == 1
            and np.isfinite(self.class_weights).all()
            and (self.class_weights >= 0).all()
            and self.class_weights.any()
        ):
            raise ArgumentError(f"class_weights must be finite numbers of at least 0, one a class, not all 0; got {quoted(class_weights)}")
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(f"label_smoothing lies between 0 and 1, got {label_smoothing!r}")
        self.label_smoothing = label_smoothing

    @abstractmethod
    def _labels(self, batch: Batch) -> NDArray[np.int64]:
        """The label of every row of the logits."""

    def count(self, batch: Batch) -> float:
        labels = self._labels(batch)
        labels = labels[labels != IGNORED]
        if self.class_weights is None:
            return float(len(labels))
        wrong = labels[(labels < 0) | (labels >= len(self.class_weights))]
        if wrong.size:
            raise IndexRangeError(f"the label {wrong[0]} is none of the {len(self.class_weights)} classes that have a weight")
        return float(self.class_weights[labels].sum(dtype=np.float64))

    def share(self, model: Any, part: Batch, count: float) -> Tensor:
        return self.rows(model(part.tokens).logits, part, denominator=count)

    def rows(self, logits: Tensor, part: Batch, **how: Any) -> Tensor:
        """The loss of the labels of `part`; how: as `functional.cross_entropy`."""
        labels = Tensor.wrap(self._labels(part))  # a batch stays as it is while its step is made
        return F.cross_entropy(logits, labels, self.class_weights, IGNORED, label_smoothing=self.label_smoothing, **how)


class SequenceClasses(_Classes):
    """One class for each sequence: Batch.labels (sequences,), -100 for none. The model gives logits (sequences, classes)."""

    def _labels(self, batch: Batch) -> NDArray[np.int64]:
        if batch.labels is None or batch.labels.ndim != 1:
            raise ShapeError("this objective needs a batch with labels, one class for each sequence")
        return batch.labels


class TokenClasses(_Classes):
    """One class for each labelled token: Batch.token_labels (rows,), -100 for none. The model gives logits (rows, classes)."""

    def _labels(self, batch: Batch) -> NDArray[np.int64]:
        if batch.token_labels is None:
            raise ShapeError("this objective needs a batch with token_labels, one class (or -100) for each token")
        return batch.token_labels


class SequenceNumbers(Objective):
    """The squared difference from one number for each sequence: Batch.labels (sequences,). The model gives logits (sequences, 1)."""

    def count(self, batch: Batch) -> float:
        return float(len(batch.tokens.packing))

    def share(self, model: Any, part: Batch, count: float) -> Tensor:
        logits = model(part.tokens).logits.reshape((-1,))
        if part.labels is None or part.labels.shape != logits.shape:
            raise ShapeError("this objective needs a batch with labels, one number for each sequence, and a model with one label")
        return F.mse_loss(logits, Tensor(part.labels, dtype=logits.dtype, device=logits.device), reduction="sum") / count


class SequenceChoices(Objective):
    """Several classes at once, yes or no for each: Batch.labels (sequences, classes) of zeros and ones. Binary cross-entropy."""

    def count(self, batch: Batch) -> float:
        if batch.labels is None or batch.labels.ndim != 2:
            raise ShapeError("this objective needs a batch with labels, zeros and ones for each sequence and class")
        return float(batch.labels.size)

    def share(self, model: Any, part: Batch, count: float) -> Tensor:
        logits = model(part.tokens).logits
        return F.bce_with_logits(logits, Tensor(part.labels, dtype=logits.dtype, device=logits.device), reduction="sum") / count


class Mixed(Objective):
    """A weighted sum of several objectives over the same batches, each a mean over its own items.

    parts: (weight, objective) pairs. A model of several heads is told apart by objectives that call it differently.
    Raises: ArgumentError for no parts, and weights that are not above 0.
    """

    def __init__(self, parts: Sequence[tuple[float, Objective]]) -> None:
        self.parts = list(parts)
        if not self.parts or not all(np.isfinite(weight) and weight > 0 for weight, _ in self.parts):
            raise ArgumentError(f"Mixed takes (weight, objective) pairs with weights above 0, got {parts!r:.120}")

    def count(self, batch: Batch) -> float:
        return sum(objective.count(batch) for _, objective in self.parts)

    def share(self, model: Any, part: Batch, count: float) -> Tensor:
        raise ArgumentError("the parts of a Mixed objective count their own items: call loss(model, part, whole)")

    def loss(self, model: Any, part: Batch, whole: Batch) -> Tensor:
        shares = [objective.loss(model, part, whole) * weight for weight, objective in self.parts if objective.count(whole) > 0]
        return F.stack(shares).sum()
