"""The tensors that a module owns: Parameters, which an optimizer changes in place, and Buffers, which are saved but not trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self
from weakref import ref

import numpy as np

from minigrad.backend import Array, device_of, to_device
from minigrad.backend.dtypes import refuse_masked
from minigrad.backend.gradients import dense
from minigrad.errors import DTypeError, ShapeError
from minigrad.tape import Leaf, rerunning
from minigrad.tensor import Tensor, TensorLike


def _rebuilt(data: Array, requires_grad: bool, device: str, gathered: bool, name: str) -> Parameter:
    parameter = Parameter(data, requires_grad, device=device, gathered=gathered)
    parameter.leaf.name = name
    return parameter


def _no_owner() -> None:
    """Stands for the weak reference to the arena, in a parameter that no optimizer holds."""


def array_for(tensor: Tensor, data: Any) -> Array:
    """`data` as an array: arrays of numbers are returned as they are, on any device; other data is converted to the tensor's dtype.

    Raises: DTypeError for data that are not numbers, or a masked array with masked entries.
    """
    source = data.array if isinstance(data, Tensor) else data
    refuse_masked(source)
    known = getattr(getattr(source, "dtype", None), "kind", None) in ("f", "i", "u", "b")
    return source if known else Tensor(source, dtype=tensor.dtype).array


def _checked_array(data: Any, tensor: Tensor, name: str) -> Array:
    """The array of `data`, of any dtype and device. Raises: ShapeError if it does not have the tensor's shape; DTypeError."""
    source = array_for(tensor, data)
    if tuple(source.shape) != tensor.shape:
        raise ShapeError(f"cannot assign an array of shape {tuple(source.shape)} to {name} of shape {tensor.shape}")
    return source


class Ledger(Protocol):
    """Updates that an optimizer has put off for rows of a parameter (weight decay of rows that no batch has touched)."""

    def settle(self) -> None:
        """Bring all rows up to date."""

    def settle_rows(self, ids: Any) -> None:
        """Bring the rows `ids` up to date."""


