"""Products with rounded operands on a GPU: rounding as on the CPU, and trainings with similar losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gpu.test_training import batches, model_from
from small_models import directory

import minigrad as mg
from minigrad.backend.precision import PRECISIONS

PRODUCT = {"float32": 2e-6, "tf32": 3e-3, "bf16": 2e-6, "fp16": 2e-6}
"""For products of identically rounded operands, relative to Σ|a·b|: sums of up to some hundred numbers in float32, in another order. cuBLAS
does not say how it rounds to TF32: it may truncate an operand that the CPU rounds, which makes it smaller by up to one part in 1024."""

GRADIENT = {"float32": 4e-3, "tf32": 1e-2, "bf16": 2e-2, "fp16": 4e-3}
"""Relative to the largest entry. An operand that differs by a float32 rounding may be rounded to a neighbouring value: one part in 256
(bf16) or in 2048 (tf32, fp16); in tf32 four operands in a row may be truncated."""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 7), (64, 128, 32), (100, 770, 33), (2, 0, 3)])
def test_a_product_and_its_gradients(device: str, precision: str, m: int, k: int, n: int) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((m, k)).astype(np.float32), generator.standard_normal((k, n)).astype(np.float32)
    found = []
    for where in ("cpu", device):
        leaves = [mg.Tensor(x, requires_grad=True, device=where) for x in (a, b)]
        with mg.precision(precision):
            product = leaves[0] @ leaves[1]
            found.append([product.numpy(), *(g.numpy() for g in mg.grad((product * product).sum(), leaves))])
    size = np.abs(a) @ np.abs(b)
    np.testing.assert_array_less(np.abs(found[0][0] - found[1][0]), PRODUCT[precision] * size + 1e-30)
    for expected, other in zip(found[0][1:], found[1][1:], strict=True):
        scale = float(np.abs(expected).max(initial=0.0))
        np.testing.assert_allclose(other, expected, atol=GRADIENT[precision] * scale)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_losses_go_the_same_way(device: str, precision: str, tmp_path: Path) -> None:
    """Losses of twenty steps with dropout: as close to the CPU's as differing roundings allow, and at most twice as far from float32's."""
    folder = directory(tmp_path, "BertForSequenceClassification", scale=0.05, hidden_size=64, num_attention_heads=2, intermediate_size=128)

    def losses(where: str, name: str) -> list[float]:
        mg.manual_seed(0)
        model, found = model_from(folder, where), []
        update = mg.optim.AdamW(model.named_parameters(), lr=1e-4)
        with mg.precision(name):
            for tokens, labels in batches(model.config.vocab_size):
                loss = model(tokens, labels=labels).loss
                loss.backward()
                update.step()
                update.zero_grad()
                found.append(loss.item())
        return found

    band = 2e-2 if precision == "bf16" else 4e-3
    here, there, exact = losses("cpu", precision), losses(device, precision), losses("cpu", "float32")
    np.testing.assert_allclose(there, here, atol=band)
    np.testing.assert_allclose(there, exact, atol=2 * band)
