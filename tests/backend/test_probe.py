"""Whether a GPU can be used: each thing that can be missing gives its own sentence, and devices by name follow what was found.

Where CuPy is installed and no driver is, that case is tested as it is. The others put other answers in place of CuPy's.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend
from minigrad.backend.precision import PRECISIONS, gpu_precision
from minigrad.backend.probe import OLDEST_CUPY, Gpu, Probe, Queries, probe
from minigrad.errors import DeviceError, MissingExtraError
from minigrad.tensor import Tensor

ROOT = Path(__file__).resolve().parents[2]

H100 = Gpu(name="NVIDIA H100", compute_capability=(9, 0), memory_total=80 << 30, memory_free=79 << 30)
V100 = Gpu(name="Tesla V100", compute_capability=(7, 0), memory_total=16 << 30, memory_free=15 << 30)
T4 = Gpu(name="Tesla T4", compute_capability=(7, 5), memory_total=16 << 30, memory_free=15 << 30)

GOOD: dict[str, Callable[..., Any]] = {
    "packages": lambda: ["cupy-cuda12x"],
    "cupy": lambda: "14.2.0",
    "driver": lambda: 13000,
    "runtime": lambda: 12090,
    "gpus": lambda: 1,
    "gpu": lambda index: H100,
    "nvrtc": lambda: (12, 9),
    "architectures": lambda: [(7, 0), (7, 5), (8, 0), (9, 0)],
    "cublas": lambda: None,
    "compute": lambda: None,
}


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


class CUDARuntimeError(RuntimeError):
    """Named as CuPy's own, which only an installed CuPy has."""


ABSENT = {"packages": list, "cupy": failing(ModuleNotFoundError("No module named 'cupy'", name="cupy"))}

