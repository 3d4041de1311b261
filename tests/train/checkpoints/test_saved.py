"""What a checkpoint says of the machine that wrote it."""

from __future__ import annotations

from support import probed

from minigrad.backend.probe import Gpu, Probe
from minigrad.kernels import in_use
from minigrad.train.checkpoints.saved import machine
from minigrad.train.settings import differences


def test_a_change_of_device_is_a_change_of_machine() -> None:
    gpu = Gpu(name="NVIDIA H100", compute_capability=(9, 0), memory_total=1, memory_free=1)
    with probed(Probe(gpus=(gpu,))):
        changes = {"gpu": (None, gpu.name), "kernels": (in_use(), in_use("cuda"))}  # which are "off" on both where none are wanted
        told = [f"{what}: {then!r} then, {now!r} now" for what, (then, now) in changes.items() if then != now]
        assert sorted(differences(machine("cpu"), machine("cuda"))) == told
        before = {name: value for name, value in machine("cpu").items() if name != "gpu"}  # of a version that knew no GPU
        assert list(differences(before, machine("cpu"))) == []
