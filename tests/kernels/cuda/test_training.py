"""A model is trained with the kernels run on the CPU, and with the bodies: launches fit together, and the same units drop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from kernels.cuda.emulation import Emulator, Namespace
from support import absolute_error, without_kernels

import minigrad as mg
from minigrad import functional as F
from minigrad import models
from minigrad.kernels import register_cuda
from minigrad.models import BertConfig, BertForSequenceClassification
from minigrad.op import REGISTRY, Kernel
from minigrad.optim.adam import AdamW, adam

register_cuda()

FUSED: dict[str, Kernel] = {name: operation for name, operation in REGISTRY.items() if "cupy" in operation.overrides} | {"adam": adam}


@pytest.fixture
def used(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Inside: operations on the CPU run what they would run on a GPU. How often each was, by name."""
    counts = dict.fromkeys(FUSED, 0)

    def counted(name: str, override: Callable[..., Any]) -> Callable[..., Any]:
        def run(xp: Any, *arrays: Any, **constants: Any) -> Any:
            found = override(Namespace(), *arrays, **constants)
            counts[name] += found is not NotImplemented
            return found

        return run

    for name, operation in FUSED.items():
        override = operation.overrides["cupy"]
        replacement = counted(name, override)
        monkeypatch.setitem(operation.overrides, "numpy", replacement)
        monkeypatch.setitem(operation._asks_keep, replacement, operation._asks_keep[override])
    yield counts


CONFIG = {
    "vocab_size": 60, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 80,
    "max_position_embeddings": 16, "id2label": {0: "a", 1: "b", 2: "c"},
}  # fmt: skip

IDS = np.array([[2, 5, 9, 31, 3, 0, 0], [2, 44, 5, 5, 17, 59, 3], [2, 3, 0, 0, 0, 0, 0]])


def trained(steps: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of some steps with dropout, and the weights afterwards."""
    mg.manual_seed(3)
    model = BertForSequenceClassification(BertConfig(**CONFIG))
    optimizer = AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(IDS, attention_mask=IDS != 0).logits, np.array([0, -100, 2]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, {name: np.array(parameter.numpy()) for name, parameter in model.named_parameters()}


BLOCKS = ("embed_norm", "attention_block", "feed_forward")
PARTS = ("embedding", "layer_norm", "linears", "attention", "dense_gelu", "dense_add_norm")


@pytest.mark.parametrize("in_parts", [False, True])
def test_training_is_that_of_the_bodies(in_parts: bool, used: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    if in_parts:
        for module in (models.blocks, models.embeddings):
            monkeypatch.setattr(module, "can_fuse", lambda *_: False)
    losses, weights = trained(2)
    operations = ("dropout", "cross_entropy", "adam")
    assert all(used[name] for name in (*(PARTS if in_parts else BLOCKS), *operations)), used
    assert not any(used[name] for name in (BLOCKS if in_parts else PARTS)), used
    with without_kernels():
        expected_losses, expected = trained(2)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)  # float32, summed in another order
    for name, weight in weights.items():
        # Adam divides a gradient by its own size, so that one that is near zero moves a weight by anything up to lr in a step.
        assert absolute_error(weight, expected[name]) <= 2e-3, name
        assert np.median(np.abs(weight - expected[name])) <= 1e-6, name


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_training_with_rounded_operands_is_that_of_the_bodies(precision: str, used: dict[str, int]) -> None:
    """Losses of order 1, of which products round to 8 or 11 bits: after two steps they agree to as many."""
    with mg.precision(precision):
        losses, _ = trained(2)
        assert used["attention_block"] == used["feed_forward"] == 4, used
        assert not any(used[name] for name in PARTS), used
        with without_kernels():
            expected, _ = trained(2)
    np.testing.assert_allclose(losses, expected, rtol=0, atol={"tf32": 2.0**-10, "bf16": 2.0**-7, "fp16": 2.0**-10}[precision])
