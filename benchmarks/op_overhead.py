"""Measure the engine's overhead: microseconds per small operation, on eight numbers, which take NumPy next to no time.

Times chains of 1,000 additions, and of 1,000 multiplications, of eight float32 numbers: in NumPy, and in minigrad without recording, with
recording, and with the backward pass. NumPy's backward pass is the chain rule written by hand, the cost of the arithmetic alone.

    python benchmarks/op_overhead.py --json overhead.json
"""

from __future__ import annotations

import argparse
import operator
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from harness.machine import machine
from harness.tables import Bars, Report, Table

import minigrad as mg

OPERATIONS = 1000

Array = np.ndarray[Any, np.dtype[np.float32]]
T = TypeVar("T", Array, mg.Tensor)


def chain(operation: Callable[[T, T], T], x: T) -> list[T]:
    """x, and the results of applying the operation 1,000 times in turn, each time to the last result and x."""
    found = [x]
    for _ in range(OPERATIONS):
        found.append(operation(found[-1], x))
    return found


def chain_by_hand(operation: Callable[[Array, Array], Array], x: Array) -> Array:
    """The gradient of the sum of the chain's end with respect to x: the rules of y + x and y · x, applied from the end."""
    values = chain(operation, x)
    flow, gradient = np.ones_like(x), np.zeros_like(x)
    for y in reversed(values[:-1]):
        gradient += flow if operation is operator.add else flow * y
        flow = flow if operation is operator.add else flow * x
    return gradient + flow


def chain_and_back(operation: Callable[[mg.Tensor, mg.Tensor], mg.Tensor], x: Array) -> Array:
    """The same gradient, by minigrad."""
    leaf = mg.tensor(x, requires_grad=True)
    chain(operation, leaf)[-1].sum().backward()
    assert leaf.grad is not None
    return leaf.grad.numpy()


def unrecorded(operation: Callable[[mg.Tensor, mg.Tensor], mg.Tensor], x: mg.Tensor) -> None:
    with mg.no_grad():
        chain(operation, x)


def microseconds(function: Callable[[], object], rounds: int) -> float:
    """Microseconds per operation, the median of the rounds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times) / OPERATIONS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write measurements and tables here")
    options = parser.parse_args()
    here, array = machine(), np.ones(8, np.float32)
    x = mg.tensor(array, requires_grad=True)
    measured: dict[str, dict[str, float]] = {}
    for name, operation in (("add", operator.add), ("multiply", operator.mul)):
        cases: dict[str, Callable[[], object]] = {
            "NumPy, forward": partial(chain, operation, array),
            "NumPy, forward and backward by hand": partial(chain_by_hand, operation, array),
            "minigrad, no_grad": partial(unrecorded, operation, x),
            "minigrad, recorded": partial(chain, operation, x),
            "minigrad, forward and backward": partial(chain_and_back, operation, array),
        }
        for case, function in cases.items():
            function()
            measured.setdefault(case, {})[name] = microseconds(function, options.rounds)
    rows = [[case, *(f"{value:.2f}" for value in of.values())] for case, of in measured.items()]
    values = {f"{name}: {case}": value for case, of in measured.items() for name, value in of.items()}
    title = "Microseconds of an operation on eight numbers"
    table = Table(title, ["chain of 1,000", "add", "multiply"], rows, Bars("microseconds per operation", values))
    report = Report("op_overhead.py", sys.argv[1:], here, measured, [table])
    if options.json is not None:
        report.save(options.json)
    print(report.markdown())


if __name__ == "__main__":
    main()
