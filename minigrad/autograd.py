"""The backward pass: `propagate` carries gradients along the tape from a result to its inputs.

It is iterative, frees each pullback right after use, and sums gradients in place where it owns the buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import prod
from operator import attrgetter
from typing import Any

import numpy as np

from minigrad.anomaly import check_gradient, check_input_gradient, detecting
from minigrad.backend import namespace_of
from minigrad.backend.gradients import LAZY, RowSparse, dense, read_only
from minigrad.errors import ContractError, GraphError, MinigradError
from minigrad.modes import Mode
from minigrad.tape import Gradient, Leaf, Node, Pullback, accumulate_neighbours


def sum_to(gradient: Gradient, shape: tuple[int, ...]) -> Gradient:
    """Undo broadcasting: sum the gradient over the axes along which an input of `shape` was broadcast.

    Raises: ContractError for a gradient that cannot be summed to that shape.
    """
    if gradient.shape == shape:
        return gradient
    gradient = dense(gradient)
    extra = gradient.ndim - len(shape)
    if extra < 0 or any(n not in (1, have) for n, have in zip(shape, gradient.shape[extra:], strict=True)):
        raise ContractError(f"a pullback returned a gradient of shape {tuple(gradient.shape)} for an input of shape {shape}")
    xp = namespace_of(gradient)
    if extra > 0:
        gradient = xp.sum(gradient.reshape((prod(gradient.shape[:extra]), *gradient.shape[extra:])) if extra > 1 else gradient, axis=0)
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return xp.sum(gradient, axis=repeated, keepdims=True) if repeated else gradient


def reachable(roots: Sequence[Node], since: int = 0) -> list[Node]:
    """All nodes from `roots` back to the leaves, earliest first. Parents of nodes recorded before `since` are not followed."""
    seen, stack = set(roots), list(roots)
    while stack:
        node = stack.pop()
        if since and node.order < since:
            continue
        for parent in node.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=attrgetter("order"))


def _check_usable(nodes: list[Node], walked: set[Node], create_graph: bool) -> None:
    """Check that the backward pass is possible, before any gradient is accumulated. Raises: GraphError if it is not."""
    for node in reversed(nodes):
        for leaf, version in node.guards:
            if leaf.version != version:
                raise GraphError(
                    f"{leaf.name or 'a parameter'} changed between the forward pass of {node.name} and this backward pass; "
                    "run the forward pass again after changing parameters",
                    code="graph-stale",
                )
        if node.pullback is None and node.parents and node in walked:
            raise GraphError(
                f"the graph of {node.name} was freed by an earlier backward pass: "
                "run the forward pass again, or pass retain_graph=True the first time",
                code="graph-freed",
            )
        if create_graph and node.replay is None and node.parents and node.output_index is None and node in walked:
            raise GraphError(
                f"{node.name} was recorded without its inputs, so its gradient cannot itself be differentiated: "
                "run the forward pass inside `with minigrad.higher_order():`",
                code="graph-order",
            )


def propagate(
    seeds: Sequence[tuple[Node, Gradient]],
    targets: Sequence[Node] | None = None,
    *,
    since: int = 0,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> dict[Node, Gradient]:
    """Carry gradients from the nodes of `seeds` back through the graph.

    Without `targets` every leaf accumulates its gradient. With them leaves are left alone, only paths that lead to a target are followed,
    and the targets' gradients are returned (without those that the seeds do not depend on). Nodes recorded before `since` are end points:
    the pass does not go through them and does not run their hooks, which belong to the outer backward pass.

    Raises: GraphError (codes graph-freed, graph-stale, graph-order); ContractError for a pullback that writes to its incoming gradient or
    returns too few or too many gradients; NonFiniteError in anomaly mode.
    """
    nodes = reachable([root for root, _ in seeds], since)
    wanted = set(nodes) if targets is None else set()  # nodes whose gradient is needed; `walked`: nodes whose pullback is called
    if targets is not None:
        goals = set(targets)
        for node in nodes:  # earliest first: parents are decided before their children
            if node in goals or any(parent in wanted for parent in node.parents):
                wanted.add(node)
    walked = wanted if targets is None else {n for n in nodes if n in wanted and n.order >= since and any(p in wanted for p in n.parents)}
    _check_usable(nodes, walked, create_graph)
    checking = detecting.get()
    pending: dict[Node, Gradient] = {}
    owned: set[Node] = set()  # nodes whose pending gradient is a buffer allocated here, which may be added to in place
    for root, gradient in seeds:
        if checking:
            check_gradient(gradient, "the gradient that was passed in at", root)
        if root in pending:
            _add(pending, owned, root, gradient, in_place=not create_graph)
        else:
            pending[root] = gradient
    results: dict[Node, Gradient] = {}
    leaf_totals: list[tuple[Leaf, Gradient]] = []
    while nodes:
        node = nodes.pop()
        g = pending.pop(node, None)
        if g is None:
            continue
        if checking and type(g) is not list:
            check_gradient(g, "the sum of the gradients that met at", node)
        if node.hooks is not None and node in wanted and node.order >= since:
            for hook in node.hooks:
                g = hook(g)
                if checking:
                    check_gradient(g, "what a hook returned at", node)
        if targets is not None and node in goals:
            results[node] = g
        if not node.parents or node not in wanted:
            if targets is None and isinstance(node, Leaf):
                leaf_totals.append((node, g))
            continue
        if node not in walked:
            continue
        if node.output_index is not None:  # one output of several: put g into the parent's list of gradients
            source: Any = node.parents[0]
            pending.setdefault(source, [None] * len(source.shape))[node.output_index] = dense(g)
            continue
        pullback = node.pullback
        if create_graph and node.replay is not None:
            pullback = _without_anomaly_checks(node.replay) if checking else node.replay()
        if not (retain_graph or create_graph):
            node.pullback = None
        g = tuple([read_only(part) for part in g]) if type(g) is list else read_only(g)
        try:
            separate = type(pullback) is tuple  # one function per input: each gradient is passed on before the next is computed
            gradients = pullback if separate else pullback(g)
            if type(gradients) is not tuple:
                gradients = (gradients,)
            if len(gradients) != len(node.parents):
                raise ContractError(
                    f"the pullback of {node.name} gave {len(gradients)} gradients for {len(node.parents)} inputs: each has one, or None",
                    code="contract-pullback",
                )
            accumulated: Collection[int] = ()  # indices of gradients that were accumulated together, to save launches
            if not (type(g) is np.ndarray or separate or checking or create_graph or targets is not None):
                accumulated = accumulate_neighbours(node.parents, gradients)
            for i, parent in enumerate(node.parents):
                if parent is None or parent not in wanted or i in accumulated:
                    continue
                contribution = gradients[i]
                if separate and contribution is not None:
                    contribution = contribution(g)
                if contribution is None:
                    continue
                if checking:
                    check_input_gradient(node, i, contribution)
                if contribution.shape != parent.shape:
                    contribution = sum_to(contribution, parent.shape)
                if contribution.dtype != parent.dtype:
                    contribution = contribution.astype(parent.dtype)
                if targets is None and type(parent) is Leaf and parent.hooks is None and not checking:
                    parent.accumulate(contribution)
                elif parent in pending:
                    _add(pending, owned, parent, contribution, in_place=not create_graph)
                else:
                    pending[parent] = contribution
        except ValueError as error:
            if isinstance(error, MinigradError) or "read-only" not in str(error):
                raise
            raise ContractError(
                f"the pullback of {node.name} writes to an array that others may read, its incoming gradient or what it keeps ({error}); "
                "let it make one of its own",
                code="contract-purity",
            ) from error
        pullback = g = gradients = contribution = None  # free the buffers before the next pullback runs
    for leaf, total in leaf_totals:  # last, so that after an error in a hook or a check these leaves are unchanged
        leaf.accumulate(total)
    return results


def _without_anomaly_checks(replay: Callable[[], Pullback]) -> Pullback:
    """A replayed pullback without anomaly checks: it consists of operations on Tensors, whose intermediate results may be infinite."""
    off = Mode(detecting, False)
    pullback = off(replay)()
    return tuple([None if f is None else off(f) for f in pullback]) if type(pullback) is tuple else off(pullback)


def _add(pending: dict[Node, Gradient], owned: set[Node], node: Node, contribution: Gradient, *, in_place: bool) -> None:
    """Add a gradient to the one that is pending for `node`.

    A single contribution is borrowed and must not be written to. The sum of two is a new array, to which later ones are added in place.
    """
    earlier = pending[node]
    if isinstance(earlier, RowSparse) and isinstance(contribution, RowSparse):
        pending[node] = earlier.joined(contribution)
    elif node in owned:
        if isinstance(contribution, LAZY):
            contribution.into(earlier, accumulate=True)
        else:
            earlier += contribution
    else:
        total = dense(earlier) + dense(contribution)
        pending[node] = total
        if in_place and isinstance(total, np.ndarray) and total.ndim:  # a 0-d sum is a NumPy scalar, which += would rebind
            owned.add(node)
