"""Modes: settings that hold inside a `with` block, for the current thread or task only."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import Any, Generic, ParamSpec, TypeVar

from minigrad.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


_entered: ContextVar[tuple[tuple[Any, Token[Any]], ...]] = ContextVar("entered", default=())
"""The modes that this thread or task has entered, innermost last, each with the token that restores the earlier value."""


class Mode(Generic[T]):
    """A context manager (and decorator) that sets one context variable and restores it, also after an exception.

    It is reentrant, and may be shared by threads and tasks: the values to restore are stored per thread or task.
    Raises: ArgumentError for decorating a generator or coroutine function, whose body runs after the call has returned.
    """

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        _entered.set((*_entered.get(), (self, self._variable.set(self._value))))

    def __exit__(self, *exception: object) -> None:
        entered = _entered.get()
        mine = max(i for i, (mode, _) in enumerate(entered) if mode is self)
        self._variable.reset(entered[mine][1])
        _entered.set(entered[:mine] + entered[mine + 1 :])

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if isgeneratorfunction(function) or iscoroutinefunction(function) or isasyncgenfunction(function):
            raise ArgumentError(
                f"a mode cannot decorate {function.__qualname__}, whose body runs after the call is over: write `with` inside of it"
            )

        @wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            with Mode(self._variable, self._value):
                return function(*args, **kwargs)

        return inside
