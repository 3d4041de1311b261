"""The border between host and GPU: copies are counted, and `strict` finds those that nobody meant.

Where CuPy is installed, its own arrays are asked. They lie in memory that no GPU knows: a fetch that is let through fails as CUDA does
without a driver, and one that is found fails before that, with an error of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, ops
from minigrad import functional as F
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend import transfers
from minigrad.backend.probe import Queries
from minigrad.errors import DeviceError, DTypeError, IndexRangeError

needs_cupy = pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed (the `gpu` extra)")


def without_driver() -> None:
    if Queries.driver() != 0:
        pytest.skip("this machine has an NVIDIA driver: tests/gpu asks a real GPU")


class OnGpu(np.ndarray):
    """An array that says it lies on a GPU, and comes from there by `get`: NumPy computes what is asked of it."""

    def get(self) -> np.ndarray[Any, Any]:
        return np.array(self)


class Gpu:
    """NumPy's vocabulary under the name of the other device."""

    DEVICE, NAME = "cuda", "stand-in"

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy_namespace, name)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Makes arrays that count as a GPU's, for what the host decides about them."""

    def on_gpu(host: Any) -> Any:
        return np.asarray(host).view(OnGpu)

    monkeypatch.setattr(backend, "_namespaces", {OnGpu: Gpu(), **backend._namespaces})
    monkeypatch.setattr(backend, "cuda_namespace", Gpu)
    monkeypatch.setattr(transfers, "to_gpu", on_gpu)
    monkeypatch.setattr(ops.index, "to_number", lambda array: transfers.to_host(np.asarray(array).view(OnGpu)).item())
    return on_gpu


# ---------------------------------------------------------------- counting
def test_fetches_are_counted_inside_and_nowhere_else() -> None:
    array = np.zeros((3, 2), np.float32).view(OnGpu)
    transfers.to_host(array)
    with transfers.counting() as outer:
        transfers.to_host(array)
        with transfers.counting() as inner:
            fetched = transfers.to_host(array)
        assert inner == transfers.Counts(to_host=1, bytes_to_host=24)
    transfers.to_host(array)
    assert outer == transfers.Counts(to_host=2, bytes_to_host=48)
    assert type(fetched) is np.ndarray or not np.shares_memory(fetched, array)


def test_a_failed_block_no_longer_counts() -> None:
    with pytest.raises(KeyError), transfers.counting() as counts:
        raise KeyError
    transfers.to_host(np.zeros(2).view(OnGpu))
    assert counts == transfers.Counts()


def test_nothing_is_counted_on_a_cpu() -> None:
    model = mg.nn.Sequential(mg.nn.Embedding(5, 3), mg.nn.Linear(3, 2))
    with transfers.counting() as counts, transfers.strict():
        loss = F.cross_entropy(model([0, 4]), [1, 0])
        loss.backward()
        assert isinstance(loss.item(), float)
        mg.optim.clip_grad_norm(model.parameters(), 1.0)
    assert counts == transfers.Counts()


@needs_cupy
def test_copies_to_a_gpu_are_counted() -> None:
    without_driver()
    with transfers.counting() as counts, pytest.raises(RuntimeError, match="cudaErrorInsufficientDriver"):
        transfers.to_gpu(np.zeros((3, 2), np.float32))
    assert counts == transfers.Counts(to_gpu=1, bytes_to_gpu=24)


