"""Detects that forked workers or CUDA graphs are out of date: both know modules and parameters as they were at the fork or the capture."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import Any, Protocol
from weakref import ref

from minigrad.hooks import Hooks
from minigrad.nn.module import Module
from minigrad.parameter import Buffer, Parameter
from minigrad.tensor import Tensor

PLAIN = (bool, int, float, str)
"""Types of the attributes of modules that are compared: the mode, a dropout's rate."""

CONTAINERS = (list, tuple, dict)
"""Types of attributes that are searched for modules and tensors."""

COMPARABLE = (*PLAIN, type(None), Module, Tensor)
"""Types that `==` compares as needed: modules and tensors are only equal to themselves."""

WATCHED = (Module, Parameter, Buffer)

_TRAINED = attrgetter("requires_grad")


def _with_subclasses(base: tuple[type, ...] = WATCHED) -> set[type]:
    """The classes and all their subclasses. Every object refers to its class, so `gc.get_referrers` of these finds all instances.
    `gc.get_objects` would hold a reference to every object for a while, also to tuples that other threads are still building, which Python
    cannot resize then (SystemError)."""
    return {kind for one in base for kind in (one, *_with_subclasses(tuple(type.__subclasses__(one))))}


class ModelSnapshot:
    """A snapshot, at a fork or a capture, of what a function may read: modules, parameters, buffers. Which ones it uses is unknown, so all
    that exist are in it.

    shared: parameters whose values are in shared memory, so that new values are no change. held: modules that the owner of this object
    keeps alive anyway; they are compared faster. values: whether new values of the other parameters are a change.
    """

    def __init__(self, shared: Collection[Parameter] = (), held: Iterable[Module] = (), values: bool = True) -> None:
        self._shared = shared
        self._trained = list(map(_TRAINED, shared))
        simple = [module for module in held if all(isinstance(value, COMPARABLE) for value in vars(module).values())]
        self._attributes, self._attributes_before = [vars(module) for module in simple], [dict(vars(module)) for module in simple]
        apart = set(map(id, simple))
        found = [o for o in gc.get_referrers(*_with_subclasses()) if issubclass(type(o), WATCHED)]  # type(): proxies may deceive isinstance
        watched = [o for o in found if id(o) not in apart and not (isinstance(o, Parameter) and o in shared)]
        self._before = [(ref(o), _fingerprint(o, values)) for o in watched]  # weak references, so that unused models can be freed
        self.hooked = any(list(hooks or ()) for o in found if isinstance(o, Module) for hooks in (o._forward_hooks, o._forward_pre_hooks))
        """Whether modules had hooks, which a replay would not call."""

    def changed(self) -> bool:
        """Whether a fork or a capture made now would differ from one made when this snapshot was taken."""
        if self._attributes != self._attributes_before or list(map(_TRAINED, self._shared)) != self._trained:
            return True
        for known, fingerprint in self._before:
            thing = known()
            if thing is not None and not fingerprint.matches(thing):
                return True
        return False

    def restore_buffers(self) -> None:
        """Give buffers their former arrays back: arrays set during a capture are in the graph's memory, and hold no values yet."""
        for known, fingerprint in self._before:
            if isinstance(fingerprint, _BufferFingerprint) and isinstance(buffer := known(), Buffer):
                fingerprint.restore(buffer)

    def parameters(self) -> list[Parameter]:
        """The parameters that are not shared and still exist."""
        return [p for known, _ in self._before if isinstance(p := known(), Parameter)]

    def cleared_parameters(self) -> list[Parameter]:
        """`parameters`, with their gradients cleared."""
        found = self.parameters()
        for p in found:
            p.zero_grad()
        return found


def _fingerprint(thing: Module | Parameter | Buffer, values: bool) -> _Fingerprint:
    if isinstance(thing, Module):
        return _ModuleFingerprint(thing)
    return _ParameterFingerprint(thing, values) if isinstance(thing, Parameter) else _BufferFingerprint(thing)


class _Fingerprint(Protocol):
    """The recorded state of one object. It is compared in every step, for every module and parameter there is."""

    def matches(self, thing: Any) -> bool:
        """Whether the object is unchanged."""


class _ModuleFingerprint:
    """A module's plain attributes, its number of hooks, and the modules and tensors in its other attributes.

    In most comparisons all of them are the identical objects, so identity is checked first, which is faster.
    """

    def __init__(self, module: Module) -> None:
        self._comparable = _comparable(module)
        attributes = vars(module)
        self._count = len(attributes)
        self._plain = [(name, value) for name, value in attributes.items() if isinstance(value, PLAIN)]
        self._parts = [(name, known) for name, known in self._comparable.items() if isinstance(known, ref)]
        self._containers = [(name, len(attributes[name]), known) for name, known in self._comparable.items() if isinstance(known, list)]
        self._hooks = [(name, len(list(value))) for name, value in attributes.items() if isinstance(value, Hooks)]
        self._others = [(name, type(value)) for name, value in attributes.items() if name not in self._comparable]

    def matches(self, module: Module) -> bool:
        return self._is_identical(vars(module)) or self._comparable == _comparable(module)

    def _is_identical(self, attributes: dict[str, Any]) -> bool:
        if len(attributes) != self._count:
            return False
        for name, value in self._plain:
            if attributes.get(name) is not value:
                return False
        for name, known in self._parts:
            part = known()
            if part is None or attributes.get(name) is not part:  # a freed object must not match an attribute that is None now
                return False
        for name, count, members in self._containers:
            container = attributes.get(name)
            if not isinstance(container, CONTAINERS) or len(container) != count or (members and members != _members(container)):
                return False
        for name, count in self._hooks:
            if len(list(attributes.get(name) or ())) != count:
                return False
        return not self._others or all(type(attributes.get(name)) is kind for name, kind in self._others)  # there are rarely any


def _comparable(module: Module) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, PLAIN):
            values[name] = value
        elif isinstance(value, Module | Tensor):
            values[name] = ref(value)
        elif isinstance(value, CONTAINERS):
            values[name] = _members(value)
        elif isinstance(value, Hooks) and (count := len(list(value))):
            values[name] = count
    return values


def _members(container: Any) -> list[ref[Any]]:
    """The modules and tensors in a list, tuple or dict, nested ones included."""
    found: list[ref[Any]] = []
    waiting, seen = [container], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Module | Tensor):
            found.append(ref(value))
        elif isinstance(value, CONTAINERS) and id(value) not in seen:  # a list may hold itself
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return found


class _ParameterFingerprint:
    """Whether a parameter is trained, and its version if new values are a change."""

    def __init__(self, parameter: Parameter, values: bool) -> None:
        self._trained, self._version = parameter.requires_grad, parameter.leaf.version if values else None

    def matches(self, parameter: Parameter) -> bool:
        return parameter.requires_grad is self._trained and self._version in (None, parameter.leaf.version)


class _BufferFingerprint:
    """The array of a buffer. It is kept alive, so that no new array can have its identity."""

    def __init__(self, buffer: Buffer) -> None:
        self._array = buffer.array

    def matches(self, buffer: Buffer) -> bool:
        return buffer.array is self._array

    def restore(self, buffer: Buffer) -> None:
        if not self.matches(buffer):
            buffer.replace_storage(self._array)
