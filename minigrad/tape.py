"""The tape: the graph of recorded operations, the modes that control recording, and the leaves in which gradients accumulate.

This module deals with arrays only. A node holds the pullback of its operation and points to the *nodes* of the operation's inputs, never
to tensors, so an activation that no pullback captures is freed as soon as Python drops its tensor.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeAlias

from minigrad.anomaly import Call
from minigrad.backend import Array
from minigrad.backend.gradients import LAZY, LazyGradient, RowSparse, dense, joined
from minigrad.backend.layout import neighbours
from minigrad.backend.side_stream import current_side_stream
from minigrad.hooks import HookHandle, Hooks
from minigrad.modes import Mode

Gradient: TypeAlias = Any
"""An array, a lazy gradient (`backend.gradients`), or with `create_graph` a Tensor."""

Pullback: TypeAlias = Any
"""One function from the output's gradient to a tuple of input gradients, or a tuple with one function (or None) per input."""

recording: ContextVar[bool] = ContextVar("recording", default=True)
replayable: ContextVar[bool] = ContextVar("replayable", default=False)
parameter_reads: ContextVar[dict[Leaf, int] | None] = ContextVar("parameter_reads", default=None)
"""Inside `recompute`: every parameter that an operation has read (trained or frozen, recorded or not) with its version."""
rerunning: ContextVar[bool] = ContextVar("rerunning", default=False)
"""True during the second run of `recompute`, which must not update buffers (running statistics) again."""

next_order = itertools.count().__next__
"""Gives the next `order`: every node recorded from now on has a larger one."""


def no_grad() -> Mode[bool]:
    """Context manager or decorator: operations inside record nothing and keep no activations alive."""
    return Mode(recording, False)


def enable_grad() -> Mode[bool]:
    """Context manager or decorator: operations inside are recorded, even within `no_grad`."""
    return Mode(recording, True)


def higher_order() -> Mode[bool]:
    """Context manager or decorator: operations inside can be differentiated more than once (`create_graph=True`).

    Nodes then remember their inputs, and backend kernels are bypassed. Ordinary training does not need this mode and pays nothing for it.
    """
    return Mode(replayable, True)


class Node:
    """One recorded operation. `order` grows with time, so that sorting by it is a topological sort."""

    __slots__ = ("dtype", "guards", "hooks", "name", "order", "origin", "output_index", "parents", "pullback", "replay", "shape")

    def __init__(
        self,
        name: str,
        shape: Any,
        dtype: Any,
        parents: tuple[Node | None, ...],
        pullback: Pullback,
        replay: Callable[[], Pullback] | None = None,
        guards: tuple[tuple[Leaf, int], ...] = (),
        origin: Call | None = None,
    ) -> None:
        self.name, self.shape, self.dtype, self.parents, self.pullback, self.replay = name, shape, dtype, parents, pullback, replay
        self.output_index: int | None = None  # set only on the nodes made by `outputs`
        self.order = next_order()
        self.guards = guards
        """The parameters that the operation read (trained or frozen), each with its version at that time."""
        self.hooks: Hooks | None = None
        """Functions that receive the node's complete gradient and return its replacement."""
        self.origin = origin
        """Set in anomaly mode only."""

    def outputs(self) -> list[Node]:
        """One node per output, for an operation with several. Their parent is this node, which holds the pullback.

        This node's `shape` and `dtype` are lists, and its pullback takes a sequence of gradients, None for an output without one.
        """
        nodes = []
        for i, (shape, dtype) in enumerate(zip(self.shape, self.dtype, strict=True)):
            nodes.append(node := Node(f"{self.name}[{i}]", shape, dtype, (self,), True))
            node.output_index = i
        return nodes

    def register_hook(self, function: Callable[[Gradient], Gradient]) -> HookHandle:
        """Pass the complete gradient through `function` in every backward pass."""
        if self.hooks is None:
            self.hooks = Hooks()
        return self.hooks.add(function)


class Leaf(Node):
    """A leaf of the graph: an input or parameter that requires a gradient. It holds the accumulated gradient.

    `version` counts the parameter's changes. `view` is the parameter's part of an optimizer's flat gradient buffer (its arena), if any.
    """

    __slots__ = ("grad", "lock", "version", "view")

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__(name, shape, dtype, (), None)
        self.grad: Gradient | None = None
        self.view: Array | None = None
        self.version = 0
        self.lock = Lock()

    def accumulate(self, gradient: Gradient) -> None:
        """Add to `grad`, one thread at a time. The first gradient of a step overwrites, so that no buffer is ever filled with zeros.

        Outside an arena the sum is a new array: a gradient that the caller has kept does not change.
        """
        with self.lock:
            earlier, view = self.grad, self.view
            if view is not None:
                _store(gradient, view, earlier is not None)
                self.grad = view
            elif isinstance(gradient, RowSparse) and (earlier is None or isinstance(earlier, RowSparse)):
                self.grad = gradient if earlier is None else earlier.joined(gradient)
            elif earlier is None:
                self.grad = gradient.dense() if isinstance(gradient, LAZY) else gradient.copy()
            elif isinstance(earlier, RowSparse):
                self.grad = earlier.into(dense(gradient).copy(), accumulate=True)
            else:
                self.grad = earlier + dense(gradient)


def _store(gradient: Gradient, view: Array, accumulate: bool) -> None:
    """Write a gradient to its part of an optimizer's buffer, or add it there; on the side stream, if one is open and takes it."""
    side_stream = current_side_stream.get()
    if side_stream is not None and side_stream.offload(gradient, view, accumulate):
        return
    if isinstance(gradient, LAZY):
        gradient.into(view, accumulate=accumulate)
    elif accumulate:
        view += gradient
    else:
        view[...] = gradient


def accumulate_neighbours(parents: Sequence[Node | None], gradients: Sequence[Gradient]) -> Collection[int]:
    """Accumulate several gradients in one operation, if they are neighbours in memory and so are their destinations.

    It is tried for all vectors together, and for the parts of each lazy gradient. Returns the indices of the gradients that were
    accumulated; the others are left to the caller.
    """
    groups: dict[LazyGradient | None, list[int]] = {}  # indices of gradients, by the lazy gradient that they are parts of, or None
    for i, (parent, gradient) in enumerate(zip(parents, gradients, strict=True)):
        if type(parent) is Leaf and parent.hooks is None and parent.view is not None:
            whole = gradient.whole if isinstance(gradient, LAZY) else None
            if whole is not None or len(parent.shape) == 1:
                groups.setdefault(whole, []).append(i)
    return {i for group in groups.values() if _accumulate_group([(parents[i], gradients[i]) for i in group]) for i in group}


def _accumulate_group(pairs: Sequence[tuple[Any, Gradient]]) -> bool:
    """Accumulate the gradients of these leaves in one operation; return False, with nothing done, if that is not possible."""
    if len(pairs) < 2 or any(g is None or g.shape != leaf.shape or g.dtype != leaf.dtype for leaf, g in pairs):
        return False
    leaves = [leaf for leaf, _ in pairs]
    views, gradient = neighbours([leaf.view for leaf in leaves]), joined([g for _, g in pairs])
    if views is None or gradient is None:
        return False
    with ExitStack() as locks:
        for leaf in leaves:  # in the order of their addresses, so that two threads cannot deadlock
            locks.enter_context(leaf.lock)
        earlier = [leaf.grad is not None for leaf in leaves]
        if any(earlier) and not all(earlier):
            return False
        _store(gradient, views, all(earlier))
        for leaf in leaves:
            leaf.grad = leaf.view
    return True
