"""The exponential moving average of a model's weights, which often evaluates better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from minigrad.backend import Array, device_of, to_device
from minigrad.errors import ArgumentError, GraphError, StateDictError
from minigrad.optim import Optimizer


class Average:
    """average ← decay · average + (1 - decay) · weight after each step, for the parameters of an optimizer.

    Source: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992, with the exponential weights of Tarvainen &
    Valpola, "Mean teachers are better role models", 2017. It has the parameters' dtype, device and memory layout.
    Raises: ArgumentError for what is no optimizer, and a decay that is not above 0 and below 1.
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"an average takes the optimizer of the weights, got {type(optimizer).__name__}")
        if not 0 < decay < 1:
            raise ArgumentError(f"the average of weights takes a decay above 0 and below 1, got {decay!r:.80}")
        self.rate = 1 - decay
        self._optimizer, self._arena = optimizer, optimizer.arena
        arena = self._arena
        self._parameters = {name: p for p, name in arena.names.items()}
        self._flat: Array = arena.data.copy()
        self._tables = {arena.names[p]: p.array.copy() for p in arena.tables}
        averages = self._tables | {arena.names[place.parameter]: place.of(self._flat) for place in arena.places}
        self.arrays: dict[str, Array] = {name: averages[name] for name in self._parameters}

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """Weights and their average, in blocks as the optimizer updates them. Raises: GraphError if the optimizer has been moved."""
        if self._optimizer.arena is not self._arena:
            moved = "the optimizer has moved to another device since its average was made: make the average afterwards"
            raise GraphError(moved, code="graph-owner")
        for start in range(0, len(self._flat), self._arena.block):
            block = slice(start, start + self._arena.block)
            yield self._arena.data[block], self._flat[block]
        for name, average in self._tables.items():
            yield self._parameters[name].array, average

    def update(self) -> None:
        """Update the average with the current weights."""
        for weights, average in self.blocks():
            step = weights - average
            step *= self.rate
            average += step

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Load saved averages of the same parameters. Raises: StateDictError for one that is missing or has another shape."""
        for name, average in self.arrays.items():
            saved = arrays.get(name)
            if saved is None or saved.shape != average.shape or saved.dtype.kind != "f":
                found = "none" if saved is None else f"{saved.dtype} of shape {saved.shape}"
                raise StateDictError(f"the average of {name} must be floats of shape {average.shape}, found {found}")
            average[...] = to_device(saved, device_of(average))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the model has the average as its weights. At the end its own weights return, to the last bit."""
        own = {name: parameter.array.copy() for name, parameter in self._parameters.items()}
        try:
            for name, parameter in self._parameters.items():
                parameter.assign(self.arrays[name])
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.assign(own[name])
