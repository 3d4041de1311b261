"""Recurrent layers: LSTM, GRU and the plain RNN, stacked and in both directions, with PyTorch's names for their parameters."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, ClassVar

from minigrad import functional as F
from minigrad.errors import ArgumentError, ShapeError
from minigrad.nn import init
from minigrad.nn.attention import pack_rows, pad_rows
from minigrad.nn.basic import Dropout
from minigrad.nn.checks import check_packing, check_sizes
from minigrad.nn.module import Module
from minigrad.packing import Packing
from minigrad.tensor import Tensor


class _Recurrent(Module):
    """Base of the three layers. A subclass names its operation and the numbers of its gates and states."""

    operation: ClassVar[Callable[..., Any]]
    gates: ClassVar[int]
    states: ClassVar[int]

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, dropout: float = 0.0, bidirectional: bool = False
    ) -> None:
        check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.directions = ("", "_reverse") if bidirectional else ("",)
        height, bound = self.gates * hidden_size, 1.0 / sqrt(hidden_size)
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * len(self.directions)
            for direction in self.directions:
                end = f"l{layer}{direction}"
                setattr(self, f"weight_ih_{end}", init.uniform((height, width), bound))
                setattr(self, f"weight_hh_{end}", init.uniform((height, hidden_size), bound))
                setattr(self, f"bias_ih_{end}", init.uniform((height,), bound) if bias else None)
                setattr(self, f"bias_hh_{end}", init.uniform((height,), bound) if bias else None)
        self.dropout = Dropout(dropout)
        self.constants: dict[str, Any] = {}

    def forward(self, x: Tensor, packing: Packing | None = None, attention_mask: Any = None, state: Any = None) -> tuple[Tensor, Any]:
        x = F.as_tensor(x)
        if x.shape[-1:] != (self.input_size,):
            raise ShapeError(f"{type(self).__name__}: x has shape {x.shape}, its last axis must have length {self.input_size}")
        packing = check_packing(type(self).__name__, x, packing, attention_mask)
        if packing is None:
            rows, tokens = pack_rows(x, attention_mask)
            y, state = self.forward(rows, tokens.packing, state=state)
            return pad_rows(y, tokens), state
        if packing.masked_first is not None:  # padding, which must not change the state
            real = [row for first, last in packing.key_spans for row in range(first, last)]
            kept = Packing([last - first for first, last in packing.key_spans], packing.numbers)
            y, state = self.forward(F.take_rows(x, real), kept, state=state)
            return F.put_rows(y, real, count=packing.rows), state
        initial = self._initial(state, len(packing))
        last: list[list[Tensor]] = [[] for _ in range(self.states)]
        for layer in range(self.num_layers):
            outputs = []
            for direction in self.directions:
                end = f"l{layer}{direction}"
                parameters = [getattr(self, f"{name}_{end}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                reverse, at = direction != "", len(last[0])
                starts = [None if given is None else given[at] for given in initial]
                y, *ends = type(self).operation(x, *parameters, *starts, packing=packing, reverse=reverse, **self.constants)
                outputs.append(y)
                for states, final in zip(last, ends, strict=True):
                    states.append(final)
            x = outputs[0] if len(outputs) == 1 else F.concatenate(outputs, axis=1)
            if layer < self.num_layers - 1:
                x = self.dropout(x, packing)
        stacked = tuple(F.stack(states) for states in last)
        return x, stacked if self.states > 1 else stacked[0]

    def _initial(self, state: Any, sequences: int) -> list[Tensor | None]:
        if state is None:
            return [None] * self.states
        parts = [state] if self.states == 1 else list(state) if isinstance(state, tuple | list) else []
        if len(parts) != self.states:
            raise ArgumentError(f"{type(self).__name__}: state is the pair (h, c), as an earlier call gave it; got {type(state).__name__}")
        given = [F.as_tensor(part) for part in parts]
        shape = (self.num_layers * len(self.directions), sequences, self.hidden_size)
        for part in given:
            if part.shape != shape:
                raise ShapeError(
                    f"{type(self).__name__}: a state has shape (layers · directions, sequences, hidden) = {shape}, got {part.shape}"
                )
        return [*given]

    def extra_repr(self) -> str:
        both = ", bidirectional=True" if len(self.directions) > 1 else ""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}{both}"


class LSTM(_Recurrent):
    """Long short-term memory (`functional.lstm`) in stacked layers, with dropout between the layers.

    Called with packed rows and their packing, or a padded array and its attention_mask (1 or True = real); returns (outputs, (h, c)),
    with the final states of every layer and direction. `state` is such a pair to start from, by default zeros. The outputs of both
    directions are concatenated, forward first.
    Shapes: x (rows, input_size) → outputs (rows, directions · hidden), or (batch, longest, input_size) → (batch, longest, directions ·
    hidden) with zeros at the pads; h and c (layers · directions, sequences, hidden).
    Parameters weight_ih_l0 (4 · hidden, inputs), weight_hh_l0, bias_ih_l0, bias_hh_l0, then …_l0_reverse, …_l1 start uniform in ±1/√hidden.
    Raises: ArgumentError for impossible sizes or rates, or a state that is not a pair; ShapeError for a state or rows that do not fit.
    """

    operation, gates, states = F.lstm, 4, 2


class GRU(_Recurrent):
    """Gated recurrent units (`functional.gru`) in stacked layers. As `LSTM`, but with three gates, and the state is h alone."""

    operation, gates, states = F.gru, 3, 1


class RNN(_Recurrent):
    """The plain recurrence (`functional.rnn`) with tanh or relu, in stacked layers. As `LSTM`, but the state is h alone.

    Raises: also ArgumentError for another nonlinearity.
    """

    operation, gates, states = F.rnn, 1, 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f'RNN: nonlinearity is "tanh" or "relu", not {nonlinearity!r:.80}')
        super().__init__(input_size, hidden_size, num_layers, bias, dropout, bidirectional)
        self.constants = {"nonlinearity": nonlinearity}
