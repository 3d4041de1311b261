"""Samples of operations, and the table of the strategies that draw them (rows)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minigrad.op import COMPOSITES, REGISTRY, Composite, Op


@dataclass(frozen=True)
class Sample:
    """Positional arguments and constants of one call. Floating arrays are the inputs whose gradient is checked."""

    args: tuple[Any, ...]
    constants: dict[str, Any]
    gathered: bool = False
    """Whether the function takes its arrays as one sequence (`stack`)."""

    @property
    def floating(self) -> list[int]:
        """The positions of the differentiable arguments."""
        return [i for i, a in enumerate(self.args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]

    def with_args(self, args: Any) -> Sample:
        return replace(self, args=tuple(args))

    def in_float32(self) -> Sample:
        """The same call in float32."""
        args = [a.astype(np.float32) if i in self.floating else a for i, a in enumerate(self.args)]
        return replace(
            self, args=tuple(args), constants=self.constants | ({"dtype": np.dtype("float32")} if "dtype" in self.constants else {})
        )

    def call(self, function: Any, args: Any) -> Any:
        """Call the function with this sample's constants, but other arguments."""
        return function(list(args), **self.constants) if self.gathered else function(*args, **self.constants)


CASES: dict[str, st.SearchStrategy[Sample]] = {}

PUBLIC: dict[str, Op[Any] | Composite] = {**REGISTRY, **COMPOSITES}
"""Everything that needs a row."""


def case(function: Any) -> Any:
    """Decorator: register a composite strategy as the row of the operation of the same name."""
    strategy = st.composite(function)()
    CASES[function.__name__.rstrip("_")] = strategy
    return strategy
