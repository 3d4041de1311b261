"""The exception family: every error minigrad raises on purpose is a `MinigradError`.

A message says what is wrong, where, and what to do about it. `code` is a short stable word for programs
(messages may be reworded, codes may not). Where Python has a fitting builtin exception, the error inherits
from it too, so `except ValueError` keeps working for people who never heard of this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class MinigradError(Exception):
    """Base of the family. `code` is stable across releases; the message is for people."""

    code: str = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the finished message instead of the constructor's arguments, so that errors can cross processes and be copied."""
        return with_arguments, (type(self), self.args), self.__dict__


def with_arguments(kind: type[MinigradError], arguments: tuple[Any, ...]) -> MinigradError:
    """An error with a finished message. Not made by its constructor, which would compose the message again."""
    error = kind.__new__(kind)
    error.args = arguments  # OSError's __new__ would drop them
    return error


class ArgumentError(MinigradError, ValueError):
    """An argument has a value that the function cannot use."""

    code = "argument"


class InputError(ArgumentError):
    """One of several inputs cannot be used: "text 3 has 700 tokens, …". `name`, `number` (from 0) and `reason` are the message's parts.

    A caller who knows where the inputs came from can use them to name the place.
    """

    code = "input"

    def __init__(self, name: str, number: int, reason: str, *, code: str | None = None) -> None:
        super().__init__(f"{name} {number} {reason}", code=code)
        self.name, self.number, self.reason = name, number, reason


class ShapeError(MinigradError, ValueError):
    """Shapes that do not fit the operation. The message names the operation and the shapes."""

    code = "shape"


class DTypeError(MinigradError, TypeError):
    """A dtype or Python type that the operation does not accept."""

    code = "dtype"


class IndexRangeError(MinigradError, IndexError):
    """An index (token id, label, row) outside its table. The message names the value and its place."""

    code = "index-range"


class FieldError(MinigradError, KeyError):
    """A model output has no field of that name. The message lists the fields it has."""

    code = "field"
    __str__ = MinigradError.__str__  # KeyError's would put the message in quotation marks


class GraphError(MinigradError, RuntimeError):
    """The recorded graph cannot give the requested gradient.

    Codes: graph-none (nothing was recorded), graph-freed (second backward), graph-stale (a parameter changed between forward and backward),
    graph-order (second derivatives without `higher_order`), graph-detach (a gradient would be lost), graph-owner (an optimizer or a team
    of processes holds the parameters, or they have moved), graph-recompute (a recomputed function behaved differently the second time).
    """

    code = "graph"


class NonFiniteError(MinigradError, FloatingPointError):
    """A NaN or an infinity where there must be none: in a model's output or, inside `detect_anomaly`, anywhere.

    Inside `detect_anomaly` the message names the operation, the pass, the line and the inputs.
    """

    code = "non-finite"


class GradientCheckError(MinigradError, AssertionError):
    """A derivative disagrees with finite differences."""

    code = "gradcheck"


class ContractError(MinigradError, AssertionError):
    """An operation breaks a rule: it writes to its inputs, changes a dtype, or behaves differently on arrays and on Tensors."""

    code = "contract"


class DeviceError(MinigradError, RuntimeError):
    """The device does not exist, or an operation got arrays from two devices."""

    code = "device"


class MissingExtraError(MinigradError, ImportError):
    """An optional dependency is not installed. The message names the extra that installs it."""

    code = "missing-extra"


class StateDictError(MinigradError, ValueError):
    """Names or shapes of a state dict do not match the module."""

    code = "state-dict"


class FileFormatError(MinigradError, ValueError):
    """Base of the errors about a file: has `path` besides `code`."""

    code = "file"

    def __init__(self, path: str | Path, message: str, *, code: str | None = None) -> None:
        super().__init__(f"{path}: {message}", code=code)
        self.path = str(path)


class WeightFileError(FileFormatError):
    """A weight file is broken, hostile, or of a kind that minigrad does not read."""

    code = "weight-file"


class ConfigError(FileFormatError):
    """A model configuration holds a value that minigrad does not support."""

    code = "config"


class TokenizerError(FileFormatError):
    """Tokenizer files are missing or cannot be used."""

    code = "tokenizer"


class DataError(FileFormatError):
    """A data file has a row that cannot be used. `line` is 1-based, or None for the whole file."""

    code = "data"

    def __init__(self, path: str | Path, message: str, *, line: int | None = None, code: str | None = None) -> None:
        super().__init__(path if line is None else f"{path}:{line}", message, code=code)
        self.path = str(path)
        self.line = line


class CheckpointError(FileFormatError):
    """A training checkpoint cannot be written or read. `path` is the checkpoint, the file in it, or the directory of checkpoints.

    Codes of writing: disk-full, write-failed, locked, directory-lost. Codes of reading: no-checkpoint, not-a-directory, missing-file,
    unknown-file, not-a-regular-file, unreadable-file, bad-manifest, size-mismatch, digest-mismatch, bad-state, bad-arrays.
    """

    code = "checkpoint"


class CheckpointUnavailableError(MinigradError, OSError):
    """A named checkpoint could not be obtained from any source. The message lists the ways to get it."""

    code = "checkpoint-unavailable"
