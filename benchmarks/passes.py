"""Time each pass over memory, NumPy's against Numba's, at BERT's shapes: nanoseconds per element, as a Markdown table.

`python benchmarks/passes.py [--rounds N]` needs the `fast` extra. The two alternate in one process and one thread; medians are reported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.backend import numpy as xp
from minigrad.kernels import compiled, passes
from minigrad.optim.adam import adam

ROWS = [(1300, 128), (1300, 512), (600, 1024), (2048, 768), (2048, 3072)]
PAIRS = [(2, 10), (12, 10), (12, 40), (12, 128)]
ELEMENTS = [1 << 16, 1 << 23]
BLOCK = 1 << 16
SCALE = np.float32(1 / 0.9)

rng = np.random.default_rng(0)


def x(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def over_rows(n: int, d: int) -> dict[str, tuple[Any, ...]]:
    a, b, c, out, two = (x(n, d) for _ in range(5))
    bias, survives, rstd, sums = 0 * x(d), rng.random((n, d)) < 0.9, np.ones(n, np.float32), [x(d) for _ in range(3)]
    return {
        "add_bias": (a, bias),
        "add_column_sums": (a, sums[0]),
        "drop": (a, survives, SCALE, out),
        "bias_gelu": (a, bias, out, True),
        "bias_gelu, inference": (a, bias, a, False),
        "bias_gelu_pullback": (a, b, out, sums[0]),
        "norm": (a, bias, bias, 1e-12, out, two, rstd),
        "add_norm": (a, bias, survives, SCALE, b, bias, bias, 1e-12, out, rstd),
        "norm_pullback": (a, bias, b, rstd, out, *sums[:2]),
        "add_norm_pullback": (a, bias, b, rstd, survives, SCALE, out, two, *sums),
        "add_norm, no dropout": (c, bias, None, SCALE, b, bias, bias, 1e-12, out, rstd),
    }


def over_pairs(heads: int, n: int) -> dict[str, tuple[Any, ...]]:
    p, b, dropped, survives = x(heads, n, n), x(heads, n, n), x(heads, n, n), (rng.random((n, heads, n)) < 0.9).swapaxes(0, 1)
    return {
        "softmax_drop": (p, survives, SCALE, dropped),
        "softmax_drop, no dropout": (p, None, SCALE, p),
        "softmax_drop_pullback": (b, p, dropped, x(n, heads).T, np.float32(0.125)),
    }


def in_blocks(step: Callable[..., None]) -> Callable[..., None]:
    """Apply a step block by block, as an optimizer does."""

    def run(*arrays: np.ndarray) -> None:
        for start in range(0, len(arrays[0]), BLOCK):
            step(*[a[start : start + BLOCK] for a in arrays])

    return run


def adam_steps() -> dict[str, Callable[..., None]]:
    constants = {"beta1": 0.9, "beta2": 0.999, "size": 1e-6, "eps": 1e-8, "l2": 0.0, "decay": 0.9999}
    scratch = (np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32))
    return {
        "NumPy": in_blocks(lambda p, g, m, v: adam.body(xp, p, g, (m, v), scratch, **constants)),
        "Numba": in_blocks(lambda p, g, m, v: compiled.adam(p, g, m, v, *constants.values())),
    }


def nanoseconds(functions: dict[str, Callable[..., None]], arguments: tuple[Any, ...], rounds: int) -> dict[str, float]:
    """Nanoseconds per element of the first argument. Each call starts from the same numbers, since outputs fed back in would leave the
    usual range."""
    kept = [a.copy() if isinstance(a, np.ndarray) else None for a in arguments]
    found: dict[str, list[float]] = {name: [] for name in functions}
    calls = max(1, 100_000 // arguments[0].size)
    for _ in range(rounds + 1):  # the first round compiles
        for name, function in functions.items():
            spent = 0.0
            for _ in range(calls):
                for a, original in zip(arguments, kept, strict=True):
                    if original is not None:
                        a[...] = original
                started = time.perf_counter()
                function(*arguments)
                spent += time.perf_counter() - started
            found[name].append(spent / calls / arguments[0].size * 1e9)
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print("| pass | shape | NumPy, ns | Numba, ns | ratio |\n|---|---|---|---|---|")

    def row(name: str, functions: dict[str, Callable[..., None]], arguments: tuple[Any, ...]) -> None:
        ns = nanoseconds(functions, arguments, rounds)
        shape = " × ".join(map(str, arguments[0].shape))
        print(f"| {name} | {shape} | {ns['NumPy']:.2f} | {ns['Numba']:.2f} | {ns['NumPy'] / ns['Numba']:.1f} |", flush=True)

    for make, sizes in ((over_rows, ROWS), (over_pairs, PAIRS)):
        for size in sizes:
            for name, arguments in make(*size).items():
                function = name.partition(",")[0]
                row(name, {"NumPy": getattr(passes, function), "Numba": getattr(compiled, function)}, arguments)
    for elements in ELEMENTS:
        row("adam", adam_steps(), (x(elements), x(elements), x(elements), abs(x(elements))))


if __name__ == "__main__":
    main()
