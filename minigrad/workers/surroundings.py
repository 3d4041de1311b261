"""What a forked worker knows is a copy made by the fork: here is seen when that copy has become old."""

from __future__ import annotations

import gc
from collections.abc import Collection
from typing import Any, Protocol
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
        for known, mark in self._before:
            thing = known()
            if thing is not None and not mark.fits(thing):
                return True
        return False

    def _mark(self, thing: Module | Parameter | Buffer) -> _Mark:
        if isinstance(thing, Module):
            return _OfModule(thing)
        return _OfParameter(thing, thing not in self._shared) if isinstance(thing, Parameter) else _OfBuffer(thing)

    def parameters(self) -> list[Parameter]:
        """All that there were, and still are."""
        return [p for known, _ in self._before if isinstance(p := known(), Parameter)]

    # ---------------------------------------------------------------- in a worker
    def strangers(self) -> list[Parameter]:
        """The parameters that are not shared, without their gradients."""
        found = [p for known, _ in self._before if isinstance(p := known(), Parameter) and p not in self._shared]
        for p in found:
            p.zero_grad()
        return found


class _Mark(Protocol):
    """What is compared. It is asked in every step, of every module and parameter there is."""

    def fits(self, thing: Any) -> bool:
        """Whether the thing is as it was."""


class _OfModule:
    """Its plain attributes, and which modules and tensors are the others. Mostly all are the same objects, which is seen faster."""

    def __init__(self, module: Module) -> None:
        self._kept = _kept(module)
        attributes = vars(module)
        self._count = len(attributes)
        self._plain = [(name, value) for name, value in attributes.items() if isinstance(value, PLAIN)]
        self._weak = [(name, mark) for name, mark in self._kept.items() if isinstance(mark, ref)]
        self._others = [(name, type(value)) for name, value in attributes.items() if name not in self._kept]

    def fits(self, module: Module) -> bool:
        return self._is_untouched(vars(module)) or self._kept == _kept(module)

    def _is_untouched(self, attributes: dict[str, Any]) -> bool:
        if len(attributes) != self._count:
            return False
        for name, value in self._plain:
            if attributes.get(name) is not value:
                return False
        for name, known in self._weak:
            if attributes.get(name) is not known():
                return False
        return all(type(attributes.get(name)) is kind for name, kind in self._others)


def _kept(module: Module) -> dict[str, Any]:
    kept = {name: value for name, value in vars(module).items() if isinstance(value, (*PLAIN, Module, Tensor))}
    return {name: value if isinstance(value, PLAIN) else ref(value) for name, value in kept.items()}


class _OfParameter:
    """Whether it is trained, and of whose numbers are not shared how often they have changed."""

    def __init__(self, parameter: Parameter, alone: bool) -> None:
        self._alone, self._trained, self._version = alone, parameter.requires_grad, parameter.leaf.version

    def fits(self, parameter: Parameter) -> bool:
        return parameter.requires_grad is self._trained and (not self._alone or parameter.leaf.version == self._version)


class _OfBuffer:
    """Its array, which is kept, so that no other can take its place in memory."""

    def __init__(self, buffer: Buffer) -> None:
        self._array = buffer.array

    def fits(self, buffer: Buffer) -> bool:
        return buffer.array is self._array
