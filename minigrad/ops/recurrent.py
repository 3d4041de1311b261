"""Recurrent layers: each is one operation over a whole packed batch, forwards or backwards in time.

A cell defines one step and its pullback; `_scan` runs any cell over the sequences. The products with the inputs, and those for the
weights' gradients, are one matrix product over all rows. Only h Wᵀ is computed step by step, for all sequences that have not ended:
sequences are sorted by length, so these are the first ones, and a step is a slice of rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, TypeAlias

from minigrad.backend import Array
from minigrad.errors import ArgumentError, ShapeError
from minigrad.op import op
from minigrad.packing import IntArray, Packing

Cell: TypeAlias = Callable[..., tuple[tuple[Array, ...], Callable[..., Any]]]
"""cell(xp, a, b, h, *others) -> (new states, pullback), where a is the inputs' contribution to the gates and b that of h.

pullback(dh, *others) -> (da, db, dh, *others): from the gradients of the new states to those of a and b and of the old states, the
latter without the part through b (dh may be None).
"""


class Schedule:
    """The rows of each step. Step t processes row t of every sequence longer than t (counted from the end if `reverse`).

    Shapes: order, rank (n,); gather, scatter (rows,).
    """

    def __init__(self, packing: Packing, reverse: bool) -> None:
        lengths, n = packing.lengths, len(packing)
        self.order: IntArray = (-lengths).argsort(kind="stable")
        """The sequences, longest first: state i belongs to sequence order[i], and sequence i has state rank[i]."""
        self.rank: IntArray = self.order.argsort()
        time = lengths.repeat(lengths) - 1 - packing.positions if reverse else packing.positions
        self.gather: IntArray = (time * n + self.rank.repeat(lengths)).argsort()
        """x[gather] has the rows of step 0 first, then those of step 1, …; y[scatter] restores the packed order."""
        self.scatter: IntArray = self.gather.argsort()
        ascending = sorted(lengths.tolist())
        self.running = [n - bisect_right(ascending, t) for t in range(ascending[-1])]
        """How many sequences each step processes."""


def _scan(
    xp: Any,
    cell: Cell,
    gates: int,
    x: Array,
    parameters: tuple[Array, Array, Array | None, Array | None],
    initial: tuple[Array | None, ...],
    packing: Packing,
    reverse: bool,
    keep: bool,
) -> Any:
    """Run a cell over all sequences: ((outputs, *last states), pullback). The first state of a cell is its output."""
    _check(gates, x, parameters, initial, packing)
    weight_ih, weight_hh, bias_ih, bias_hh = parameters
    schedule = Schedule(packing, reverse)
    order, rank, gather, scatter = (xp.like(a, x) for a in (schedule.order, schedule.rank, schedule.gather, schedule.scatter))
    running, nothing = schedule.running, xp.zeros_like(weight_hh, shape=(len(packing), weight_hh.shape[1]))

    inputs = x[gather]
    recurrent = xp.ascontiguousarray(weight_hh.swapaxes(0, 1))  # read at every step, a third faster than a view
    from_inputs = xp.matmul(inputs, weight_ih.swapaxes(0, 1))
    if bias_ih is not None:
        from_inputs += bias_ih
    states = tuple([nothing if state is None else state[order] for state in initial])
    outputs, ended, previous, pullbacks = [], [], [], []
    start = 0
    for k, still in zip(running, [*running[1:], 0], strict=True):
        from_state = xp.matmul(states[0], recurrent)
        if bias_hh is not None:
            from_state += bias_hh
        if keep:
            previous.append(states[0])
        states, pull = cell(xp, from_inputs[start : start + k], from_state, *states)
        outputs.append(states[0])
        if keep:
            pullbacks.append(pull)
        if still < k:
            ended.append([state[still:] for state in states])
            states = tuple([state[:still] for state in states])
        start += k
    last = [xp.concatenate(parts[::-1], axis=0)[rank] for parts in zip(*ended, strict=True)]

    def pullback(gradients: tuple[Array | None, ...]) -> Any:
        by_output = None if gradients[0] is None else gradients[0][gather]
        by_last = [nothing if g is None else g[order] for g in gradients[1:]]
        d_states: list[Any] = [g[:0] for g in by_last]
        by_inputs, by_state = [], []
        stop, still = packing.rows, 0
        for k, pull in zip(running[::-1], pullbacks[::-1], strict=True):
            if still < k:  # sequences that end at this step
                d_states = [xp.concatenate([d, g[still:k]], axis=0) for d, g in zip(d_states, by_last, strict=True)]
            dh = d_states[0] if by_output is None else d_states[0] + by_output[stop - k : stop]
            da, db, direct, *d_others = pull(dh, *d_states[1:])
            by_inputs.append(da)
            by_state.append(db)
            dh = xp.matmul(db, weight_hh)
            d_states = [dh if direct is None else dh + direct, *d_others]
            stop, still = stop - k, k
        shared = by_inputs[0] is by_state[0]
        da = xp.concatenate(by_inputs[::-1], axis=0)
        db = da if shared else xp.concatenate(by_state[::-1], axis=0)
        return (
            xp.matmul(da, weight_ih)[scatter],
            xp.product(da.swapaxes(0, 1), inputs),
            xp.product(db.swapaxes(0, 1), xp.concatenate(previous, axis=0)),
            None if bias_ih is None else da,
            None if bias_hh is None else db,
            *[None if state is None else d[rank] for state, d in zip(initial, d_states, strict=True)],
        )

    return (xp.concatenate(outputs, axis=0)[scatter], *last), pullback


def _check(gates: int, x: Array, parameters: tuple[Any, ...], initial: tuple[Array | None, ...], packing: Packing) -> None:
    if packing.masked_first is not None:
        raise ArgumentError("a recurrent layer reads every row of its packing: leave out the masked first rows")
    if x.ndim != 2 or x.shape[0] != packing.rows:
        raise ShapeError(f"recurrent: the packing has {packing.rows} rows, so x has shape ({packing.rows}, d), not {tuple(x.shape)}")
    hidden = parameters[1].shape[-1]
    height = gates * hidden
    shapes = [(height, x.shape[1]), (height, hidden), (height,), (height,), *[(len(packing), hidden)] * len(initial)]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "h0", "c0")
    for name, array, shape in zip(names, (*parameters, *initial), shapes, strict=False):
        if array is not None and tuple(array.shape) != shape:
            raise ShapeError(f"recurrent: {name} must have shape {shape} with {hidden} hidden units, got {tuple(array.shape)}")


def _gate(xp: Any, x: Array) -> Array:
    """1 / (1 + e⁻ˣ) as (1 + tanh(x/2)) / 2, which cannot overflow; a gate does not need relative accuracy near 0."""
    y = xp.tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y


@op("n d, 4h d, 4h h, 4h | none, 4h | none, s h | none, s h | none -> n h, s h, s h", promotes="float")
def lstm(
    xp: Any,
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    h0: Array | None,
    c0: Array | None,
    *,
    packing: Packing,
    reverse: bool = False,
    keep: bool = True,
) -> Any:
    """Long short-term memory. Hochreiter & Schmidhuber, Neural Computation 9(8), 1997; the gates are in the order i, f, g, o.

    i, f, o = σ(·), g = tanh(·) of x W_ihᵀ + b_ih + h W_hhᵀ + b_hh; c ← f c + i g; h ← o tanh c. h0 and c0 are zero if None.
    Returns every row's h, and each sequence's last h and c. `reverse` reads every sequence from its end.
    """
    return _scan(xp, _lstm_cell, 4, x, (weight_ih, weight_hh, bias_ih, bias_hh), (h0, c0), packing, reverse, keep)


def _lstm_cell(xp: Any, a: Array, b: Array, h: Array, c: Array) -> Any:
    n = c.shape[1]
    z = a + b
    both, g, o = _gate(xp, z[:, : 2 * n]), xp.tanh(z[:, 2 * n : 3 * n]), _gate(xp, z[:, 3 * n :])
    i, f = both[:, :n], both[:, n:]
    new = f * c + i * g
    t = xp.tanh(new)

    def pullback(dh: Array, dc: Array) -> Any:
        dc = dc + dh * o * (1.0 - t * t)
        dz = xp.concatenate([dc * g * i * (1.0 - i), dc * c * f * (1.0 - f), dc * i * (1.0 - g * g), dh * t * o * (1.0 - o)], axis=1)
        return dz, dz, None, dc * f

    return (o * t, new), pullback


@op("n d, 3h d, 3h h, 3h | none, 3h | none, s h | none -> n h, s h", promotes="float")
def gru(
    xp: Any,
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    h0: Array | None,
    *,
    packing: Packing,
    reverse: bool = False,
    keep: bool = True,
) -> Any:
    """Gated recurrent unit. Cho et al., arXiv 1406.1078; the gates are in the order r, z, n.

    With a = x W_ihᵀ + b_ih and b = h W_hhᵀ + b_hh: r, z = σ(a + b), n = tanh(a + r b), h ← (1 - z) n + z h. The reset gate r is applied
    after the product, as in PyTorch. Returns every row's h, and each sequence's last. `reverse` reads every sequence from its end.
    """
    return _scan(xp, _gru_cell, 3, x, (weight_ih, weight_hh, bias_ih, bias_hh), (h0,), packing, reverse, keep)


def _gru_cell(xp: Any, a: Array, b: Array, h: Array) -> Any:
    m = h.shape[1]
    both, inner = _gate(xp, a[:, : 2 * m] + b[:, : 2 * m]), b[:, 2 * m :]
    r, z = both[:, :m], both[:, m:]
    n = xp.tanh(a[:, 2 * m :] + r * inner)

    def pullback(dh: Array) -> Any:
        dn = dh * (1.0 - z) * (1.0 - n * n)
        gates = [dn * inner * r * (1.0 - r), dh * (h - n) * z * (1.0 - z)]
        return xp.concatenate([*gates, dn], axis=1), xp.concatenate([*gates, dn * r], axis=1), dh * z

    return (n + z * (h - n),), pullback


@op("n d, h d, h h, h | none, h | none, s h | none -> n h, s h", promotes="float")
def rnn(
    xp: Any,
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    h0: Array | None,
    *,
    packing: Packing,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    keep: bool = True,
) -> Any:
    """The plain recurrence h ← f(x W_ihᵀ + b_ih + h W_hhᵀ + b_hh) with f = tanh or relu. Elman, Cognitive Science 14(2), 1990.

    Returns every row's h, and each sequence's last. `reverse` reads every sequence from its end.
    Raises: ArgumentError for another nonlinearity; ShapeError for weights or states that do not fit.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ArgumentError(f'rnn: nonlinearity is "tanh" or "relu", not {nonlinearity!r:.80}')
    cell = _tanh_cell if nonlinearity == "tanh" else _relu_cell
    return _scan(xp, cell, 1, x, (weight_ih, weight_hh, bias_ih, bias_hh), (h0,), packing, reverse, keep)


def _tanh_cell(xp: Any, a: Array, b: Array, h: Array) -> Any:
    y = xp.tanh(a + b)

    def pullback(dh: Array) -> Any:
        dz = dh * (1.0 - y * y)
        return dz, dz, None

    return (y,), pullback


def _relu_cell(xp: Any, a: Array, b: Array, h: Array) -> Any:
    y = xp.maximum(a + b, 0)

    def pullback(dh: Array) -> Any:
        dz = dh * (xp.constant(y) > 0)
        return dz, dz, None

    return (y,), pullback
