"""What a forked worker knows is a copy made by the fork: here is seen when that copy has become old."""

from __future__ import annotations

import gc
from collections.abc import Collection
from typing import Any
from weakref import ref

from minigrad.nn.module import Module
from minigrad.parameter import Buffer, Parameter
from minigrad.tensor import Tensor

PLAIN = (bool, int, float, str)
"""Types of the attributes of modules that are compared: the mode, a dropout's rate."""


class Surroundings:
    """What a function may read, as it was at a fork: all modules, parameters, buffers. A function does not say what it calls, so all that
    exist are looked at.

    shared: parameters whose numbers the processes share, so that a change of these is no news.
    """

    def __init__(self, shared: Collection[Parameter] = ()) -> None:
        self._shared = shared
        found = [o for o in gc.get_objects() if issubclass(type(o), Module | Parameter | Buffer)]  # type(): proxies may lie to isinstance
        self._before = [(ref(o), self._mark(o)) for o in found]  # weak: models that nobody else holds may go

    def changed(self) -> bool:
        """Whether a fork made now would know something else than one made when this object was."""
        return any((thing := known()) is not None and mark != self._mark(thing) for known, mark in self._before)

    def _mark(self, thing: Module | Parameter | Buffer) -> Any:
        """What is compared: of a module its plain attributes, and which modules and tensors are the others."""
        if isinstance(thing, Module):
            kept = {name: value for name, value in vars(thing).items() if isinstance(value, (*PLAIN, Module, Tensor))}
            return {name: value if isinstance(value, PLAIN) else ref(value) for name, value in kept.items()}
        if isinstance(thing, Parameter):
            return thing.requires_grad, None if thing in self._shared else thing.leaf.version
        return _Identity(thing.array)

    # ---------------------------------------------------------------- in a worker
    def strangers(self) -> list[Parameter]:
        """The parameters that are not shared, without their gradients."""
        found = [p for known, _ in self._before if isinstance(p := known(), Parameter) and p not in self._shared]
        for p in found:
            p.zero_grad()
        return found


class _Identity:
    """Equal to an identity of the same object only; keeps it, so that no other can take its place in memory."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.thing is other.thing

    __hash__ = None  # type: ignore[assignment]
