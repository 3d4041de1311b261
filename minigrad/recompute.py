"""Recomputation (gradient checkpointing): keep a part's inputs instead of its activations, and run it again in the backward pass.

The first run is recorded and its graph dropped at once: only so is it known which leaves and earlier results the function reaches by
itself (a layer's parameters), so that they become inputs of the one node that stays. Every walk then treats them as any other input:
`backward`, `grad` by a parameter, hooks, frozen parameters. The price is that one part's activations exist for a moment, as they do again
in the backward pass.

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
    """`function(*args, **kwargs)`, whose activations are not kept but computed a second time when gradients are asked for.

    function: returns a Tensor, or a tuple or list with Tensors and other things. It runs once now and once per backward pass, and must do
    the same each time: dropout draws the same units by itself; buffers change once; a module must stay in its mode.
    Parameters and tensors that it reaches without being passed them get their gradients, too. Arrays among the arguments are copied.

    The gradients are those without `recompute`, to the last bit, unless a tensor is used several times both inside and outside of
    `function`: then their sum is taken in another order. Inside `no_grad` the function just runs.

    Raises: DTypeError for another result; later, in the backward pass, GraphError (graph-recompute) if the function did something else.
    """
    if not recording.get():
        return function(*args, **kwargs)
    part = _Part(function, tuple(_kept(a) for a in args), {name: _kept(a) for name, a in kwargs.items()})
    return part.first_run()


class _Part:
    """A function with its arguments and everything that its second run must find as it was."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.name = f"recompute({getattr(function, '__name__', type(function).__name__)})"
        self.stream = random.current().copy()
        self.higher = replayable.get()
        self.recorded: list[str] = []
        """The operations of the first run in order, to compare the second with."""
        self.places: list[int] = []
        """Which results carry a gradient."""
        self.ends: list[Node] = []
        """The leaves and earlier results that the function reached."""

    def first_run(self) -> Any:
        since = next_order()
        outer = parameter_reads.get()
        reads: dict[Leaf, int] = {}
        with Mode(parameter_reads, reads):
            returned = self.function(*self.args, **self.kwargs)
        if outer is not None:
            outer.update(reads)
        results = self._results(returned)
        self.places, self.ends, self.recorded = _reached(results, since)
        plain = [r.detach() if isinstance(r, Tensor) else r for r in results]
        if self.ends:
            outputs = [results[i] for i in self.places]
            shapes, dtypes = [t.shape for t in outputs], [t.dtype for t in outputs]
            replay = (lambda: self._pullback(True)) if self.higher else None
            source = Node(self.name, shapes, dtypes, tuple(self.ends), self._pullback(False), replay, tuple(reads.items()))
            for i, node in zip(self.places, source.outputs(), strict=True):
                plain[i].node = node
        return plain[0] if isinstance(returned, Tensor) else plain if isinstance(returned, list) else tuple(plain)

    def _pullback(self, create_graph: bool) -> Callable[[Sequence[Gradient | None]], tuple[Gradient | None, ...]]:
        def pullback(gradients: Sequence[Gradient | None]) -> tuple[Gradient | None, ...]:
            with random.replay(self.stream), enable_grad(), Mode(replayable, self.higher), Mode(rerunning, True):
                since = next_order()
                results = self._results(self.function(*self.args, **self.kwargs))
            if _reached(results, since) != (self.places, self.ends, self.recorded):
                raise GraphError(
                    f"{self.name} did not do in the backward pass what it did in the forward pass: a mode (train, eval), what is "
                    "frozen, or a value it reads has changed; keep them until the backward pass is over",
                    code="graph-recompute",
                )
            seeds = [(results[i].node, g) for i, g in zip(self.places, gradients, strict=True) if g is not None]
            found = propagate(seeds, self.ends, since=since, create_graph=create_graph)
            return tuple(found.get(end) for end in self.ends)

        return pullback

    def _results(self, returned: Any) -> tuple[Any, ...]:
        results = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
        if not any(isinstance(r, Tensor) for r in results):
            raise DTypeError(
                f"{self.name}: the function must return a Tensor, or a tuple or list with Tensors, got {type(returned).__name__}"
            )
        return results


def _reached(results: Sequence[Any], since: int) -> tuple[list[int], list[Node], list[str]]:
    """Which results were recorded, the nodes from before `since` that they lead to, and the operations in between."""
    places = [i for i, r in enumerate(results) if isinstance(r, Tensor) and r.node is not None]
    nodes = reachable([results[i].node for i in places], since)
    return places, [n for n in nodes if n.order < since], [f"{n.name} {n.shape}" for n in nodes if n.order >= since]


def _kept(argument: Any) -> Any:
    """An array is copied, since its owner may write to it before the backward pass; tensors cannot change."""
    return argument.copy() if hasattr(argument, "__array__") and not isinstance(argument, Tensor) else argument