OBSTACLES: dict[str, tuple[dict[str, Callable[..., Any]], list[str]]] = {
    "CuPy is not installed": (ABSENT, ["CuPy is not installed", '"minigrad-nn[gpu]"', '"minigrad-nn[gpu13]"']),
    "two packages": (
        {"packages": lambda: ["cupy-cuda12x", "cupy-cuda13x"]},
        ["several CuPy packages are installed (cupy-cuda12x, cupy-cuda13x)", "uninstall them all", '"minigrad-nn[gpu]"'],
    ),
    "the import fails": (
        {"cupy": failing(ImportError("=" * 64 + "\nlibfoo.so.1: cannot open\n" + "=" * 64))},
        [
            "CuPy is installed but cannot be imported (ImportError: libfoo.so.1: cannot open)",
            "uninstall cupy-cuda12x",
            '"minigrad-nn[gpu]"',
        ],
    ),
    "no folder for its kernels": (
        {"cupy": failing(PermissionError(13, "Permission denied", "/home/me/.cupy"))},
        ["CuPy is installed but cannot be imported (PermissionError: [Errno 13] Permission denied: '/home/me/.cupy')", "CUPY_CACHE_DIR"],
    ),
    "a module of CuPy is missing": (
        {"cupy": failing(ModuleNotFoundError("No module named 'cupy_backends'", name="cupy_backends"))},
        ["installed but cannot be imported (ModuleNotFoundError: No module named 'cupy_backends')"],
    ),
    "an old CuPy": (
        {"cupy": lambda: "13.6.0"},
        ["CuPy 13.6.0 is too old, 14.1 is the first that serves", "uninstall it", '"minigrad-nn[gpu]"'],
    ),
    "a GPU that CUDA no longer compiles for": (
        {"gpu": lambda index: V100, "architectures": lambda: [(7, 5), (8, 0), (12, 1)]},
        ["compiles for compute capability 7.5 to 12.1, and the GPU (Tesla V100) has 7.0", '"minigrad-nn[gpu]"', '"minigrad-nn[gpu13]"'],
    ),
    "broken metadata of packages": (
        {"packages": failing(OSError("metadata: Input/output error"))},
        ["looking for a GPU failed (OSError: metadata: Input/output error)", "python -m minigrad doctor"],
    ),
    "no driver": ({"driver": lambda: 0}, ["no NVIDIA driver was found", "install it", "--gpus all"]),
    "an old driver": (
        {"driver": lambda: 11080, "gpus": failing(CUDARuntimeError("cudaErrorInsufficientDriver"))},
        ["driver serves CUDA up to 11.8", "CuPy was built for 12.9", "update the driver"],
    ),
    "a driver that fails": (
        {"gpus": failing(CUDARuntimeError("cudaErrorSystemNotReady: system not yet initialized"))},
        ["driver does not answer (CUDARuntimeError: cudaErrorSystemNotReady: system not yet initialized)", "nvidia-smi"],
    ),
    "no visible GPU": ({"gpus": lambda: 0}, ["no GPU is visible", "CUDA_VISIBLE_DEVICES, which chooses, is '7'"]),
    "a GPU that tells nothing": (
        {"gpu": failing(CUDARuntimeError("cudaErrorECCUncorrectable"))},
        ["(CUDARuntimeError: cudaErrorECCUncorr"],
    ),
    "no NVRTC": (
        {"architectures": failing(RuntimeError("Failure finding libnvrtc.so.12"))},
        ["library NVRTC", "(RuntimeError: Failure finding libnvrtc.so.12)", '"minigrad-nn[gpu]"', "brings it along"],
    ),
    "no cuBLAS": (
        {"cublas": failing(ImportError("Failure finding libcublas.so.12"))},
        ["library cuBLAS", "(ImportError: Failure finding libcublas.so.12)", '"minigrad-nn[gpu]"', "brings it along"],
    ),
    "an unusable GPU": (
        {"compute": failing(CUDARuntimeError("cudaErrorDevicesUnavailable: busy"))},
        ["the GPU (NVIDIA H100) is present but cannot be used (CUDARuntimeError: cudaErrorDevicesUnavailable: busy)", "who else computes"],
    ),
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test makes the probe find is not found by the next."""

    def forget() -> None:
        probe(refresh=True)
        backend._best_device.cache_clear()

    forget()
    yield
    forget()


def answered(**answers: Callable[..., Any]) -> Probe:
    """What is found where CuPy answers like this, and well otherwise. The caller's fixture takes the answers back."""
    with pytest.MonkeyPatch.context() as patch:
        for name, answer in {**GOOD, **answers}.items():
            patch.setattr(Queries, name, staticmethod(answer))
        return probe(refresh=True)


@pytest.mark.parametrize("case", OBSTACLES)
def test_each_obstacle_has_a_sentence_that_says_what_to_do(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    answers, words = OBSTACLES[case]
    found = answered(**answers)
    assert not found.usable and not found.precisions
    for word in words:
        assert word in found.reason
    assert "\n" not in found.reason and "===" not in found.reason
    with pytest.raises(MissingExtraError if case == "CuPy is not installed" else DeviceError) as error:
        mg.zeros(2, device="cuda")
    assert str(error.value) == f'device "cuda": {found.reason}'


def test_no_two_obstacles_sound_alike() -> None:
    sentences = {answered(**answers).reason.partition("(")[0] for answers, _ in OBSTACLES.values()}
    assert len(sentences) == len(OBSTACLES) - 2  # the import fails in three ways


def test_a_long_text_of_an_error_is_cut() -> None:
    assert len(answered(compute=failing(RuntimeError("x" * 10_000))).reason) < 600


def test_a_usable_gpu_is_described() -> None:
    found = answered(gpus=lambda: 2, gpu=lambda index: (H100, V100)[index])
    assert found == Probe(cupy="14.2.0", driver=13000, runtime=12090, gpus=(H100, V100))
    assert found.usable and found.precisions == PRECISIONS


@pytest.mark.parametrize(("gpu", "precisions"), [(V100, ("float32",)), (T4, ("float32", "fp16"))], ids=["V100", "T4"])
def test_an_older_gpu_computes_in_what_its_tensor_cores_take(gpu: Gpu, precisions: tuple[str, ...]) -> None:
    found = answered(gpu=lambda index: gpu)
    assert found.usable and found.precisions == precisions
    for name in PRECISIONS:
        with mg.precision(name):
            if name in precisions:
                assert gpu_precision() == name
            else:
                with pytest.raises(DeviceError, match=f"precision '{name}': {gpu.name} has no tensor cores for it") as error:
                    gpu_precision()
                assert error.value.code == "gpu-precision" and str(error.value).endswith(f"computes in {' and '.join(precisions)}")


@pytest.mark.parametrize("version", ["14.1.0", "14.2.0", "15.0.0a1", "unknown"])
def test_a_cupy_that_is_new_enough_or_says_nothing_is_taken(version: str) -> None:
    assert answered(cupy=lambda: version).usable


def test_without_a_gpu_any_precision_is_as_good_as_another() -> None:
    """Whoever computes as on a GPU where there is none: the kernels' tests."""
    answered(driver=lambda: 0)
    with mg.precision("bf16"):
        assert gpu_precision() == "bf16"


def test_the_oldest_cupy_is_the_one_that_is_installed_at_least() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert setup.count(f"[ctk]>={'.'.join(map(str, OLDEST_CUPY))},<") == 2


def test_an_older_driver_of_the_same_cuda_is_usable() -> None:
    """CUDA promises that a driver of 12.2 runs what was built for 12.9."""
    assert answered(driver=lambda: 12020).usable


def test_what_was_found_is_kept() -> None:
    found = answered(driver=lambda: 0)
    assert probe() is found
    assert probe(refresh=True) is not found


# ---------------------------------------------------------------- as it is
needs_cupy = pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed (the `gpu` extra)")


def without_driver() -> None:
    if Queries.driver() != 0:
        pytest.skip("this machine has an NVIDIA driver")


@needs_cupy
def test_an_installed_cupy_without_a_driver() -> None:
    without_driver()
    found = probe()
    assert found.reason.startswith("no NVIDIA driver was found: ")
    assert found.cupy and found.driver == 0 and found.runtime and found.runtime >= 12000 and found.gpus == ()
    with pytest.raises(DeviceError, match="no NVIDIA driver was found"):
        Tensor(1.0, device="cuda")


@needs_cupy
def test_questions_about_gpus_fail_without_a_driver() -> None:
    """Each raises, so none can be mistaken for an answer."""
    without_driver()
    for question in (Queries.gpus, lambda: Queries.gpu(0), Queries.compute):
        with pytest.raises(Exception, match=r"cudaErrorInsufficientDriver|libcublas"):
            question()


def run(program: str, *paths: Path) -> str:
    """What a new interpreter prints; warnings are errors there too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_absent_cupy_names_the_extras() -> None:
    program = (
        "import sys; sys.modules['cupy'] = None; from minigrad.backend.probe import Queries, probe; Queries.packages = list; print(probe())"
    )
    assert 'reason=\'CuPy is not installed: `pip install "minigrad-nn[gpu]"`' in run(program)


def test_a_broken_cupy_is_told_from_an_absent_one(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("import cupy_backends_that_nobody_has", encoding="utf-8")
    assert "installed but cannot be imported (ModuleNotFoundError: No module named 'cupy_b" in run(
        "from minigrad.backend.probe import probe; print(probe().reason)", tmp_path
    )


# ---------------------------------------------------------------- devices by name
def test_auto_is_the_cpu_where_there_is_no_gpu_and_the_log_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    found = answered(driver=lambda: 0)
    model, x = mg.nn.Linear(2, 2), mg.ones((1, 2))
    with caplog.at_level(logging.INFO, "minigrad"):
        results = [x.to("auto"), mg.zeros(2, device="auto"), Tensor([1, 2], device="auto"), mg.nn.Parameter(np.ones(2), device="auto")]
        assert model.to("auto") is model
    assert [r.device for r in results] == ["cpu"] * 4 and model.weight.device == "cpu" and results[0] is x
    assert [record.getMessage() for record in caplog.records] == [f'device "auto" is the CPU: {found.reason}']


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    answered()
    monkeypatch.setattr(backend, "cuda_namespace", lambda: None)
    assert backend.check_device("auto") == "cuda"
    assert caplog.records == []


def test_asking_for_the_cpu_asks_nothing_of_cupy() -> None:
    program = "import minigrad as mg, sys; mg.zeros(2, device='cpu').to('cpu'); mg.nn.Linear(2, 2).to('cpu'); print('cupy' in sys.modules)"
    assert run(program) == "False\n"


def test_workers_may_be_forked_beside_a_gpu_that_cannot_be_used() -> None:
    with pytest.raises((DeviceError, MissingExtraError)):
        answered(driver=lambda: 0)
        mg.zeros(2, device="cuda")
    assert not backend.cuda_in_use()
    assert mg.workers.Replicas(lambda tokens: np.zeros(len(tokens.packing)), workers=2).workers == 2


@needs_cupy
def test_preparations_run_once_when_cuda_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(backend, "_preparations", [])
    monkeypatch.setattr(backend, "_namespaces", dict(backend._namespaces))
    backend.when_cuda(lambda: calls.append(1))
    backend._prepared_cuda.cache_clear()
    try:
        answered()
        assert not backend.cuda_in_use()
        for _ in range(2):
            assert backend.cuda_namespace().NAME == "cupy"
        assert calls == [1] and backend.cuda_in_use()
    finally:
        backend._prepared_cuda.cache_clear()
