"""Reference implementations of the update rules, element by element in float64, from the papers and PyTorch's documentation.

Dense throughout: no arena, no blocks, no slots. A gradient None means that the parameter is left alone in that step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg

Gradients = Iterable[np.ndarray | None]


def sgd(
    p: np.ndarray,
    gradients: Gradients,
    rates: Iterable[float],
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> np.ndarray:
    buffer = None
    for g, lr in zip(gradients, rates, strict=True):
        if g is None:
            continue
        d = g + weight_decay * p
        if momentum:
            buffer = d if buffer is None else momentum * buffer + (1 - dampening) * d
            d = d + momentum * buffer if nesterov else buffer
        p = p - lr * d
    return p


def adam(
    p: np.ndarray,
    gradients: Gradients,
    rates: Iterable[float],
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    decoupled: bool = False,
) -> np.ndarray:
    m, v, largest, t = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p), 0
    for g, lr in zip(gradients, rates, strict=True):
        if g is None:
            continue
        t += 1
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        largest = np.maximum(largest, v)
        root = np.sqrt((largest if amsgrad else v) / (1 - betas[1] ** t))
        p = p - lr / (1 - betas[0] ** t) * m / (root + eps)
    return p


def adamw(
    p: np.ndarray,
    gradients: Gradients,
    rates: Iterable[float],
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    amsgrad: bool = False,
) -> np.ndarray:
    return adam(p, gradients, rates, betas, eps, weight_decay, amsgrad, decoupled=True)


def adagrad(
    p: np.ndarray,
    gradients: Gradients,
    rates: Iterable[float],
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> np.ndarray:
    total, t = np.full_like(p, initial_accumulator_value), 0
    for g, lr in zip(gradients, rates, strict=True):
        if g is None:
            continue
        t += 1
        g = g + weight_decay * p
        total = total + g * g
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(total) + eps)
    return p


def rmsprop(
    p: np.ndarray,
    gradients: Gradients,
    rates: Iterable[float],
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
) -> np.ndarray:
    square, mean, buffer = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for g, lr in zip(gradients, rates, strict=True):
        if g is None:
            continue
        g = g + weight_decay * p
        square = alpha * square + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        variance = square - mean * mean if centered else square
        buffer = momentum * buffer + g / (np.sqrt(np.maximum(variance, 0)) + eps)
        p = p - lr * buffer
    return p


def lion(
    p: np.ndarray,
    gradients: Gradients,
    rates: Iterable[float],
    betas: Sequence[float] = (0.9, 0.99),
    weight_decay: float = 0.0,
) -> np.ndarray:
    """Chen et al., 2023, Algorithm 2, line by line."""
    m = np.zeros_like(p)
    for g, lr in zip(gradients, rates, strict=True):
        if g is None:
            continue
        c = betas[0] * m + (1 - betas[0]) * g
        p = p - lr * (np.sign(c) + weight_decay * p)
        m = betas[1] * m + (1 - betas[1]) * g
    return p


RULES: dict[type[mg.optim.Optimizer], Callable[..., np.ndarray]] = {
    mg.optim.SGD: sgd,
    mg.optim.Adam: adam,
    mg.optim.AdamW: adamw,
    mg.optim.Adagrad: adagrad,
    mg.optim.RMSprop: rmsprop,
    mg.optim.Lion: lion,
}


@dataclass(frozen=True)
class Case:
    """One optimizer with options, and its rule."""

    optimizer: type[mg.optim.Optimizer]
    options: dict[str, Any]

    def expected(self, p: np.ndarray, gradients: Gradients, rates: Iterable[float]) -> np.ndarray:
        return RULES[self.optimizer](p, gradients, rates, **self.options)

    def __str__(self) -> str:
        return f"{self.optimizer.__name__}-{'-'.join(f'{k}={v}' for k, v in self.options.items()) or 'defaults'}"


CASES = [
    Case(mg.optim.SGD, {}),
    Case(mg.optim.SGD, {"weight_decay": 0.1}),
    Case(mg.optim.SGD, {"momentum": 0.9}),
    Case(mg.optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
    Case(mg.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    Case(mg.optim.SGD, {"momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1}),
    Case(mg.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    Case(mg.optim.SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    Case(mg.optim.Adam, {}),
    Case(mg.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-2}),
    Case(mg.optim.Adam, {"weight_decay": 0.1}),
    Case(mg.optim.AdamW, {}),
    Case(mg.optim.AdamW, {"weight_decay": 0.3, "betas": (0.8, 0.95), "eps": 1e-3}),
    Case(mg.optim.AdamW, {"weight_decay": 0.0}),
    Case(mg.optim.Adam, {"amsgrad": True}),
    Case(mg.optim.AdamW, {"amsgrad": True, "betas": (0.8, 0.5)}),
    Case(mg.optim.Adagrad, {}),
    Case(mg.optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.3}),
    Case(mg.optim.Adagrad, {"weight_decay": 0.1, "eps": 1e-2}),
    Case(mg.optim.RMSprop, {}),
    Case(mg.optim.RMSprop, {"alpha": 0.9, "momentum": 0.8, "eps": 1e-3}),
    Case(mg.optim.RMSprop, {"centered": True}),
    Case(mg.optim.RMSprop, {"centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    Case(mg.optim.Lion, {}),
    Case(mg.optim.Lion, {"betas": (0.8, 0.95), "weight_decay": 0.3}),
]


def feed(p: mg.Parameter, gradient: np.ndarray) -> None:
    """Give `p` this gradient, by a backward pass."""
    (p * gradient).sum().backward()


def feed_rows(p: mg.Parameter, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give rows `ids` of `p` the gradients `values`, by a backward pass through a gather; returns the same gradient dense."""
    (mg.functional.embedding(mg.tensor(ids), p) * values).sum().backward()
    dense = np.zeros(p.shape)
    np.add.at(dense, ids, values)
    return dense


def relative_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """max |ours - expected| / max |expected|."""
    assert ours.shape == expected.shape
    return float(np.max(np.abs(ours - expected), initial=0.0) / max(np.max(np.abs(expected), initial=0.0), 1e-300))
