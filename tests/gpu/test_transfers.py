"""The copies of a training step between host and GPU: ids and labels go there, the loss comes back, and nothing is fetched implicitly."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu.test_training import batches, model_from
from small_models import directory

import minigrad as mg
from minigrad.backend import transfers
from minigrad.errors import DeviceError


def test_a_step_fetches_its_loss_and_the_norm(device: str, tmp_path: Path) -> None:
    model = model_from(directory(tmp_path, "BertForSequenceClassification"), device)
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-4)
    for tokens, labels in batches(model.config.vocab_size, 3):
        with transfers.strict(), transfers.counting() as counts:
            loss = model(tokens, labels=labels).loss
            loss.backward()
            mg.optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
    if device == "cuda":
        assert counts.to_host == 2
        assert counts.bytes_to_host <= 16
        assert counts.bytes_to_gpu < 1 << 20  # ids, types, positions, labels and the packing's arrays of some hundred tokens


def test_an_unasked_fetch_is_named(device: str) -> None:
    if device == "cpu":
        pytest.skip("on a CPU nothing is fetched")
    x = mg.ones(3, device=device).array
    with transfers.strict():
        for fetch in (lambda: float(x[0]), lambda: bool(x[0] > 0), lambda: x[x > 0], lambda: x.nonzero(), lambda: x.tolist()):
            with pytest.raises(DeviceError, match=r"test_transfers\.py") as caught:
                fetch()
            assert caught.value.code == "hidden-transfer"
        with transfers.declared():
            assert float(x[0]) == 1.0
        assert mg.Tensor(x).sum().item() == 3.0
