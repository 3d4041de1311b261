"""The interface of all readers of weights: named tensors, whatever their files and format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minigrad.errors import WeightFileError
from minigrad.files import quoted
from minigrad.io._weight_bytes import read_dtype


class WeightSource(ABC):
    """Named tensors in one or more files, checked before any of them is read; use it in a `with` statement.

    Raises: WeightFileError with a stable `code` from every method, for a file that is broken, hostile or changed meanwhile.
    """

    path: Path
    """The file to name in messages."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the files; arrays already read stay valid."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The tensors' names."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`."""

    @abstractmethod
    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype of `read(name)`: the stored one, but float32 for float16 and bfloat16 (it holds all their values exactly)."""

    def read(self, name: str, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Tensor `name` as a fresh array of `dtype`, or of `self.dtype(name)`.

        Raises: as `read_into`.
        """
        out = np.empty(self.shape(name), self.dtype(name) if dtype is None else dtype)
        self.read_into(name, out)
        return out

    @abstractmethod
    def read_into(self, name: str, out: NDArray[Any]) -> None:
        """Read tensor `name` into `out`, a writable C-contiguous array of the same shape, without a second copy of it.

        Any float dtype is converted to any other; integers and booleans only where every value fits. A byte of a boolean other than 0
        counts as True. After an error the content of `out` is undefined.

        Raises: ShapeError, ArgumentError or DTypeError when `out` does not fit the tensor; WeightFileError with the code `file-changed`,
        `missing-tensor`, `unreadable-file`, `crc-mismatch` where the format has checksums, or `value-overflow` for a finite value beyond
        `out`'s dtype.
        """


class Entry(Protocol):
    """A reader's description of a tensor."""

    @property
    def dtype(self) -> str:
        """The stored dtype, by its name in `STORED_DTYPES`."""

    @property
    def shape(self) -> tuple[int, ...]: ...


E = TypeVar("E", bound=Entry)


class Described(WeightSource, Generic[E]):
    """A source that reads the descriptions of all its tensors when it is opened."""

    _entries: Mapping[str, E]

    def names(self) -> tuple[str, ...]:
        """The tensors' names, in the order of the description."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        return read_dtype(self._entry(name).dtype)

    def _entry(self, name: str) -> E:
        entry = self._entries.get(name)
        if entry is None:
            message = f"there is no tensor {quoted(name)} among the {len(self._entries)} of this file; `names()` lists them"
            self._fail("missing-tensor", message)
        return entry

    def _fail(self, code: str, message: str) -> NoReturn:
        raise WeightFileError(self.path, message, code=code)
