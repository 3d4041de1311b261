"""Operations: each is one pure function, its body, which runs under three interpreters.

    body(xp, *arrays, **constants) -> (output, pullback)

`xp` is NumPy, CuPy, or the namespace of minigrad's own Tensors. Forward and backward share one scope, and what the pullback captures is
exactly what is saved. Tensor has no in-place operators, so `h -= h.mean(...)` writes in place on arrays and rebinds on Tensors: the same
line is fast on arrays and differentiable on Tensors, and running a body on Tensors gives second derivatives.

Five rules, each checked for every registered operation by the tests:

1. Positional parameters are arrays, keyword-only ones are constants. Integer and boolean arrays get the gradient None.
2. The engine takes care of broadcasting: a pullback may return a gradient of any shape that sums to the input's.
3. A pullback never writes to its incoming gradient or to what it captured, only to arrays that it allocated itself.
4. Bodies use operators, array methods and the functions of `backend.numpy`; they never import an array library.
5. Bodies contain no randomness and no modes: dropout receives a `Draw`. A body (or kernel) with a keyword parameter `keep` is told
   whether a pullback will be needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, TypeVar

import numpy as np

from minigrad.anomaly import Call, checked_call, described, detecting
from minigrad.backend import Array, device_of, namespace_of, to_device
from minigrad.backend.dtypes import KINDS, numbers
from minigrad.backend.gradients import read_only
from minigrad.errors import ArgumentError, ContractError, DeviceError, DTypeError, IndexRangeError, MinigradError, ShapeError
from minigrad.parameter import Parameter
from minigrad.tape import Leaf, Node, Pullback, parameter_reads, recording, replayable
from minigrad.tensor import Tensor, is_on_gpu

P = ParamSpec("P")
R = TypeVar("R")
NUMBERS = (int, float)  # tuples: `int | float` would build a new type for every operand of every call
SEQUENCES = (list, tuple)

Promotion: TypeAlias = Literal["float", "mixed"]

REGISTRY: dict[str, Op[Any]] = {}
"""Every operation by name. The tests, the documentation and the error messages are generated from it."""

COMPOSITES: dict[str, Composite] = {}
"""Every public function composed of operations, by name: documented and checked as they are."""

CUSTOM: dict[str, Op[Any]] = {}
"""The operations that users define with `custom_op`, by name; a new definition replaces the old one."""


class Kernel:
    """A function on arrays with a generic body and optional faster versions per backend."""

    def __init__(self, body: Callable[..., Any]) -> None:
        self.name, self.body, self.__doc__ = body.__name__, body, body.__doc__
        self.overrides: dict[str, Callable[..., Any]] = {}
        self._asks_keep = {body: "keep" in inspect.signature(body).parameters}

    def on(self, backend: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: override the body on `backend` ("numpy", "cupy"). The function may decline by returning NotImplemented."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.overrides[backend] = function
            self._asks_keep[function] = "keep" in inspect.signature(function).parameters
            return function

        return register

    def run(self, xp: Any, arrays: list[Any] | tuple[Any, ...], constants: dict[str, Any], *, keep: bool, generic: bool = False) -> Any:
        """Run the override for `xp` if there is one and it does not decline, else the body; with `generic` always the body."""
        if self.overrides and not generic and (override := self.overrides.get(xp.NAME)) is not None:
            result = override(xp, *arrays, **constants, keep=keep) if self._asks_keep[override] else override(xp, *arrays, **constants)
            if result is not NotImplemented:
                return result
        return self.body(xp, *arrays, **constants, keep=keep) if self._asks_keep[self.body] else self.body(xp, *arrays, **constants)


class Op(Kernel, Generic[P]):
    """A differentiable operation on tensors. Takes tensors, arrays and numbers; returns a Tensor (or a tuple of them)."""

    def __init__(self, spec: str, body: Callable[..., Any], *, promotes: Promotion | None, gathers: bool) -> None:
        super().__init__(body)
        self.spec, self.promotes, self.gathers = spec, promotes, gathers
        self.indices = {i for i, part in enumerate(spec.partition("->")[0].split(",")) if ":" in part}
        """Positions of the integer and boolean arguments, which are never promoted."""
        self.__signature__ = inspect.Signature([p for p in inspect.signature(body).parameters.values() if p.name not in ("xp", "keep")])

    def __repr__(self) -> str:
        return f"<op {self.name}: {self.spec}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Op[P]:
        return self  # even if a newer one has taken its name: a copied layer computes what the original does

    def __reduce__(self) -> tuple[Any, ...]:
        return operation, (self.name,)  # a pickle of a layer that holds an operation refers to it by name

    def __call__(self, *args: P.args, **constants: P.kwargs) -> Tensor:
        arrays: list[Any] = []
        parents: list[Node | None] = []
        guards: tuple[tuple[Leaf, int], ...] = ()
        wanted = False
        foreign = False  # whether an operand is an array or a list of the caller's
        uniform = True  # whether all operands are arrays of one dtype, or Python numbers, which adopt the arrays' dtype
        first = None
        for arg in args:
            if isinstance(arg, Tensor):
                node = arg.node
                wanted = wanted or node is not None
                if isinstance(arg, Parameter):
                    array = arg.array_for_rows(args[1]) if self.gathers and not arrays else arg.array
                    guards += ((arg.leaf, arg.leaf.version),)
                else:
                    array = arg.array
            else:
                node = None
                array = _as_operand(arg)
                if array is None or isinstance(array, NUMBERS):
                    arrays.append(array)
                    parents.append(None)
                    continue
                foreign = True
            if first is None:
                first = array
            elif array.dtype is not first.dtype:
                uniform = False
            arrays.append(array)
            parents.append(node)
        if first is None:
            raise DTypeError(f"{self.name} needs at least one tensor or array, got {', '.join(type(a).__name__ for a in args)}")
        keep = wanted and recording.get()
        if foreign:
            device = next((arg.device for arg in args if isinstance(arg, Tensor)), "cpu")  # for lists and NumPy scalars
            for i, arg in enumerate(args):
                if isinstance(arg, SEQUENCES):  # floats in lists adopt the tensors' dtype, so that float64 stays exact
                    arrays[i] = to_device(_with_float_dtype(arrays[i], arrays), device)
                elif isinstance(arg, np.generic):
                    arrays[i] = to_device(arrays[i], device)
                elif arrays[i] is arg and hasattr(arg, "shape"):
                    arrays[i] = arg.copy()  # the caller may write to it, while a pullback captures it or the result is a view of it
            first = next(array for array in arrays if hasattr(array, "shape"))
        if self.promotes is not None and not (uniform and first.dtype.kind == "f"):
            arrays = _promote(arrays, self.promotes, self.indices)
        higher = replayable.get()
        try:
            output, pullback = self.run(namespace_of(first), arrays, constants, keep=keep, generic=higher)
        except MinigradError:
            raise
        except (ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError, OverflowError) as error:
            raise self._as_minigrad_error(error, arrays, constants) from error
        if guards and (reads := parameter_reads.get()) is not None:
            reads.update(guards)
        origin = checked_call(self.name, args, arrays, constants, output) if detecting.get() else None
        replay = (lambda: self._replay(args, constants)) if keep and higher else None
        if type(output) is tuple:
            return self._wrap_outputs(output, pullback, tuple(parents), keep, replay, guards, origin)  # type: ignore[no-any-return]  # a tuple of Tensors
        result = Tensor.wrap(output)
        if keep:
            if type(pullback) is tuple:
                if len(pullback) != len(parents):
                    raise ContractError(
                        f"{self.name} gave {len(pullback)} pullbacks for {len(parents)} inputs: it gives one function, or one for each",
                        code="contract-pullback",
                    )
                if None in parents:  # drop functions that will not be called, and free what only they captured
                    pullback = tuple([f if node is not None else None for f, node in zip(pullback, parents, strict=True)])
            array = result.array
            result.node = Node(self.name, array.shape, array.dtype, tuple(parents), pullback, replay, guards, origin)
        return result

    def _wrap_outputs(
        self,
        outputs: tuple[Array, ...],
        pullback: Pullback,
        parents: tuple[Any, ...],
        keep: bool,
        replay: Any,
        guards: Any,
        origin: Call | None,
    ) -> Any:
        results = tuple(Tensor.wrap(output) for output in outputs)
        if keep:
            shapes, dtypes = [r.shape for r in results], [r.dtype for r in results]
            source = Node(self.name, shapes, dtypes, parents, pullback, replay, guards, origin)
            for result, node in zip(results, source.outputs(), strict=True):
                result.node = node
        return results

    def _replay(self, args: tuple[Any, ...], constants: dict[str, Any]) -> Pullback:
        """The pullback of the body run on Tensors, whose results can be differentiated again."""
        operands = [a.array if isinstance(a, Tensor) and a.dtype.kind != "f" else a for a in args]
        return self.run(namespace_of(next(a for a in args if isinstance(a, Tensor))), operands, constants, keep=True, generic=True)[1]

    def _as_minigrad_error(self, error: Exception, arrays: list[Any], constants: dict[str, Any]) -> MinigradError:
        shapes = ", ".join(map(described, arrays))
        given = "".join(f", {k}={v!r:.60}" for k, v in constants.items())
        devices = {device_of(a) for a in arrays if hasattr(a, "shape")}
        if len(devices) > 1:
            return DeviceError(f"{self.name}: arrays on {' and '.join(sorted(devices))} met; move them with .to(...)")
        kind = ShapeError if isinstance(error, ValueError) else IndexRangeError if isinstance(error, IndexError) else DTypeError
        return kind(f"{self.name}({shapes}{given}): {error}. It takes {self.spec}")


class CustomOp(Op[P]):
    """A user's operation. Every call checks that the body returns (output, pullback) and does not write to its inputs."""

    def run(self, xp: Any, arrays: list[Any] | tuple[Any, ...], constants: dict[str, Any], *, keep: bool, generic: bool = False) -> Any:
        """As for every operation.

        Raises: ContractError for a body that returns anything but (output, pullback), or writes to its inputs; DTypeError for a body that
        passes Tensors to NumPy functions.
        """
        try:
            result = super().run(xp, [read_only(array) for array in arrays], constants, keep=keep, generic=generic)
        except ValueError as error:
            if isinstance(error, MinigradError) or "read-only" not in str(error):
                raise
            message = f"{self.name}: its body writes to an array that it was given ({error}); let it make one of its own"
            raise ContractError(message, code="contract-purity") from error
        except TypeError as error:
            if "__array_ufunc__" not in str(error):
                raise
            message = f"{self.name}: its body gives a Tensor to a function of NumPy: use xp's, such as xp.tanh for np.tanh"
            raise DTypeError(message) from error
        if isinstance(result, SEQUENCES) and len(result) == 2:
            pullback = result[1]
            if callable(pullback) or type(pullback) is tuple or (pullback is None and not keep):
                return result
        raise ContractError(
            f"{self.name}: its body must return (output, pullback), the pullback being a function of the output's gradient or a "
            f"tuple of them, one for each input; it returned {type(result).__name__}",
            code="contract-pullback",
        )


