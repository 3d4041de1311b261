"""Hooks: functions that users register on tensors and modules, and the handles that remove them.

Tensors and modules share these two classes, so that a handle behaves the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Self

from minigrad.errors import ArgumentError


class Hooks:
    """The functions registered on one tensor or module, in order of registration.

    This is not a list, because a module searches the lists among its attributes for layers, and a hook may happen to be a Module. A deep
    copy holds the same functions in a collection of its own, so that handles act on the original only.
    """

    def __init__(self) -> None:
        self._functions: dict[int, Callable[..., Any]] = {}
        self._keys = count()

    def add(self, function: Callable[..., Any]) -> HookHandle:
        """Register a function. Raises: ArgumentError if it is not callable."""
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
    """Removes one hook: by `remove()`, or at the end of a `with` block."""

    def __init__(self, functions: dict[int, Callable[..., Any]], key: int) -> None:
        self._functions, self._key = functions, key

    def remove(self) -> None:
        """Remove the hook; removing it again does nothing."""
        self._functions.pop(self._key, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
