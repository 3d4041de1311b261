"""Anomaly mode: find the operation that made the first NaN or infinity, forward or backward, and the user's line that called it.

An operation is said to have *made* a bad number only if all its inputs were finite; otherwise the bad input is named. Negative infinity
that is already in an input may pass through (additive masks hold it); NaN and positive infinity that result from it are reported.
"""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from minigrad.backend import to_numpy
from minigrad.backend.gradients import dense
from minigrad.errors import NonFiniteError
from minigrad.modes import Mode

detecting: ContextVar[bool] = ContextVar("detecting", default=False)

_PACKAGE = os.path.dirname(__file__) + os.sep


def detect_anomaly() -> Mode[bool]:
    """Context manager or decorator: the first NaN or infinity, forward or backward, raises a NonFiniteError that names its operation.

    Run the forward pass inside, too, because each recorded operation then notes the user's line that called it. Negative infinity in masks
    may pass. A backward pass that raises in this mode changes no `.grad`. The mode is slow: every result is read once more.
    """
    return Mode(detecting, True)


class Call(NamedTuple):
    """The record that anomaly mode attaches to the node of an operation."""

    line: str
    """The user's file:line."""
    tainted: str
    """A description of the inputs that were not finite; empty if all were."""


def checked_call(name: str, args: tuple[Any, ...], arrays: list[Any], constants: dict[str, Any], output: Any) -> Call:
    """Check the inputs and outputs of an operation.

    Raises: NonFiniteError naming the operation, its line, the inputs and the number of bad entries.
    """
    numbers = [(f"input {i}{_name_of(arg)}", array) for i, (arg, array) in enumerate(zip(args, arrays, strict=True)) if array is not None]
    numbers += [(f"the constant {key}", value) for key, value in constants.items() if isinstance(value, float | np.floating)]
    tainted = [(what, value) for what, value in numbers if _describe_bad(value)]
    call = Call(_callers_line(), "; ".join(f"{what} held {_describe_bad(value)}" for what, value in tainted))
    masked = any(np.isneginf(_host(value)).any() for _, value in tainted)
    outputs = output if type(output) is tuple else (output,)
    for i, result in enumerate(outputs):
        bad = _describe_bad(result, but_negative_infinity=masked)
        if bad:
            where = f"output {i}" if len(outputs) > 1 else "output"
            read = ", ".join(f"{what} {described(value)}" for what, value in numbers)
            verb = "passed on" if call.tainted else "made"
            why = f"its inputs were not finite: {call.tainted}" if call.tainted else "all its inputs were finite"
            raise NonFiniteError(
                f"forward: {name}, called at {call.line}, {verb} {bad} in its {where} of shape {tuple(result.shape)}; {why} ({read})"
            )
    return call


def check_gradient(gradient: Any, what: str, node: Any) -> None:
    """Check a gradient before the pullback of `node` receives it. Raises: NonFiniteError."""
    bad = _describe_bad(_array(gradient))
    if bad:
        raise NonFiniteError(f"backward: {what} {_output_of(node)} of shape {tuple(gradient.shape)} holds {bad}")


def check_input_gradient(node: Any, i: int, gradient: Any) -> None:
    """Check the gradient that the pullback of `node`, given a finite gradient, returned for input i.

    Raises: NonFiniteError naming the operation, its line, the input and the number of bad entries.
    """
    bad = _describe_bad(_array(gradient))
    if bad:
        call: Call | None = node.origin
        line = f"called at {call.line}" if call else "recorded outside of detect_anomaly() or by create_graph, which leaves no line"
        verb = "passed on" if call and call.tainted else "made"
        why = f"in the forward pass {call.tainted}" if call and call.tainted else "the gradient of its output was finite"
        raise NonFiniteError(
            f"backward: {node.name}, {line}, {verb} {bad} in the gradient of its input {i} ({_output_of(node.parents[i])}) "
            f"of shape {tuple(gradient.shape)}; {why} (output of shape {node.shape})"
        )


def _output_of(node: Any) -> str:
    if node.parents:
        return f"the output of {node.name}" + (f" called at {node.origin.line}" if node.origin else "")
    return node.name or "a leaf"


def _array(gradient: Any) -> Any:
    plain = dense(gradient)
    return getattr(plain, "array", plain)  # with create_graph, gradients are Tensors


def _host(value: Any) -> np.ndarray[Any, Any]:
    return to_numpy(value) if hasattr(value, "get") else np.asarray(value)  # numbers and NumPy scalars have no device


def _describe_bad(value: Any, but_negative_infinity: bool = False) -> str:
    """A description of the non-finite entries, empty if there are none."""
    array = _host(value)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return ""
    counts = {"NaN": np.isnan(array).sum(), "+inf": np.isposinf(array).sum(), "-inf": np.isneginf(array).sum()}
    if but_negative_infinity:
        del counts["-inf"]
    kinds = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    return f"{sum(counts.values())} non-finite of {array.size} values ({kinds})" if kinds else ""


def _name_of(arg: Any) -> str:
    name = getattr(arg, "name", "")  # of a parameter: its path in the model
    return f" ({name})" if name else ""


def described(value: Any) -> str:
    """An operand in an error message: dtype and shape of an array, the value of a number."""
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else repr(value)


def _callers_line() -> str:
    """file:line of the innermost frame outside of minigrad."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