def operation(name: str) -> Op[Any]:
    """The operation called `name`: one of minigrad's, or the latest of that name made by `custom_op`."""
    return REGISTRY[name] if name in REGISTRY else CUSTOM[name]


class Composite:
    """A public function composed of operations: it needs no pullback of its own, but is documented and checked like an operation."""

    def __init__(self, spec: str, function: Callable[..., Any]) -> None:
        self.name, self.spec, self.function, self.__doc__ = function.__name__, spec, function, function.__doc__

    def __repr__(self) -> str:
        return f"<composite {self.name}: {self.spec}>"

    def __call__(self, *args: Any, **constants: Any) -> Any:
        return self.function(*args, **constants)


def composite(spec: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: register a function composed of operations, and return it unchanged. spec: as for `op`."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        made = Composite(spec, function)
        _check_new(made.name)
        COMPOSITES[made.name] = made
        return function

    return register


def op(
    spec: str, *, promotes: Promotion | None = None, gathers: bool = False
) -> Callable[[Callable[Concatenate[Any, P], tuple[Any, Any]]], Op[P]]:
    """Decorator: register a body as an operation. For type checkers the operation has the body's parameters without `xp`.

    spec: shapes as in NumPy's gufunc signatures, for readers and error messages: `"*b m k, *b k n -> *b m n"`.
    promotes: "float" converts integer and boolean arrays to the floating dtype of the others (float32 if there is none);
    "mixed" does so only if any operand is a float, so that integers alone stay integers.
    gathers: the operation reads only those rows of its first input whose indices are in its second.
    """

    def register(body: Callable[Concatenate[Any, P], tuple[Any, Any]]) -> Op[P]:
        made: Op[P] = Op(spec, body, promotes=promotes, gathers=gathers)
        _check_new(made.name)
        REGISTRY[made.name] = made
        return made

    return register


def _check_new(name: str) -> None:
    if name in REGISTRY or name in COMPOSITES:
        raise MinigradError(f"an operation named {name} exists already", code="registry")


def custom_op(spec: str, *, promotes: Promotion | None = None) -> Callable[[Callable[Concatenate[Any, P], tuple[Any, Any]]], Op[P]]:
    """Decorator: make an operation of your own from a body in minigrad's format. Test it with `check_op`.

    spec, promotes: as for `op`.
    Raises: ArgumentError for a spec without "->", a body whose first parameter is not `xp`, or a name that minigrad itself uses. A call
    raises ContractError (code contract-pullback) if the body does not return (output, pullback).
    """
    if not isinstance(spec, str) or "->" not in spec:
        raise ArgumentError(f'custom_op takes the shapes, as in @custom_op("*s, *s -> *s"), and got {spec!r:.60}')

    def register(body: Callable[Concatenate[Any, P], tuple[Any, Any]]) -> Op[P]:
        made: Op[P] = CustomOp(spec, body, promotes=promotes, gathers=False)
        if next(iter(inspect.signature(body).parameters), None) != "xp":
            raise ArgumentError(f"custom_op: the first parameter of {made.name} must be xp, the namespace that its body computes with")
        if made.name in REGISTRY or made.name in COMPOSITES:
            raise ArgumentError(f"custom_op: {made.name} is one of minigrad's own operations; give yours another name")
        CUSTOM[made.name] = made
        return made

    return register


def _as_operand(value: Any) -> Any:
    """The operand for an argument that is not a Tensor: numbers and None are kept, everything else becomes a plain array of numbers.

    Plain, because subclasses may redefine operators: for np.matrix `*` is the matrix product.
    """
    if value is None or (isinstance(value, NUMBERS) and not isinstance(value, np.generic)):  # np.float64 is a subclass of float
        return value
    if (type(value) is np.ndarray and value.dtype.kind in KINDS and value.dtype.itemsize <= 8) or is_on_gpu(value):
        return value
    if isinstance(value, SEQUENCES) or hasattr(value, "__array__"):
        return numbers(value)
    raise DTypeError(f"cannot use {type(value).__name__} as a tensor: pass a Tensor, an array, a number or a list of numbers")


def _with_float_dtype(array: Any, arrays: list[Any]) -> Any:
    """The array of a list of numbers; floats are converted to the floating dtype of the first operand that has one."""
    if array.dtype.kind != "f":
        return array
    others = (a.dtype for a in arrays if a is not array and hasattr(a, "dtype") and a.dtype.kind == "f")
    return array.astype(next(others, np.dtype(np.float32)))


def _promote(arrays: list[Any], how: Promotion, indices: set[int]) -> list[Any]:
    floating = next((a.dtype for a in arrays if hasattr(a, "dtype") and a.dtype.kind == "f"), None)
    if floating is None:
        if how == "mixed" and not any(isinstance(a, float) for a in arrays):
            return arrays
        floating = np.dtype(np.float32)
    return [a.astype(floating) if i not in indices and hasattr(a, "dtype") and a.dtype.kind in "iub" else a for i, a in enumerate(arrays)]
