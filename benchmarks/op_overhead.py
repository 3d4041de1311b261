"""Microseconds that one small operation costs: the engine's own time, since eight numbers take NumPy next to none."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

import minigrad as mg

OPERATIONS = 1000


def microseconds(function: Callable[[], object], rounds: int = 15) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times) / OPERATIONS * 1e6


def main() -> None:
    array = np.ones(8, np.float32)
    x = mg.tensor(array, requires_grad=True)

    def numpy_chain() -> None:
        y = array
        for _ in range(OPERATIONS):
            y = y * array

    def forward() -> mg.Tensor:
        y = x
        for _ in range(OPERATIONS):
            y = y * x
        return y

    def unrecorded() -> None:
        with mg.no_grad():
            forward()

    print(f"numpy multiply          {microseconds(numpy_chain):6.2f} us")
    print(f"minigrad, no_grad       {microseconds(unrecorded):6.2f} us")
    print(f"minigrad, recorded      {microseconds(forward):6.2f} us")
    print(f"minigrad, with backward {microseconds(lambda: forward().sum().backward()):6.2f} us")


if __name__ == "__main__":
    main()
