"""What a checkpoint says of the machine that wrote it, and checkpoints that no trainer saved."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.checkpoints import trainer
from support import probed

from minigrad.backend.probe import Gpu, Probe
from minigrad.errors import CheckpointError
from minigrad.kernels import in_use
from minigrad.train.checkpoints.saved import machine, restore, saved_state
from minigrad.train.checkpoints.store import CheckpointStore
from minigrad.train.settings import differences


def test_a_change_of_device_is_a_change_of_machine() -> None:
    gpu = Gpu(name="NVIDIA H100", compute_capability=(9, 0), memory_total=1, memory_free=1)
    with probed(Probe(gpus=(gpu,))):
        changes = {"gpu": (None, gpu.name), "kernels": (in_use(), in_use("cuda"))}  # which are "off" on both where none are wanted
        told = [f"{what}: {then!r} then, {now!r} now" for what, (then, now) in changes.items() if then != now]
        assert sorted(differences(machine("cpu"), machine("cuda"))) == told
        before = {name: value for name, value in machine("cpu").items() if name != "gpu"}  # of a version that knew no GPU
        assert list(differences(before, machine("cpu"))) == []


HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "an identity that is no object": (lambda state, arrays: state.update(identity="x"), "identity must be an object, found 'x'"),
    "no machine": (lambda state, arrays: state.pop("machine"), "machine must be an object"),
    "a place that no run has": (lambda state, arrays: state["position"].update({"9" * 5000: 1}), "^.{,200}position has no '9{70,90}"),
    "a moment that no rule has": (
        lambda state, arrays: state["tree"]["optimizer"]["state"][0].update({"9" * 5000: 1}),
        "unknown '9{70,90}$",
    ),
    "another step": (lambda state, arrays: state["position"].update(step=10**15), "step 1000000000000000"),
    "an epoch beyond all": (lambda state, arrays: state["position"].update(epoch=10**30), "epoch must be an integer below"),
    "no parts": (lambda state, arrays: state["position"].update(parts=0), "parts must be an integer of at least 1"),
    "seconds in words": (lambda state, arrays: state["position"].update(seconds="long"), "seconds must be a number"),
    "a best without figures": (
        lambda state, arrays: state["position"].update(best={"step": 1, "metrics": ["loss"]}),
        "best metrics must be",
    ),
    "a seed in words": (lambda state, arrays: state["random"].update(seed="x"), "seed must be an integer"),
    "a loss scale of five": (lambda state, arrays: state["loss_scale"].update(scale=5.0), "power of two"),
    "a loss scale beyond floats": (lambda state, arrays: state["loss_scale"].update(scale=2**4000), "power of two"),
    "good steps in words": (lambda state, arrays: state["loss_scale"].update(good="x"), "good must be an integer"),
    "another generator": (lambda state, arrays: state["tree"]["init"].update(bit_generator="PCG64"), "no state of a generator Philox"),
    "a place outside of the buffer": (lambda state, arrays: state["tree"]["init"].update(buffer_pos=-(10**6)), "no state of a generator"),
    "a counter of two words": (
        lambda state, arrays: arrays["optimizer"].update({"/init/state/counter": np.ones(2, np.uint64)}),
        "no state of",
    ),
    "an average of one number": (
        lambda state, arrays: arrays["average"].update({"layers.1.bias": np.ones(1, np.float32)}),
        "the average of layers.1.bias",
    ),
    "an average of words": (lambda state, arrays: arrays["average"].update({"layers.1.bias": np.ones(2, np.int8)}), "must be floats"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_state_that_no_trainer_saved_is_refused(tmp_path: Path, what: str) -> None:
    """Its digests are true: somebody made it so."""
    change, words = HOSTILE[what]
    one = trainer()
    arrays, state = copy.deepcopy(saved_state(one))
    change(state, arrays)
    CheckpointStore(tmp_path).save(one.at.step, arrays, state)
    with pytest.raises(CheckpointError, match=words) as caught:
        restore(one, CheckpointStore(tmp_path).at(one.at.step), force=True)
    assert caught.value.code == "changed"
