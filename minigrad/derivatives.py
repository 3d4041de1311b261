"""Derivatives as values: `grad` and `value_and_grad` return gradients and leave every `.grad` alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from minigrad.autograd import propagate
from minigrad.backend.gradients import dense
from minigrad.errors import ArgumentError, DTypeError, GraphError
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
    """The gradient of `output` by each of `inputs` (leaves or computed tensors): a Tensor, or None where output does not depend on it.

    One input gives one result, a sequence a tuple. `gradient` is what to multiply with (1 for a single element). With
    `create_graph=True`, inside `higher_order()`, the results can be differentiated again. The graph is freed unless it is retained
    (default: retained exactly when `create_graph` is set).

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
    seed = seed_like(output, gradient)
    if create_graph:
        seed = gradient if isinstance(gradient, Tensor) else Tensor.wrap(seed)
    found = propagate(
        output._recorded_node(),
        seed,
        targets,
        retain_graph=create_graph if retain_graph is None else retain_graph,
        create_graph=create_graph,
    )
    results = tuple(_as_tensor(dense(found[node])) if node in found else None for node in targets)
    return results[0] if isinstance(inputs, Tensor) else results


def _as_tensor(gradient: Any) -> Tensor:
    return gradient if isinstance(gradient, Tensor) else Tensor.wrap(gradient)


def value_and_grad(function: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Tensor, Any]]:
    """A function that returns `function`'s value and its gradient by the argument(s) `argnums` (by position).

    Arguments may be tensors, arrays or numbers; the value must have one element.
    Raises: ArgumentError if `argnums` names a position that was not passed.
    """

    def evaluate(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        places = [argnums] if isinstance(argnums, int) else list(argnums)
        if any(not 0 <= i < len(args) for i in places):
            raise ArgumentError(f"argnums {argnums} does not fit {len(args)} positional arguments")
        inputs = {
            i: args[i] if isinstance(args[i], Tensor) and args[i].requires_grad else Tensor(args[i], requires_grad=True) for i in places
        }
        value = function(*[inputs.get(i, a) for i, a in enumerate(args)], **kwargs)
        if not isinstance(value, Tensor):
            raise DTypeError(f"value_and_grad: the function must return a Tensor, it returned {type(value).__name__}")
        gradients = grad(value, [inputs[i] for i in places])
        return value.detach(), gradients[0] if isinstance(argnums, int) else gradients

    return evaluate
