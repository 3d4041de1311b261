"""Linear regression by gradient descent, checked against the normal equation.

    python examples/linear_regression.py

The smallest complete training run: data, a layer, a loss, a gradient, a step. The least-squares problem has an exact solution, so the
example can report how close gradient descent came, and fails if it is not within 1e-6.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.functional import mse_loss
from minigrad.optim import SGD

TOLERANCE = 1e-6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--features", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    # Data: a linear function plus noise.
    rng = np.random.default_rng(options.seed)
    x = rng.standard_normal((options.rows, options.features))
    y = x @ rng.standard_normal(options.features) + 0.7 + 0.1 * rng.standard_normal(options.rows)

    # The exact solution: (AᵀA) w = Aᵀy, where A has a column of ones for the bias.
    a = np.column_stack([x, np.ones(options.rows)])
    exact = np.linalg.solve(a.T @ a, a.T @ y)

    # The same by gradient descent, in float64, so that rounding does not hide the difference.
    mg.manual_seed(options.seed)
    model = nn.Linear(options.features, 1).to("float64")
    optimizer = SGD(model.named_parameters(), lr=options.lr)
    for step in range(options.steps):
        loss = mse_loss(model(mg.Tensor(x)), y[:, None])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % max(1, options.steps // 10) == 0:
            print(f"step {step:4d}  loss {loss.item():.8f}")

    found = np.append(model.weight.numpy(), model.bias.numpy())
    difference = float(np.abs(found - exact).max())
    print("gradient descent", np.round(found, 6).tolist())
    print("normal equation ", np.round(exact, 6).tolist())
    print(f"largest difference {difference:.2e} ({'within' if difference <= TOLERANCE else 'NOT within'} {TOLERANCE:g})")
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
