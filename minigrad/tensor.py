"""Tensor: an immutable array that remembers how it was computed.

Methods use NumPy's names for arrays (`axis`, `keepdims`) and PyTorch's for training (`backward`, `grad`, `requires_grad`). There are
no in-place operators and no item assignment. `==` is identity (`functional.equal` compares elements); `<`, `<=`, `>` and `>=` compare
elementwise. This module and `ops` import each other, because operators are operations; it is the only such cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from minigrad.autograd import propagate
from minigrad.backend import (
    FLOAT_DTYPES,
    Array,
    check_device,
    cuda_namespace,
    device_of,
    names_device,
    namespace_of,
    to_device,
    to_number,
    to_numpy,
)
from minigrad.backend.dtypes import as_dtype, numbers, refuse_masked
from minigrad.backend.gradients import RowSparse, dense
from minigrad.errors import ArgumentError, DTypeError, GraphError, ShapeError
from minigrad.hooks import HookHandle
from minigrad.tape import Leaf, Node, recording

Axis: TypeAlias = int | tuple[int, ...] | None
TensorLike: TypeAlias = "Tensor | np.ndarray[Any, Any] | float | int | bool | Sequence[Any]"

NUMBERS = (np.generic, int, float)
"""What NumPy returns instead of 0-d arrays; a tuple, because `int | float` would build a new type for every result."""


class Tensor:
    """An n-dimensional array of numbers that can be differentiated.

    `data` may be an array (copied; its dtype is kept), a Tensor, a number or nested lists (floats become float32, integers int64).
    Only floating tensors carry gradients.

    Raises: DTypeError unless `data` are numbers, or for `requires_grad=True` on integers or booleans; ArgumentError for an unknown device.
    """

    __slots__ = ("__weakref__", "_array", "node")
    __array_ufunc__: ClassVar[None] = None  # numpy_array + tensor must reach Tensor.__radd__

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> None:
        array = _new_array(data, dtype)
        self._array: Array = array if device is None else to_device(array, device)
        self.node: Node | None = None
        if requires_grad:
            self.requires_grad_()

    @staticmethod
    def wrap(array: Array) -> Tensor:
        """A Tensor around an array that nobody else will write to; nothing is copied."""
        tensor = Tensor.__new__(Tensor)
        tensor._array = np.asarray(array) if type(array) is not np.ndarray and isinstance(array, NUMBERS) else array
        tensor.node = None
        return tensor

    # ---------------------------------------------------------------- properties
    @property
    def array(self) -> Array:
        """The array itself, for reading inside minigrad; users read `data` or call `numpy()`."""
        return self._array

    @property
    def data(self) -> Array:
        """A read-only view of the numbers, on the tensor's device."""
        view = self.array.view()
        if isinstance(view, np.ndarray):
            view.flags.writeable = False
        return view

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        return int(self._array.ndim)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    @property
    def device(self) -> str:
        """Either "cpu" or "cuda"."""
        return device_of(self._array)

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded; setting it calls `requires_grad_`."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.requires_grad_(wanted)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Make this tensor a leaf that requires a gradient, or (False) no longer one; returns the tensor.

        Raises: DTypeError for integers and booleans; GraphError for a computed tensor (detach it first).
        """
        if self.node is not None and not isinstance(self.node, Leaf):
            raise GraphError("only a leaf can change requires_grad: this tensor was computed; use .detach()", code="graph-detach")
        if requires_grad and self.dtype.kind != "f":
            raise DTypeError(f"only floating tensors carry a gradient, this one is {self.dtype}; convert it with .to('float32')")
        if requires_grad and self.node is None:
            self.node = Leaf("", self.shape, self.dtype)
        elif not requires_grad:
            self.node = None
        return self

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by `backward`, or None. Only leaves keep one."""
        leaf = self.node
        if not isinstance(leaf, Leaf) or leaf.grad is None:
            return None
        return Tensor.wrap(dense(leaf.grad))

    def zero_grad(self) -> None:
        """Discard the accumulated gradient."""
        if isinstance(self.node, Leaf):
            self.node.grad = None

    def numpy(self) -> np.ndarray[Any, Any]:
        """The numbers as a read-only NumPy array (a copy if they are on a GPU)."""
        host = to_numpy(self.data)
        host.flags.writeable = False
        return host

    def item(self) -> float | int | bool:
        """The only element as a Python number.

        Raises: ShapeError if there is not exactly one element.
        """
        if self.size != 1:
            raise ShapeError(f"item() needs exactly one element, this tensor has shape {self.shape}")
        value: float | int | bool = to_number(self.array)
        return value

    def tolist(self) -> Any:
        """Nested Python lists of numbers."""
        return to_numpy(self.array).tolist()

    def detach(self) -> Tensor:
        """The same numbers without a graph."""
        return Tensor.wrap(self.array)

    def to(self, target: Any) -> Tensor:
        """The tensor with another dtype ("float32", "float64", …) or on another device ("cpu", "cuda", "auto"); differentiable."""
        if names_device(target):
            device = check_device(target)
            return self if device == self.device else ops.transfer(self, device=device)
        return self.astype(target)

    def astype(self, dtype: Any) -> Tensor:
        """The tensor converted to `dtype`; the gradient is converted back."""
        wanted = as_dtype(dtype)
        if wanted == self.dtype:
            return self
        return ops.astype(self, dtype=wanted) if wanted.kind == "f" else Tensor.wrap(self.array.astype(wanted))

    def backward(self, gradient: TensorLike | None = None, retain_graph: bool = False) -> None:
        """Add this tensor's derivative to `grad` of every leaf it was computed from.

        gradient: the incoming gradient (a cotangent), of this tensor's shape; 1 by default for a tensor with one element.
        Raises: GraphError if nothing was recorded, the graph was freed, or a parameter has changed since; ShapeError for a wrong gradient.
        """
        propagate([(self._recorded_node(), seed_like(self, gradient))], retain_graph=retain_graph)

    def register_hook(self, function: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Call `function` with the gradient with respect to this tensor, in every backward pass (`backward`, `grad`) that reaches it.

        It is called once per pass, when the gradient is complete: for a leaf with the sum of that pass, before it is added to `.grad`.
        If it returns a Tensor of the same shape and dtype, that replaces the gradient. With `create_graph` the gradient has a graph of its
        own. The handle's `remove()` (or the end of `with tensor.register_hook(f):`) removes the hook.

        Raises: GraphError if the tensor requires no gradient; during a pass, ShapeError or DTypeError if the replacement does not fit.
        """
        if self.node is None:
            raise GraphError("a hook sees a gradient, and this tensor requires none: create it with requires_grad=True", code="graph-none")
        return self.node.register_hook(_wrap_hook(function))

    def _recorded_node(self) -> Node:
        if self.node is None:
            raise GraphError(
                "this tensor has no graph: no input required a gradient, or it was computed inside no_grad(); "
                "create the inputs with requires_grad=True",
                code="graph-none",
            )
        return self.node

    # ---------------------------------------------------------------- array protocol
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.requires_grad and recording.get():
            raise GraphError(
                "this tensor requires a gradient, which a NumPy array would lose: use .detach().numpy() or .data", code="graph-detach"
            )
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise DTypeError("a 0-dimensional tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ArgumentError(f"the truth of a tensor of shape {self.shape} is ambiguous: reduce it first")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        value = self.item()
        if not isinstance(value, int) or isinstance(value, bool):
            raise DTypeError(f"a {self.dtype} tensor is no index: only integer tensors with one element are")
        return value

    __hash__ = object.__hash__  # faster than a method in Python: every step looks parameters up in sets and dicts

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        numbers = np.array2string(to_numpy(self.array), separator=", ", threshold=50, prefix="Tensor(")
        extras = "" if self.device == "cpu" else f", device={self.device!r}"
        return f"{type(self).__name__}({numbers}, dtype={self.dtype}{extras}{', requires_grad=True' if self.requires_grad else ''})"

    def __format__(self, spec: str) -> str:
        """With a format, that of the single number (f"{loss:.3f}"), else `repr`. Raises: ShapeError for a format and several numbers."""
        return format(self.item(), spec) if spec else repr(self)

    def __contains__(self, value: object) -> bool:
        raise DTypeError("`in` is not defined for tensors: use functional.equal(tensor, value) and reduce the result")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        rebuild, arguments = self.__reduce__()
        return rebuild(*arguments)  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.node is not None and not isinstance(self.node, Leaf):
            raise GraphError("a computed tensor cannot be copied or pickled with its graph: use .detach()", code="graph-detach")
        return Tensor, (np.array(self.numpy()), self.requires_grad, None, self.device)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise DTypeError("tensors cannot be changed: build a new one, with functional.where(mask, new, old) for example")

    # ---------------------------------------------------------------- operators
    def __add__(self, other: TensorLike) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return ops.subtract(other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: TensorLike) -> Tensor:
        return ops.multiply(other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return ops.divide(other, self)

    def __pow__(self, other: TensorLike) -> Tensor:
        return ops.power(self, other)

    def __rpow__(self, other: TensorLike) -> Tensor:
        return ops.power(other, self)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __abs__(self) -> Tensor:
        return ops.absolute(self)

    def __lt__(self, other: TensorLike) -> Tensor:
        return ops.less(self, other)

    def __le__(self, other: TensorLike) -> Tensor:
        return ops.less_equal(self, other)

    def __gt__(self, other: TensorLike) -> Tensor:
        return ops.greater(self, other)

    def __ge__(self, other: TensorLike) -> Tensor:
        return ops.greater_equal(self, other)

    def __and__(self, other: TensorLike) -> Tensor:
        return ops.without_gradient("bitwise_and", self, other)

    def __or__(self, other: TensorLike) -> Tensor:
        return ops.without_gradient("bitwise_or", self, other)

    def __xor__(self, other: TensorLike) -> Tensor:
        return ops.without_gradient("bitwise_xor", self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Tensor:
        return ops.without_gradient("invert", self)

    def __getitem__(self, key: Any) -> Tensor:
        """Basic and advanced indexing as in NumPy; the gradient of a repeated index accumulates."""
        return ops.getitem(self, key=tuple([_index(part) for part in key]) if isinstance(key, tuple) else _index(key))

    # ---------------------------------------------------------------- methods
    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        return ops.var(self, axis=axis, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        return ops.std(self, axis=axis, ddof=ddof, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.min(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None) -> Tensor:
        """The index of the (first) largest element; carries no gradient."""
        return ops.argmax(self, axis)

    def argmin(self, axis: int | None = None) -> Tensor:
        """The index of the (first) smallest element; carries no gradient."""
        return ops.argmin(self, axis)

    def reshape(self, *shape: int | tuple[int, ...]) -> Tensor:
        return ops.reshape(self, shape=shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape)

    def transpose(self, *axes: int | tuple[int, ...]) -> Tensor:
        """Permute the axes, given one by one or as a tuple; without arguments reverse their order."""
        order: Any = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
        return ops.transpose(self, axes=tuple(order) or tuple(reversed(range(self.ndim))))

    @property
    def T(self) -> Tensor:
        return self.transpose()

    def swapaxes(self, a: int, b: int) -> Tensor:
        return ops.swapaxes(self, a=a, b=b)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """Remove axes of length 1 (all of them, or those named)."""
        return ops.squeeze(self, axis)

    def exp(self) -> Tensor:
        return ops.exp(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def sqrt(self) -> Tensor:
        return ops.sqrt(self)

    def tanh(self) -> Tensor:
        return ops.tanh(self)


def _wrap_hook(function: Callable[[Tensor], Tensor | None]) -> Callable[[Any], Any]:
    """Wrap a user's hook (Tensor to Tensor or None) as a function on the gradients of the backward pass, which may be lazy."""
    if not callable(function):
        raise ArgumentError(f"a hook is a function, got {type(function).__name__}")

    def hook(gradient: Any) -> Any:
        seen = gradient if isinstance(gradient, Tensor) else Tensor.wrap(dense(gradient))
        replacement = function(seen)
        if replacement is None:
            return gradient if isinstance(gradient, RowSparse) else seen if seen is gradient else seen.array
        if not isinstance(replacement, Tensor):
            raise DTypeError(f"a hook returns a Tensor, or None to leave the gradient as it is; it returned {type(replacement).__name__}")
        if replacement.shape != seen.shape:
            raise ShapeError(f"a hook returned a gradient of shape {replacement.shape} for a tensor of shape {seen.shape}")
        if replacement.dtype != seen.dtype:
            raise DTypeError(f"a hook returned a {replacement.dtype} gradient for a {seen.dtype} tensor: convert it with .to(...)")
        return replacement if seen is gradient else replacement.array

    return hook


def as_tensor(x: TensorLike) -> Tensor:
    """x itself if it is a Tensor, else a new Tensor from it."""
    return x if isinstance(x, Tensor) else Tensor(x)


def as_tensors(*values: TensorLike) -> list[Tensor]:
    """Each value as a Tensor; floats in lists adopt the floating dtype of the first tensor or array that has one."""
    dtypes = (v.dtype for v in values if hasattr(v, "dtype"))
    floating = next((dtype for dtype in dtypes if dtype.kind == "f"), None)
    return [v if isinstance(v, Tensor) else _with_float_dtype(v, floating) for v in values]


def _with_float_dtype(data: Any, floating: Any) -> Tensor:
    tensor = Tensor(data)
    return tensor if hasattr(data, "dtype") or floating is None or tensor.dtype.kind != "f" else Tensor(data, dtype=floating)


def _new_array(data: Any, dtype: Any) -> Array:
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        data = data.array
    if is_on_gpu(data):  # it stays there
        cuda_namespace()
        return data.copy() if wanted is None else data.astype(wanted)
    array = numbers(data, wanted)
    if wanted is None and array.dtype == np.float64 and not isinstance(data, np.ndarray | np.generic):
        array = array.astype(FLOAT_DTYPES[0])  # Python floats: the default dtype
    return array


def is_on_gpu(data: Any) -> bool:
    """Whether `data` is a CuPy array, decided without importing CuPy."""
    return hasattr(data, "get") and hasattr(data, "device")


def _index(part: Any) -> Any:
    """One part of an index in NumPy's form. Arrays are copied, because the backward pass reads them again."""
    index: Any
    if part is None or part is Ellipsis or isinstance(part, slice | int | np.integer):
        return part
    if isinstance(part, Tensor) and part.dtype.kind in "iub":
        return part.array
    if isinstance(part, str | Tensor):
        index = np.empty(0)
    elif is_on_gpu(part):
        index = part.copy()
    elif hasattr(part, "dtype"):
        refuse_masked(part)
        index = np.array(part)
    else:
        index = numbers(part)
    if index.size == 0 and isinstance(part, list):  # an empty list arrives as floats
        index = index.astype(np.int64)
    if index.dtype.kind not in "iub":
        raise DTypeError(f"getitem: {part!r:.60} is no index; an index is made of integers, booleans, slices, None and ...")
    return index


def seed_like(output: Tensor, gradient: TensorLike | None) -> Array:
    """The gradient that the backward pass starts with: `gradient` checked against the output, or 1 for a single element."""
    if gradient is None:
        if output.size != 1:
            raise ShapeError(f"the output has shape {output.shape}: pass gradient=, an array of that shape, or reduce it to one number")
        return namespace_of(output.array).ones(output.shape, output.dtype)
    array = gradient.array if isinstance(gradient, Tensor) else Tensor(gradient, dtype=output.dtype).array
    if tuple(array.shape) != output.shape:
        raise ShapeError(f"gradient has shape {tuple(array.shape)}, the output {output.shape}: they must be equal")
    array = to_device(array, output.device)
    return array if array.dtype == output.dtype else array.astype(output.dtype)


from minigrad import ops  # noqa: E402 - operators are operations, and ops needs the class above