class Parameter(Tensor):
    """A tensor that a Module owns and an optimizer changes.

    `requires_grad` can be switched at any time, to freeze or train the parameter. `gathered` marks a table that is read by rows (an
    embedding): an optimizer may keep its gradient and moments by rows.

    A parameter changes in place: `data` and `numpy()` are read-only views that follow it, `detach()` and `copy.deepcopy` are copies that
    do not. `copy.deepcopy` makes an independent parameter with the same numbers, name and flags, but without gradient and optimizer.

    Raises: DTypeError for data that are not floats.
    """

    __slots__ = ("_owner", "gathered", "leaf", "ledger")

    def __init__(
        self, data: Any, requires_grad: bool = True, dtype: Any = None, device: str | None = None, *, gathered: bool = False
    ) -> None:
        super().__init__(data, dtype=dtype, device=device)
        if self.dtype.kind != "f":
            raise DTypeError(f"a parameter must be floating, got {self.dtype}")
        self._init_leaf(requires_grad, gathered)

    @classmethod
    def around(cls, array: Array, gathered: bool = False) -> Parameter:
        """A parameter around a floating array that nobody else will write to; nothing is copied."""
        parameter = Parameter.__new__(Parameter)
        parameter._array = array
        parameter._init_leaf(True, gathered)
        return parameter

    def _init_leaf(self, requires_grad: bool, gathered: bool) -> None:
        self.gathered = gathered
        self.ledger: Ledger | None = None
        self._owner: Callable[[], Any] = _no_owner
        self.leaf = Leaf("", self.shape, self.dtype)
        self.node = self.leaf if requires_grad else None

    @property
    def array(self) -> Array:
        """The array itself, for reading inside minigrad, once the optimizer's pending updates are applied."""
        if self.ledger is not None:
            self.ledger.settle()
        return self._array

    def array_for_rows(self, ids: Any) -> Array:
        """The array, with pending updates applied to rows `ids` only: no others may be read."""
        if self.ledger is not None:
            self.ledger.settle_rows(ids.array if isinstance(ids, Tensor) else ids)
        return self._array

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated so far, or None. The returned tensor does not change when a later backward pass adds or overwrites."""
        if self.leaf.grad is None:
            return None
        array = dense(self.leaf.grad)
        return Tensor.wrap(array.copy() if self.leaf.grad is self.leaf.view else array)

    @grad.setter
    def grad(self, gradient: TensorLike | None) -> None:
        """Replace the accumulated gradient by a copy of `gradient` (clipped, noisy or projected, for example); None discards it.

        Raises: ShapeError if the shape differs; DTypeError for data that are not numbers, or a masked array with masked entries.
        """
        given = None if gradient is None else to_device(_checked_array(gradient, self, f"the gradient of {self._label}"), self.device)
        self.zero_grad()
        if given is not None:
            self.leaf.accumulate(given.astype(self.dtype))

    def zero_grad(self) -> None:
        """Discard the accumulated gradient."""
        self.leaf.grad = None

    @property
    def name(self) -> str:
        """The parameter's path in its model, once a Module has named it."""
        return self.leaf.name

    @property
    def _label(self) -> str:
        """How error messages refer to it."""
        return f"parameter {self.name}" if self.name else "a parameter"

    def detach(self) -> Tensor:
        """A copy of the current numbers, because a parameter changes in place and the detached tensor must not."""
        return Tensor.wrap(self.array.copy())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (np.array(self.numpy()), self.requires_grad, self.device, self.gathered, self.name)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train (True) or freeze (False) this parameter; returns it."""
        self.node = self.leaf if requires_grad else None
        return self

    def assign(self, data: Any) -> None:
        """Overwrite the numbers in place, keeping dtype and device. Graphs recorded before can no longer be differentiated.

        Raises: ShapeError if the shape differs; DTypeError for data that are not numbers, or a masked array with masked entries.
        """
        source = _checked_array(data, self, self._label)
        target = self.array
        target[...] = to_device(source, device_of(target))
        self.leaf.version += 1

    @property
    def owner(self) -> Any:
        """The arena of the optimizer that holds this parameter, or None if there is none (any more)."""
        return self._owner()

    @owner.setter
    def owner(self, arena: Any) -> None:
        self._owner = ref(arena)

    def replace_storage(self, array: Array) -> None:
        """Use another array: an arena's view with the same numbers, or the result of a conversion, for which a new leaf is made."""
        converted = array.dtype != self._array.dtype or device_of(array) != device_of(self._array)
        self._array = array
        if converted:
            old, trained = self.leaf, self.node is not None
            old.version += 1  # invalidates graphs recorded before, which lead to the old leaf
            self.ledger = None
            self.leaf = Leaf(old.name, self.shape, self.dtype)
            self.leaf.hooks, self.leaf.version = old.hooks, old.version  # versions only grow, so that none occurs twice
            self.node = self.leaf if trained else None


def lay_out(flat: Array, parameters: Sequence[Parameter]) -> None:
    """Make parameters consecutive views of a flat array, which holds their numbers already (or these converted)."""
    start = 0
    for parameter in parameters:
        parameter.replace_storage(flat[start : start + parameter.size].reshape(parameter.shape))
        start += parameter.size


class Buffer(Tensor):
    """A tensor that a Module keeps and saves but does not train: a running mean, a count of batches. It may hold integers.

    `assign` replaces the array instead of writing to it: graphs recorded before keep the old array and stay valid, and views taken
    earlier do not follow. `copy.deepcopy` makes an independent buffer.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), super().__reduce__()[1]

    def assign(self, data: Any) -> None:
        """Replace the numbers by a copy of `data`, keeping dtype and device.

        Raises: ShapeError if the shape differs; DTypeError for data that are not numbers, or a masked array with masked entries.
        """
        source = _checked_array(data, self, "a buffer")
        if not rerunning.get():  # the second run of `recompute` must not repeat what the first has done
            self.replace_storage(to_device(source, self.device).astype(self.dtype))

    def replace_storage(self, array: Array) -> None:
        """Use another array of the same shape: the result of a conversion."""
        self._array = array
