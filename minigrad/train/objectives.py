"""Objectives, the losses that a training step minimises: means over the items of a whole step, computed part by part.

The loss of a step is the sum over its items divided by their number. A part of the step contributes its own sum, divided by the
count of the whole, so the parts' losses and gradients add up to those of the step, however unequal the parts are.

An item without a label is ignored: its label is -100 if labels are classes, and NaN if they are numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minigrad import functional as F
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, IndexRangeError, ShapeError
from minigrad.files import quoted
from minigrad.models.losses import IGNORED
from minigrad.tensor import Tensor

Count: TypeAlias = float | Tensor
"""The divisor of a sum: a number, or in a captured step a tensor () on the GPU."""


class Objective(ABC):
    """A loss that is a mean over items."""

    ignored: ClassVar[float | None] = None
    """The label of items that add nothing and are not counted, so that batches can be padded with them: -100 (integers) or NaN (floats),
    None if there is no such label."""

    @abstractmethod
    def count(self, batch: Batch) -> float:
        """The divisor of the sum over the items of `batch`; 0 if it has none."""

    @abstractmethod
    def share(self, model: Any, part: Batch, count: Count) -> Tensor:
        """The sum over the items of `part`, divided by `count`. Shapes: → ().

        Items with the label `ignored` must add nothing, and the result may depend only on the model, the part and the objective's
        attributes: it is captured once, on a batch padded with such items, and replayed for other batches and counts, until an
        attribute is another object. So replace lists and arrays, and do not change them. A class with its own `loss` is not captured.
        """

    def loss(self, model: Any, part: Batch, whole: Batch) -> Tensor:
        """The part's share of the loss of the whole step. Shapes: → ()."""
        return self.share(model, part, self.count(whole))

    def terms(self) -> Sequence[tuple[float, Objective]]:
        """The (weight, objective) pairs of a weighted sum: just this objective, except for a mixture. No term is itself a sum of terms."""
        return [(1.0, self)]

    def made_of(self) -> list[Objective]:
        """This objective and all objectives nested in it, as parts or attributes; each once."""
        found: list[Objective] = [self]
        for objective in found:  # the list grows during the loop
            parts = [part for _, part in objective.parts] if isinstance(objective, Mixed) else []
            for held in (*parts, *vars(objective).values()):
                if isinstance(held, Objective) and all(held is not known for known in found):
                    found.append(held)
        return found

    def place(self, device: str) -> None:  # noqa: B027 - most have no arrays
        """Copy the arrays that `share` reads to the model's device, before a capture: nothing can be copied there during one."""


def weighted(shares: Sequence[tuple[float, Tensor]]) -> Tensor:
    """The sum of weights times shares, added in order. Shapes: () each → (). Raises: ArgumentError for no shares."""
    if not shares:
        raise ArgumentError("no part of this mixture has an item in the batch, so there is no loss")
    first, *others = (share if weight == 1 else share * weight for weight, share in shares)
    return sum(others, first)


def has_own_loss(objective: Objective) -> bool:
    """Whether its class overrides `loss`, which then need not be its share (or, for a mixture, the weighted sum of its terms)."""
    return getattr(objective.loss, "__func__", None) not in (Objective.loss, Mixed.loss)


def padding_label(terms: Sequence[tuple[float, Objective]]) -> float | None:
    """The label, in `Batch.labels`, that none of the terms counts. None if a term ignores neither -100 nor NaN."""
    labels = [objective.ignored for _, objective in terms]
    known = [label for label in labels if label is not None and (label == IGNORED or isnan(label))]
    return None if len(known) < len(labels) else next(filter(isnan, known), IGNORED)


@dataclass(frozen=True)
class LossOf:
    """The loss function of a team: the objective's loss of a model."""

    model: Any
    objective: Objective

    def __call__(self, part: Batch, whole: Batch) -> Tensor:
        return self.objective.loss(self.model, part, whole)


class _Classes(Objective):
    """Cross-entropy with class weights and label smoothing.

    class_weights: (classes,), None for all 1; the mean divides by the sum of the labels' weights. label_smoothing: ε makes the target
    (1 - ε) · one-hot + ε / classes (Szegedy et al., arXiv 1512.00567).
    Raises: ArgumentError for weights that are negative, not finite or all 0, and a smoothing outside 0 … 1.
    """

    ignored = IGNORED

    def __init__(self, class_weights: ArrayLike | None = None, label_smoothing: float = 0.0) -> None:
        self.class_weights = None if class_weights is None else np.array(class_weights, np.float32)  # a private copy
        if self.class_weights is not None and not (
            self.class_weights.ndim == 1
            and np.isfinite(self.class_weights).all()
            and (self.class_weights >= 0).all()
            and self.class_weights.any()
        ):
            raise ArgumentError(f"class_weights must be finite numbers of at least 0, one a class, not all 0; got {quoted(class_weights)}")
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(f"label_smoothing lies between 0 and 1, got {label_smoothing!r}")
        if self.class_weights is not None:
            self.class_weights.setflags(write=False)
        self.label_smoothing = label_smoothing
        self._placed: tuple[NDArray[np.float32], Tensor] | None = None

    def place(self, device: str) -> None:
        if self.class_weights is not None and device != "cpu":
            self._placed = self.class_weights, Tensor(self.class_weights, device=device)

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

    def share(self, model: Any, part: Batch, count: Count) -> Tensor:
        return self.rows(model(part.tokens).logits, part, denominator=count)

    def rows(self, logits: Tensor, part: Batch, **how: Any) -> Tensor:
        """The loss of logits against the labels of `part`. how: options of `functional.cross_entropy`."""
        labels = Tensor.wrap(self._labels(part))  # without a copy: a batch does not change during its step
        weights: Any = self.class_weights
        if self._placed is not None and self._placed[0] is weights and logits.device != "cpu":
            weights = self._placed[1]
        return F.cross_entropy(logits, labels, weights, IGNORED, label_smoothing=self.label_smoothing, **how)


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