# ---------------------------------------------------------------- ids are checked on the host, on their way to a GPU
def test_ids_from_the_host_are_checked_before_they_go(gpu: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(ops.placed_rows("embedding ids", np.array([0, 4]), 5, "cuda")) is OnGpu
    sent: list[Any] = []
    monkeypatch.setattr(transfers, "to_gpu", sent.append)
    with pytest.raises(IndexRangeError, match=r"embedding ids: value 9 at place 1 is outside 0\.\.4"):
        ops.placed_rows("embedding ids", np.array([0, 9]), 5, "cuda")
    assert sent == []


def test_ids_on_a_gpu_are_fetched_to_be_checked_once(gpu: Callable[[Any], Any]) -> None:
    with pytest.raises(IndexRangeError, match="value -1 at place 0"):
        ops.placed_rows("ids", gpu([-1, 2]), 5, "cuda")
    with transfers.counting() as counts:
        ids = ops.placed_rows("ids", gpu([0, 4]), 5, "cuda")
        assert counts.to_host == 2  # the smallest and the largest
        ops.check_rows("ids", ids, 5)  # what an operation's body asks
    assert counts.to_host == 2


def test_ids_that_are_no_integers_are_refused_wherever_they_are(gpu: Callable[[Any], Any]) -> None:
    for ids in (np.array([0.5]), gpu([0.5])):
        with pytest.raises(DTypeError, match="ids must be integers"):
            ops.check_rows("ids", ids, 5)


def test_labels_from_the_host_are_checked_before_they_go(gpu: Callable[[Any], Any]) -> None:
    scores = mg.Tensor.wrap(gpu(np.zeros((2, 3), np.float32)))
    with pytest.raises(IndexRangeError, match="nll_loss labels: value 3 at place 1"):
        ops.label_ids("nll_loss", [0, 3], scores, ignore_index=-100)
    assert type(ops.label_ids("nll_loss", [0, -100], scores, ignore_index=-100)) is OnGpu


# ---------------------------------------------------------------- strict, on CuPy's own arrays
FETCHES: dict[str, Callable[[Any], Any]] = {
    "float(array)": float,
    "int(array)": int,
    "if array": lambda x: 1 if x else 0,
    "get": lambda x: x.get(),
    "CuPy's item": lambda x: x.item(),
    "CuPy's tolist": lambda x: x.tolist(),
    "repr": repr,
}


def array_without_gpu() -> Any:
    """A CuPy array of one element, around host memory that it believes to be a GPU's. Nothing can be computed with it."""
    import cupy
    from cupy.cuda import MemoryPointer, UnownedMemory

    without_driver()
    host = np.ones(1, np.float32)
    memory = MemoryPointer(UnownedMemory(host.ctypes.data, host.nbytes, host, device_id=0), 0)
    return cupy.ndarray(host.shape, host.dtype, memptr=memory)


@needs_cupy
@pytest.mark.parametrize("how", FETCHES)
def test_a_hidden_fetch_is_found_with_its_place(how: str) -> None:
    array = array_without_gpu()
    with transfers.strict(), pytest.raises(DeviceError, match="fetches numbers from the GPU, and waits") as error:
        FETCHES[how](array)
    assert error.value.code == "hidden-transfer"
    assert str(error.value).startswith(f"{Path(__file__)}:")


@needs_cupy
@pytest.mark.parametrize("how", FETCHES)
def test_outside_of_strict_and_where_it_is_declared_a_fetch_goes_on(how: str) -> None:
    array = array_without_gpu()
    with pytest.raises(RuntimeError, match="cudaErrorInsufficientDriver"):
        FETCHES[how](array)
    with transfers.strict(), transfers.declared(), pytest.raises(RuntimeError, match="cudaErrorInsufficientDriver"):
        FETCHES[how](array)


@needs_cupy
def test_what_tensors_offer_is_declared() -> None:
    tensor = mg.Tensor.wrap(array_without_gpu())
    with transfers.strict():
        for fetch in (lambda: transfers.to_host(tensor.array), tensor.item, tensor.tolist):
            with pytest.raises(RuntimeError, match="cudaErrorInsufficientDriver"):
                fetch()


@needs_cupy
def test_strict_blocks_nest_and_leave_nothing_behind() -> None:
    import cupy

    array = array_without_gpu()
    with transfers.strict():
        with transfers.strict(), pytest.raises(DeviceError):
            float(array)
        with pytest.raises(DeviceError):
            float(array)
        with pytest.raises(KeyError), transfers.strict():
            raise KeyError
        with pytest.raises(DeviceError):
            float(array)
    assert "get" not in vars(cupy.ndarray)
    with pytest.raises(RuntimeError, match="cudaErrorInsufficientDriver"):
        float(array)


def test_without_cupy_strict_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers.probe, "probe", lambda: backend.probe.Probe(installed=False, reason="CuPy is not installed"))
    with transfers.strict():
        assert mg.ones(1).item() == 1.0
