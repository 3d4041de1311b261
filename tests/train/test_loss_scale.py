"""Precision and loss scaling in training: fp16 that overflows or vanishes is caught, and a run goes on and resumes exactly."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from train.runs import last_digest, log_of, run_folder
from train.test_team import adamw, states_equal, tagger, token_batch, token_loss

import minigrad as mg
from minigrad import functional as F
from minigrad.backend import random
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, CheckpointError, ConfigError
from minigrad.packing import PackedTokens
from minigrad.train import LossScaler, Team
from minigrad.train.loss_scale import GROW_AFTER
from minigrad.train.run import Run

ONE = Batch(tokens=PackedTokens.of([np.array([1])]), labels=None, token_labels=None, rows=np.arange(1))


# ---------------------------------------------------------------- the scaler
def test_the_scale_is_halved_by_an_overflow_and_doubled_after_many_good_steps() -> None:
    scaler = LossScaler(8.0)
    scaler.update(overflowed=True)
    assert (scaler.scale, scaler.good) == (4.0, 0)
    for _ in range(GROW_AFTER - 1):
        scaler.update(overflowed=False)
    assert (scaler.scale, scaler.good) == (4.0, GROW_AFTER - 1)
    scaler.update(overflowed=False)
    assert (scaler.scale, scaler.good) == (8.0, 0)
    for _ in range(5):
        scaler.update(overflowed=True)
    assert scaler.scale == 1.0 and scaler.is_least, "1 is the least"


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 30))
def test_a_scaler_goes_on_from_its_state(steps: list[bool], cut: int) -> None:
    whole, first, second = LossScaler(), LossScaler(), LossScaler(2.0)
    for overflowed in steps:
        whole.update(overflowed=overflowed)
    for overflowed in steps[:cut]:
        first.update(overflowed=overflowed)
    second.load_state_dict(first.state_dict())
    for overflowed in steps[cut:]:
        second.update(overflowed=overflowed)
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("scale", [0, 0.5, 3.0, -2.0, math.inf, math.nan, "8", None])
def test_a_scale_is_a_power_of_two(scale: Any) -> None:
    with pytest.raises(ArgumentError, match="power of two"):
        LossScaler(scale)


# ---------------------------------------------------------------- a team that scales
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("workers", [1, 2])
def test_scaling_by_a_power_of_two_changes_no_bit_of_float32(workers: int, max_norm: float | None) -> None:
    ends, norms = [], []
    for scaler in (None, LossScaler(1024.0)):
        model = tagger("float32")
        mg.manual_seed(3)
        with Team(token_loss(model), adamw(model), workers=workers, max_norm=max_norm, scaler=scaler) as team:
            for seed in range(3):
                team.backward(token_batch(seed))
                norms.append(team.grad_norm)
                assert team.step()
        ends.append(model.state_dict())
    assert states_equal(*ends)
    if max_norm is not None:
        assert norms[:3] == norms[3:]


def test_gradients_that_vanish_in_fp16_are_saved() -> None:
    """The gradient passes a product as 1e-9, which is nothing in fp16, and 65536 times as much is."""
    found = {}
    for name, scaler in (("without", None), ("with", LossScaler())):
        weight = mg.Parameter(np.ones((1, 1), np.float32))

        def loss_of(part: Batch, whole: Batch, weight: mg.Parameter = weight) -> mg.Tensor:
            return (F.linear(mg.ones((1, 1)), weight, None) * 1e-9).sum()

        with mg.precision("fp16"), Team(loss_of, mg.optim.SGD([weight], lr=1e6), scaler=scaler) as team:
            team.backward(ONE)
            team.step()
        found[name] = 1 - weight.numpy().item()
    assert found["without"] == 0
    assert found["with"] == pytest.approx(1e-3, rel=2**-10)  # fp16's rounding of the scaled gradient, and float32's of 1 - 1e-3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_that_overflows_is_left_out_and_the_scale_halved(workers: int) -> None:
    model = tagger("float32")
    optimizer, scaler = adamw(model), LossScaler(2.0**40)
    mg.manual_seed(3)
    with mg.precision("fp16"), Team(token_loss(model), optimizer, workers=workers, scaler=scaler) as team:
        before, step = {name: array.copy() for name, array in model.state_dict().items()}, random.current().step
        loss = team.backward(token_batch())
        assert math.isfinite(loss) and team.grad_norm is not None and not math.isfinite(team.grad_norm)
        assert team.step() is False
        assert scaler.scale == 2.0**39 and states_equal(before, model.state_dict())
        assert set(optimizer.steps.values()) == {0} and all(p.leaf.grad is None for p in model.parameters())
        assert random.current().step == step + 1, "the next step draws other units"
        for _ in range(38):
            team.backward(token_batch())
            if team.step():
                break
        assert math.isfinite(team.grad_norm) and 1 < scaler.scale < 2.0**35
        assert not states_equal(before, model.state_dict())


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_workers_compute_in_the_precision_of_their_team(name: str) -> None:
    """A lost mode would be off by the format's rounding."""
    gradients = {}
    for precision, workers in ((name, 1), (name, 2), ("float32", 1)):
        model = tagger("float32")
        mg.manual_seed(3)
        with Team(token_loss(model), adamw(model), workers=workers) as team:
            team.backward(token_batch())  # whose fork knows float32
            with mg.precision(precision):
                team.backward(token_batch())
            gradients[precision, workers] = np.concatenate([p.grad.numpy().ravel() for p in model.parameters() if p.grad is not None])
    alone, together, exact = gradients.values()
    rounding = np.linalg.norm(alone - exact)
    assert rounding > 1e-4 * np.linalg.norm(exact)
    assert np.linalg.norm(alone - together) < rounding / 20  # the same roundings, but of sums in another order: a few fall the other way


