"""The exponential moving average of a model's weights, which often evaluates better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from minigrad.backend import Array, device_of, to_device
from minigrad.errors import StateDictError
from minigrad.nn import Module


class Average:
    """average ← decay · average + (1 - decay) · weight after each step, for the parameters that are trained.

    Source: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992, with the exponential weights of Tarvainen &
    Valpola, "Mean teachers are better role models", 2017. Kept in the parameters' dtype, where they are.
    """

    def __init__(self, model: Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.arrays: dict[str, Array] = {name: p.array.copy() for name, p in self._parameters.items()}

    def update(self, made: float | Array = 1.0) -> None:
        """Take the weights as they are now into the average. made: 0 leaves it as it is. Shapes: ()."""
        rate = (1 - self.decay) * made
        for name, parameter in self._parameters.items():
            average = self.arrays[name]
            average += rate * (parameter.array - average)

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Go on from saved averages of the same parameters. Raises: StateDictError for one that is missing or has another shape."""
        for name, average in self.arrays.items():
            saved = arrays.get(name)
            if saved is None or saved.shape != average.shape or saved.dtype.kind != "f":
                found = "none" if saved is None else f"{saved.dtype} of shape {saved.shape}"
                raise StateDictError(f"the average of {name} must be floats of shape {average.shape}, found {found}")
            average[...] = to_device(saved, device_of(average))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside: the model has the average for its weights. On leaving it has its own again, to the last bit."""
        own = {name: parameter.array.copy() for name, parameter in self._parameters.items()}
        try:
            for name, parameter in self._parameters.items():
                parameter.assign(self.arrays[name])
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.assign(own[name])
