"""Derivatives as values: gradients, vector-Jacobian and Hessian-vector products, whole Jacobians. None of them changes a `.grad`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias, overload

import numpy as np

from minigrad import ops
from minigrad.autograd import propagate
from minigrad.backend import namespace_of
from minigrad.backend.gradients import dense
from minigrad.errors import ArgumentError, DTypeError, GraphError, ShapeError
from minigrad.tape import enable_grad, higher_order
from minigrad.tensor import Tensor, TensorLike, seed_like


@overload
def grad(
    output: Tensor, inputs: Tensor, gradient: TensorLike | None = ..., create_graph: bool = ..., retain_graph: bool | None = ...
) -> Tensor | None: ...
@overload
def grad(
    output: Tensor, inputs: Sequence[Tensor], gradient: TensorLike | None = ..., create_graph: bool = ..., retain_graph: bool | None = ...
) -> tuple[Tensor | None, ...]: ...
def grad(
    output: Tensor,
    inputs: Tensor | Sequence[Tensor],
    gradient: TensorLike | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Any:
    """The gradient of `output` with respect to each of `inputs` (leaves or computed tensors), None where output does not depend on it.

    One input gives a Tensor, a sequence of inputs a tuple. `gradient` is the incoming gradient (by default 1, for a single element). With
    `create_graph=True`, inside `higher_order()`, the results can be differentiated again. The graph is freed unless `retain_graph` is set
    (default: the value of `create_graph`).

    Raises: GraphError if nothing was recorded or an input requires no gradient; ShapeError for a wrong `gradient`.
    """
    several = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    targets = []
    for what, tensor in [("output", output), *((f"input {i}", tensor) for i, tensor in enumerate(several))]:
        if not isinstance(tensor, Tensor):
            raise DTypeError(f"grad: {what} must be a Tensor, got {type(tensor).__name__}")
    for i, tensor in enumerate(several):
        if tensor.node is None:
            raise GraphError(f"input {i} (shape {tensor.shape}) requires no gradient: create it with requires_grad=True", code="graph-none")
        targets.append(tensor.node)
    found = propagate(
        [(output._recorded_node(), _seed(output, gradient, create_graph))],
        targets,
        retain_graph=create_graph if retain_graph is None else retain_graph,
        create_graph=create_graph,
    )
    results = tuple(_as_tensor(dense(found[node])) if node in found else None for node in targets)
    return results[0] if isinstance(inputs, Tensor) else results


def _as_tensor(gradient: Any) -> Tensor:
    return gradient if isinstance(gradient, Tensor) else Tensor.wrap(gradient)


def value_and_grad(function: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Tensor, Any]]:
    """A function that returns `function`'s value and its gradient with respect to the positional argument(s) `argnums`.

    Arguments may be tensors, arrays or numbers; the value must have one element.
    Raises: ArgumentError if `argnums` names a position that was not passed.
    """

    def evaluate(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        places = [argnums] if isinstance(argnums, int) else list(argnums)
        if any(not 0 <= i < len(args) for i in places):
            raise ArgumentError(f"argnums {argnums} does not fit {len(args)} positional arguments")
        inputs = {i: _differentiable(args[i]) for i in places}
        value = function(*[inputs.get(i, a) for i, a in enumerate(args)], **kwargs)
        if not isinstance(value, Tensor):
            raise DTypeError(f"value_and_grad: the function must return a Tensor, it returned {type(value).__name__}")
        gradients = grad(value, [inputs[i] for i in places])
        return value.detach(), gradients[0] if isinstance(argnums, int) else gradients

    return evaluate


def vjp(function: Callable[..., Any], *inputs: TensorLike, create_graph: bool = False) -> tuple[Any, Callable[[Any], Any]]:
    """`function(*inputs)` and the function `pull` that multiplies its Jacobian J from the left: pull(v) = vᵀJ.

    function: returns a Tensor or a tuple of them. pull takes one cotangent per output (of its shape; a tuple for a tuple) and returns one
    gradient per input (a tuple for several), zeros for an input that no output depends on; it may be called repeatedly.
    inputs: a tensor (or Parameter) that requires a gradient is used itself, so that it also counts where the function uses it without
    its arguments; all others are copied. create_graph: outputs and results of `pull` can be differentiated again by these tensors.

    Raises: DTypeError for an input that is not floating or a result that is not a Tensor; ShapeError for cotangents that do not fit;
    ArgumentError for no inputs, or one tensor passed twice.
    """
    leaves = _leaves("vjp", inputs)
    returned, pull = _vjp("vjp", function, leaves, create_graph)
    several = isinstance(returned, tuple)

    def pullback(cotangents: Any) -> Any:
        gradients = pull(cotangents if several else (cotangents,))
        return gradients if len(leaves) > 1 else gradients[0]

    if create_graph:
        return returned, pullback
    return tuple(r.detach() for r in returned) if several else returned.detach(), pullback


def jacobian(function: Callable[..., Tensor], inputs: TensorLike | Sequence[TensorLike], create_graph: bool = False) -> Any:
    """The Jacobian of `function(*inputs)` for each of `inputs`: one input gives a Tensor, a list or tuple of inputs a tuple.

    Shapes: (*output, *input). It takes one backward pass per element of the output. inputs, create_graph: as for `vjp`.
    Raises: as `vjp`; DTypeError for a function that returns a tuple, integers or booleans.
    """
    leaves = _leaves("jacobian", inputs)
    output, pull = _vjp("jacobian", function, leaves, create_graph)
    if not isinstance(output, Tensor):
        raise DTypeError("jacobian: the function must return one Tensor, it returned a tuple; `vjp` takes those")
    _check_floating("jacobian", output)
    units = np.eye(output.size, dtype=output.dtype).reshape((output.size, *output.shape))
    rows = [pull((Tensor.wrap(namespace_of(output.array).like(unit, output.array)),)) for unit in units]
    found = tuple(
        ops.stack([row[i] for row in rows]).reshape(output.shape + x.shape) if rows else _zeros(x, output.shape)
        for i, x in enumerate(leaves)
    )
    return found if _is_sequence(inputs) else found[0]


def hvp(function: Callable[..., Tensor], inputs: TensorLike | Sequence[TensorLike], vectors: Any, create_graph: bool = False) -> Any:
    """The Hessian of the scalar `function(*inputs)` times `vectors`, which have the inputs' shapes: H v = ∇⟨∇f, v⟩.

    One input gives a Tensor; a list or tuple of inputs gives a tuple, cross derivatives included. It costs as much as a few gradients, at
    any size. inputs, create_graph: as for `vjp`. Raises: as `vjp`; ShapeError for a value with several elements or a vector that does not
    fit.
    """
    leaves = _leaves("hvp", inputs)
    _, pull = _vjp("hvp", _gradient_function("hvp", function), leaves, create_graph)
    found = pull(vectors if _is_sequence(inputs) else (vectors,))  # v · H, which is H · v because the Hessian is symmetric
    return found if _is_sequence(inputs) else found[0]


def hessian(function: Callable[..., Tensor], x: TensorLike, create_graph: bool = False) -> Tensor:
    """The Hessian of the scalar `function(x)`: all its second derivatives. Shapes: (*x, *x). Raises: as `hvp`."""
    gradient = _gradient_function("hessian", function)
    return jacobian(lambda x: gradient(x)[0], x, create_graph)  # type: ignore[no-any-return]  # one input: a Tensor


def _gradient_function(what: str, function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """∇function, as a function that can be differentiated."""

    def gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
        value, pull = _vjp(what, function, inputs, create_graph=True)
        if not isinstance(value, Tensor) or value.size != 1:
            raise ShapeError(f"{what}: the function must return one number, it returned {getattr(value, 'shape', 'a tuple')}")
        _check_floating(what, value)
        return pull((namespace_of(value.array).ones(value.shape, value.dtype),))

    return gradient


def _check_floating(what: str, output: Tensor) -> None:
    if output.dtype.kind != "f":
        raise DTypeError(f"{what}: the function returned {output.dtype}, which has no derivative: only floating tensors have one")


Pull: TypeAlias = Callable[[Any], tuple[Tensor, ...]]


def _vjp(what: str, function: Callable[..., Any], leaves: Sequence[Tensor], create_graph: bool) -> tuple[Any, Pull]:
    """The result of `function`, and a function from a tuple of cotangents to a tuple of gradients, zeros for independent inputs."""
    with enable_grad(), higher_order() if create_graph else nullcontext():
        returned = function(*leaves)
    outputs = returned if isinstance(returned, tuple) else (returned,)
    for output in outputs:
        if not isinstance(output, Tensor):
            raise DTypeError(f"{what}: the function must return a Tensor or a tuple of them, it returned {type(output).__name__}")
    nodes = [x.node for x in leaves if x.node is not None]  # all of them: leaves require gradients

    def pull(cotangents: Any) -> tuple[Tensor, ...]:
        if not isinstance(cotangents, tuple | list) or len(cotangents) != len(outputs):
            raise ShapeError(f"{what}: pass a tuple of {len(outputs)}: one cotangent per output (hvp: one vector per input)")
        seeds = [_seed(output, v, create_graph) for output, v in zip(outputs, cotangents, strict=True)]
        recorded = [(output.node, seed) for output, seed in zip(outputs, seeds, strict=True) if output.node is not None]
        with enable_grad(), higher_order() if create_graph else nullcontext():
            found = propagate(recorded, nodes, retain_graph=True, create_graph=create_graph)
        return tuple(_as_tensor(dense(found[node])) if node in found else _zeros(x) for x, node in zip(leaves, nodes, strict=True))

    return returned, pull


def _seed(output: Tensor, gradient: TensorLike | None, create_graph: bool) -> Any:
    """The gradient that the backward pass starts with: an array, or with `create_graph` a Tensor, which keeps the graph of `gradient`."""
    array = seed_like(output, gradient)
    if not create_graph:
        return array
    return gradient.astype(output.dtype) if isinstance(gradient, Tensor) else Tensor.wrap(array)


def _is_sequence(inputs: Any) -> bool:
    return isinstance(inputs, list | tuple)


def _leaves(what: str, inputs: Any) -> list[Tensor]:
    """The inputs as distinct tensors that require gradients."""
    leaves = [_differentiable(x) for x in (inputs if _is_sequence(inputs) else [inputs])]
    if not leaves:
        raise ArgumentError(f"{what}: there is no input to differentiate by")
    if len({id(x) for x in leaves}) < len(leaves):
        raise ArgumentError(
            f"{what}: one tensor is passed twice, and its derivatives cannot be told apart: pass x.detach() the second time"
        )
    return leaves


def _differentiable(x: TensorLike) -> Tensor:
    """x itself if it is a tensor that requires a gradient, else a copy that does."""
    return x if isinstance(x, Tensor) and x.requires_grad else Tensor(x, requires_grad=True)


def _zeros(x: Tensor, lead: tuple[int, ...] = ()) -> Tensor:
    return Tensor.wrap(namespace_of(x.array).zeros(lead + x.shape, x.dtype))