def _sum_of_known(loss: Callable[..., Tensor], logits: Tensor, labels: NDArray[Any]) -> Tensor:
    """The sum of the losses of the logits whose label is not NaN; other logits may be anything. Shapes: (*s), (*s) → ()."""
    given = Tensor(labels, dtype=logits.dtype, device=logits.device)
    if logits.device == "cpu" and not np.isnan(labels).any():
        return loss(logits, given, reduction="sum")
    missing = F.isnan(given)
    losses = loss(F.where(missing, 0.0, logits), F.where(missing, 0.0, given), reduction="none")
    return F.where(missing, 0.0, losses).sum()


class SequenceNumbers(Objective):
    """Mean squared error against one number for each sequence: Batch.labels (sequences,), NaN for none. The model gives logits
    (sequences, 1)."""

    ignored = nan

    def count(self, batch: Batch) -> float:
        return float(len(batch.tokens.packing) if batch.labels is None else np.count_nonzero(~np.isnan(batch.labels)))

    def share(self, model: Any, part: Batch, count: Count) -> Tensor:
        logits = model(part.tokens).logits.reshape((-1,))
        if part.labels is None or part.labels.shape != logits.shape:
            raise ShapeError("this objective needs a batch with labels, one number for each sequence, and a model with one label")
        return _sum_of_known(F.mse_loss, logits, part.labels) / count


_CHOICES = "this objective needs a batch with labels, zeros and ones for each sequence and class"


class SequenceChoices(Objective):
    """Multi-label classification, yes or no for each class: Batch.labels (sequences, classes) of zeros and ones, NaN for neither. Binary
    cross-entropy."""

    ignored = nan

    def count(self, batch: Batch) -> float:
        if batch.labels is None or batch.labels.ndim != 2:
            raise ShapeError(_CHOICES)
        wrong = batch.labels[(batch.labels < 0) | (batch.labels > 1)]
        if wrong.size:
            raise IndexRangeError(
                f"a label of several classes at once lies between 0 (no) and 1 (yes), or is NaN for neither; got {wrong[0]}"
            )
        return float(np.count_nonzero(~np.isnan(batch.labels)))

    def share(self, model: Any, part: Batch, count: Count) -> Tensor:
        logits = model(part.tokens).logits
        if part.labels is None or part.labels.shape != logits.shape:
            raise ShapeError(f"{_CHOICES}, and a model with as many classes")
        return _sum_of_known(F.bce_with_logits, logits, part.labels) / count


class Mixed(Objective):
    """A weighted sum of several objectives over the same batches, each a mean over its own items.

    parts: (weight, objective) pairs; a nested mixture is replaced by its own parts, with both weights multiplied. Parts without items in a
    batch are left out. For a model with several heads, use objectives that call it differently.
    Raises: ArgumentError for no parts, and weights that are not above 0.
    """

    def __init__(self, parts: Sequence[tuple[float, Objective]]) -> None:
        self.parts = tuple(parts)
        if not self.parts or not all(np.isfinite(weight) and weight > 0 for weight, _ in self.parts):
            raise ArgumentError(f"Mixed takes (weight, objective) pairs with weights above 0, got {parts!r:.120}")

    def count(self, batch: Batch) -> float:
        return sum(objective.count(batch) for _, objective in self.parts)

    def share(self, model: Any, part: Batch, count: Count) -> Tensor:
        raise ArgumentError("the parts of a Mixed objective count their own items: call loss(model, part, whole)")

    def loss(self, model: Any, part: Batch, whole: Batch) -> Tensor:
        return weighted([(weight, term.loss(model, part, whole)) for weight, term in self.terms() if term.count(whole) > 0])

    def terms(self) -> Sequence[tuple[float, Objective]]:
        return [
            (weight * inner, term)
            for weight, objective in self.parts
            for inner, term in ([(1.0, objective)] if has_own_loss(objective) else objective.terms())
        ]
