"""Recomputation (gradient checkpointing): keep a segment's inputs instead of its activations, and run it again in the backward pass.

The first run is recorded, and its graph is dropped at once. It serves to find the leaves and earlier results that the function uses
without being passed them (a layer's parameters): they become inputs of the single node that is kept, so that `backward`, `grad`, hooks
and frozen parameters work as for any other input. The cost is that the activations of one segment exist briefly in the forward pass, as
they do again in the backward pass.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigrad.autograd import propagate, reachable
from minigrad.backend import random
from minigrad.errors import DTypeError, GraphError
from minigrad.modes import Mode
from minigrad.tape import Gradient, Leaf, Node, enable_grad, next_order, parameter_reads, recording, replayable, rerunning
from minigrad.tensor import Tensor


def recompute(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`, whose activations are not kept but computed again in the backward pass.

    function: returns a Tensor, or a tuple or list with Tensors and other things. It runs once now and once per backward pass, and must do
    the same each time. Dropout draws the same units automatically, and buffers are updated once; modules must stay in their mode.
    Parameters and tensors that it uses without being passed them get gradients, too. Arrays among the arguments are copied.

    The gradients are bitwise those without `recompute`, unless a tensor is used several times both inside and outside of `function`: then
    its gradients are summed in another order. Inside `no_grad` the function just runs.

    Raises: DTypeError for any other result; GraphError (graph-recompute), in the backward pass, if the second run differs from the first.
    """
    if not recording.get():
        return function(*args, **kwargs)
    segment = _Segment(function, tuple(_copy_if_array(a) for a in args), {name: _copy_if_array(a) for name, a in kwargs.items()})
    return segment.first_run()


class _Segment:
    """A function with its arguments and the state that its second run must start from."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.name = f"recompute({getattr(function, '__name__', type(function).__name__)})"
        self.stream = random.current().copy()
        self.higher = replayable.get()
        self.recorded: list[str] = []
        """The operations of the first run in order, to compare the second run with."""
        self.output_indices: list[int] = []
        """The indices of the results that carry a gradient."""
        self.inputs: list[Node] = []
        """The leaves and earlier results that the function used."""

    def first_run(self) -> Any:
        since = next_order()
        outer = parameter_reads.get()
        reads: dict[Leaf, int] = {}
        with Mode(parameter_reads, reads):
            returned = self.function(*self.args, **self.kwargs)
        if outer is not None:
            outer.update(reads)
        results = self._results(returned)
        self.output_indices, self.inputs, self.recorded = _trace(results, since)
        plain = [r.detach() if isinstance(r, Tensor) else r for r in results]
        if self.inputs:
            outputs = [results[i] for i in self.output_indices]
            shapes, dtypes = [t.shape for t in outputs], [t.dtype for t in outputs]
            replay = (lambda: self._pullback(True)) if self.higher else None
            source = Node(self.name, shapes, dtypes, tuple(self.inputs), self._pullback(False), replay, tuple(reads.items()))
            for i, node in zip(self.output_indices, source.outputs(), strict=True):
                plain[i].node = node
        return plain[0] if isinstance(returned, Tensor) else plain if isinstance(returned, list) else tuple(plain)

    def _pullback(self, create_graph: bool) -> Callable[[Sequence[Gradient | None]], tuple[Gradient | None, ...]]:
        def pullback(gradients: Sequence[Gradient | None]) -> tuple[Gradient | None, ...]:
            with random.replay(self.stream), enable_grad(), Mode(replayable, self.higher), Mode(rerunning, True):
                since = next_order()
                results = self._results(self.function(*self.args, **self.kwargs))
            if _trace(results, since) != (self.output_indices, self.inputs, self.recorded):
                raise GraphError(
                    f"{self.name} did not do in the backward pass what it did in the forward pass: a mode (train, eval), what is "
                    "frozen, or a value it reads has changed; keep them until the backward pass is over",
                    code="graph-recompute",
                )
            seeds = [(results[i].node, g) for i, g in zip(self.output_indices, gradients, strict=True) if g is not None]
            found = propagate(seeds, self.inputs, since=since, create_graph=create_graph)
            return tuple(found.get(node) for node in self.inputs)

        return pullback

    def _results(self, returned: Any) -> tuple[Any, ...]:
        results = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
        if not any(isinstance(r, Tensor) for r in results):
            raise DTypeError(
                f"{self.name}: the function must return a Tensor, or a tuple or list with Tensors, got {type(returned).__name__}"
            )
        return results


def _trace(results: Sequence[Any], since: int) -> tuple[list[int], list[Node], list[str]]:
    """The indices of the recorded results, the nodes from before `since` that they depend on, and the operations in between."""
    places = [i for i, r in enumerate(results) if isinstance(r, Tensor) and r.node is not None]
    nodes = reachable([results[i].node for i in places], since)
    return places, [n for n in nodes if n.order < since], [f"{n.name} {n.shape}" for n in nodes if n.order >= since]


def _copy_if_array(argument: Any) -> Any:
    """A copy of an array, which its owner may write to before the backward pass; tensors are immutable and returned as they are."""
    return argument.copy() if hasattr(argument, "__array__") and not isinstance(argument, Tensor) else argument
