"""Hooks: functions that users hang on tensors and modules, and the handles that take them off again.

Tensors and modules share these two classes, so that a handle behaves the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Self

from minigrad.errors import ArgumentError


class Hooks:
    """The functions hung on one thing, in the order of registration.

    It is no list: the walk over a module's attributes must not take a hook that happens to be a Module for a layer. A copy (of the module)
    gets the same functions in a collection of its own, so that handles keep acting on the original only.
    """

    def __init__(self) -> None:
        self._functions: dict[int, Callable[..., Any]] = {}
        self._keys = count()

    def add(self, function: Callable[..., Any]) -> HookHandle:
        """Hang up one more function. Raises: ArgumentError if it cannot be called."""
        if not callable(function):
            raise ArgumentError(f"a hook is a function, got {type(function).__name__}")
        key = next(self._keys)
        self._functions[key] = function
        return HookHandle(self._functions, key)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(list(self._functions.values()))  # a hook may remove itself while it runs

    def __deepcopy__(self, memo: dict[int, Any]) -> Hooks:
        copy = Hooks()
        for function in self:
            copy.add(function)
        return copy


class HookHandle:
    """Takes one hook off again: by `remove()`, or at the end of a `with` block."""

    def __init__(self, functions: dict[int, Callable[..., Any]], key: int) -> None:
        self._functions, self._key = functions, key

    def remove(self) -> None:
        """Take the hook off; doing so again changes nothing."""
        self._functions.pop(self._key, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