# ---------------------------------------------------------------- runs
@pytest.mark.parametrize("name", ["tf32", "bf16", "fp16"])
def test_a_run_in_each_precision_learns_what_float32_learns(tmp_path: Path, name: str) -> None:
    losses = {}
    for precision in ("float32", name):
        (tmp_path / precision).mkdir()
        Run(run_folder(tmp_path / precision, precision=precision)).trainer.fit()
        losses[precision] = np.array([e["loss"] for e in log_of(tmp_path / precision) if e["event"] == "step"])
    updated = [e.get("loss_scale") for e in log_of(tmp_path / name) if e["event"] == "step"]
    assert all(updated) if name == "fp16" else updated == [None] * 12
    assert not np.array_equal(losses[name], losses["float32"])
    print(f"\n{name}: losses differ by {np.abs(losses[name] - losses['float32']).max():.1e} at most")
    assert np.abs(losses[name] - losses["float32"]).max() < 1e-3  # bf16 rounds by 4e-3, most of which cancels; dropout varies them by 0.1


def test_an_overflow_is_told_and_a_run_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a scale so large that the first steps overflow; cut while it still does, and after."""
    monkeypatch.setattr("minigrad.train.trainer.LossScaler", lambda: LossScaler(2.0**24))
    ends, logs = [], []
    for cut in (None, 2, 9):
        folder = tmp_path / str(cut)
        folder.mkdir()
        config = run_folder(folder, precision="fp16", steps=12)
        if cut is not None:
            run = Run(config)
            _stop_after(run, cut)
            run.trainer.fit()
        Run(config).trainer.fit(resume=cut is not None)
        ends.append(last_digest(folder))
        logs.append([(e["loss"], e["loss_scale"], e["grad_norm"]) for e in log_of(folder) if e["event"] == "step"])
    assert ends[0] == ends[1] == ends[2] and logs[0] == logs[1] == logs[2]
    scales = [scale for _, scale, _ in logs[0]]
    assert scales[0] == 2.0**23 and scales[-1] == scales[-2] < 2.0**23
    left_out = [e["message"] for e in log_of(tmp_path / "None") if e["event"] == "notice"]
    assert len(left_out) == round(math.log2(2.0**24 / scales[-1]))
    assert left_out[0] == (
        "step 1: a gradient overflowed in fp16, so the update was left out; the loss is multiplied by 8388608 from here on"
    )


def _stop_after(run: Run, steps: int) -> None:
    """As a signal does: the step is finished and saved."""
    run.trainer.callbacks.append(
        lambda event: os.kill(os.getpid(), signal.SIGTERM) if event["event"] == "step" and event["step"] == steps else None
    )


def test_a_run_is_not_resumed_in_another_precision_unless_forced(tmp_path: Path) -> None:
    config = run_folder(tmp_path, steps=2)
    Run(config).trainer.fit()
    other = replace(config, training=replace(config.training, precision="fp16", steps=4))
    with pytest.raises(CheckpointError, match=r"training\.precision: 'float32' then, 'fp16' now"):
        Run(other).trainer.fit(resume=True)
    assert Run(other).trainer.fit(resume=True, force=True).step == 4


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision must be one of"):
        run_folder(tmp_path, precision="half")
