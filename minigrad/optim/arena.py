"""The arena: all parameters of one optimizer in one flat buffer, and all their gradients in another.

An update then runs over long contiguous ranges instead of two hundred small arrays, and neighbouring parameters can be read as one
matrix (`backend.layout.neighbours`). Large gathered tables are kept outside (`table.py`): their gradients have only a few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from minigrad.backend import Array, namespace_of
from minigrad.backend.gradients import dense
from minigrad.errors import ArgumentError, GraphError
from minigrad.optim.updates import Update
from minigrad.parameter import Parameter
from minigrad.tape import Leaf

Allocate: TypeAlias = Callable[[tuple[int, ...], Any], Array]
"""(shape, dtype) → an array of zeros."""

Block: TypeAlias = tuple[Array, Array, tuple[Array, ...]]
"""The flat parameter, gradient and moments of one call of a rule's kernel."""

TABLE_ROWS = 4096
"""A gathered parameter with at least this many rows is kept outside the arena, as a `Table`. A batch touches a few thousand rows at most:
in smaller parameters (BERT's 512 positions, 2 segments) most rows are touched soon, and a contiguous range of the arena is updated faster
than rows are gathered. On a GPU there are no tables: it updates a whole vocabulary faster than the host could learn which rows changed."""

BLOCK_BYTES = {"cpu": 1 << 18, "cuda": 1 << 28}
"""Updates run in blocks. On a CPU a block of parameter, gradient, two moments and scratch should stay in the second-level cache (1 to
2 MiB); on a GPU fewer launches are better, and the limit only bounds the scratch memory."""


def is_table(p: Parameter) -> bool:
    """Whether `p` is a large gathered parameter, whose state may be kept by rows."""
    return p.gathered and p.ndim == 2 and p.shape[0] >= TABLE_ROWS


def block_length(array: Array) -> int:
    """The number of elements in a block, for `array`'s device and dtype."""
    return int(BLOCK_BYTES[namespace_of(array).DEVICE] // array.dtype.itemsize)


@dataclass(slots=True)
class Place:
    """A parameter's range in the flat buffers: elements start to stop. `group` is the number of its parameter group."""

    parameter: Parameter
    group: int
    start: int
    stop: int

    def of(self, flat: Array) -> Array:
        """The parameter's part of a flat buffer, in the parameter's shape."""
        return flat[self.start : self.stop].reshape(self.parameter.shape)


class Arena:
    """Moves the parameters of all groups into flat buffers: per group matrices (ndim >= 2) first, then vectors, each in the given order.

    Parameters and gradients become views; values and gradients that exist already are kept. Parameters of another optimizer are taken over.

    Raises: ArgumentError unless all parameters share one dtype and one device.
    """

    def __init__(self, groups: Sequence[Sequence[Parameter]], names: Mapping[Parameter, str]) -> None:
        self.names = names
        everyone = [p for group in groups for p in group]
        _check_alike(everyone, names)
        self.tables = [p for p in everyone if is_table(p) and p.device == "cpu"]
        self.places: list[Place] = []
        at = 0
        for number, group in enumerate(groups):
            inside = [p for p in group if p not in self.tables]
            for p in [*(p for p in inside if p.ndim >= 2), *(p for p in inside if p.ndim < 2)]:
                self.places.append(Place(p, number, at, at + p.size))
                at += p.size
        example = everyone[0].array
        self.xp = namespace_of(example)
        self.block = block_length(example)
        self.allocate: Allocate = self.xp.zeros
        self.data: Array = self.xp.empty(at, example.dtype)
        self.gradients: Array = self.xp.empty(at, example.dtype)
        for place in self.places:
            p, view = place.parameter, place.of(self.data)
            view[...] = p.array
            p.replace_storage(view)
            _move_gradient(p.leaf, place.of(self.gradients))
        for p in everyone:
            p.owner = self

    def move(self, allocate: Allocate) -> None:
        """Move parameters and gradients into arrays made by `allocate`: into memory that processes share, or back.

        Parameters that another optimizer has taken over stay with it. Views of parameters taken earlier keep the old memory.
        """
        self.allocate = allocate
        self.data, self.gradients = copied(self.data, allocate), copied(self.gradients, allocate)
        for place in self.places:
            p = place.parameter
            if p.owner is self:
                p.replace_storage(place.of(self.data))
                p.leaf.view = place.of(self.gradients)
                if p.leaf.grad is not None:
                    p.leaf.grad = p.leaf.view

    def attach(self) -> None:
        """Make the parameters views of this arena again, without gradients, after they were moved elsewhere."""
        for place in self.places:
            p = place.parameter
            p.replace_storage(place.of(self.data))
            p.leaf.view = place.of(self.gradients)
        for p in self.names:
            p.zero_grad()
            p.owner = self

    def blocks(self, update: Update, moments: Sequence[Array]) -> Iterator[Block]:
        """The blocks of one update."""
        for start in range(update.start, update.stop, self.block):
            block = slice(start, min(start + self.block, update.stop))
            yield self.data[block], self.gradients[block], tuple([m[block] for m in moments])

    def gradient_runs(self) -> list[Array] | None:
        """The existing gradients as flat arrays, one for each run of neighbours; for reading only.

        None if some lie elsewhere: another optimizer has taken parameters over, or there are tables.
        """
        if any(p.owner is not self for p in self.names) or self.tables:
            return None
        runs: list[list[int]] = []
        for place in self.places:
            leaf = place.parameter.leaf
            if leaf.grad is None:
                continue
            if leaf.grad is not leaf.view:
                return None
            if runs and runs[-1][1] == place.start:
                runs[-1][1] = place.stop
            else:
                runs.append([place.start, place.stop])
        return [self.gradients[start:stop] for start, stop in runs]

    def check_ownership(self) -> None:
        """Raises: GraphError (graph-owner) if another optimizer has taken a parameter over."""
        for p, name in self.names.items():
            if p.owner is not self:
                raise GraphError(
                    f"{name} belongs to another optimizer, which was built later: one optimizer changes a parameter; use that one, "
                    "or give this one's parameters to a new optimizer",
                    code="graph-owner",
                )


def copied(array: Array, allocate: Allocate, used: int | None = None) -> Array:
    """The same numbers in a new array; only the first `used` along axis 0, if the rest has never been written."""
    copy = allocate(array.shape, array.dtype)
    copy[:used] = array[:used]
    return copy


def _check_alike(parameters: Sequence[Parameter], names: Mapping[Parameter, str]) -> None:
    first = parameters[0]
    for p in parameters:
        if p.dtype != first.dtype or p.device != first.device:
            raise ArgumentError(
                f"one optimizer takes parameters of one dtype on one device: {names[first]} is {first.dtype} on {first.device}, "
                f"{names[p]} is {p.dtype} on {p.device}; convert the model first, or build two optimizers"
            )


def _move_gradient(leaf: Leaf, view: Array) -> None:
    """Store the gradients of `leaf` in `view` from now on, including an existing one."""
    leaf.view = view
    if leaf.grad is not None:
        view[...] = dense(leaf.grad)
        leaf.grad = view
