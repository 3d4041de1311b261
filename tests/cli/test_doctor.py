"""The command doctor: it answers whatever is broken, and says of a GPU what the probe says."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend
from minigrad.backend.precision import PRECISIONS
from minigrad.backend.probe import Gpu, Probe, Queries, probe
from minigrad.backend.threads import usable_cpus
from minigrad.cli import doctor, main

GPU = Gpu(name="NVIDIA H100", compute_capability=(9, 0), memory_total=80 << 30, memory_free=79 << 30)
OLD = Gpu(name="Tesla V100", compute_capability=(7, 0), memory_total=16 << 30, memory_free=15 << 30)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test makes the probe find is not found by the next, nor is that GPU in use."""
    yield
    probe(refresh=True)
    if not probe().usable:
        backend._prepared_cuda.cache_clear()


def found(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["doctor", "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> None:
    """A machine with a GPU, as far as doctor sees it: its tensors lie on the CPU."""
    monkeypatch.setattr(doctor, "probe", lambda: Probe(cupy="14.2.0", driver=13000, runtime=12090, gpus=(gpu,)))
    monkeypatch.setattr(doctor, "ones", lambda shape, device: mg.ones(shape))


def test_it_says_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        numba = version("numba")
    except PackageNotFoundError:
        numba = "not installed"
    answers = found(capsys)
    assert answers["minigrad"] == mg.__version__
    assert answers["python"].startswith(platform.python_version())
    assert answers["numpy"] == np.__version__ and answers["numba"] == numba
    assert answers["processors"] == usable_cpus()
    assert answers["kernels"] == mg.kernels.in_use()
    assert not [name for name, answer in answers.items() if str(answer).startswith("failed") and name not in ("nvrtc", "cublas")]


def test_of_a_gpu_it_says_what_the_probe_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert found(capsys)["gpu"] == (probe().reason or "usable")


def test_every_answer_is_one_line_of_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    answers = found(capsys)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(answers)
    assert f"numpy       {np.__version__}" in lines


def test_without_cupy_nothing_of_it_has_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: Probe(installed=False, reason="CuPy is not installed: install it"))
    answers = found(capsys)
    assert {answers[name] for name in ("cupy", "nvrtc", "cublas")} == {"not installed"}
    assert (answers["gpu"], answers["gpus"], answers["precisions"]) == ("CuPy is not installed: install it", [], {})


def test_a_usable_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_a_gpu(monkeypatch, GPU)
    answers = found(capsys)
    assert (answers["gpu"], answers["driver"], answers["runtime"]) == ("usable", "CUDA 13.0", "CUDA 12.9")
    assert answers["gpus"] == [{"name": "NVIDIA H100", "compute_capability": "9.0", "memory_total": 80 << 30, "memory_free": 79 << 30}]
    assert answers["precisions"] == dict.fromkeys(PRECISIONS, "works")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "NVIDIA H100, compute capability 9.0, 79.0 of 80.0 GiB free" in text
    assert "float32 works, tf32 works, bf16 works, fp16 works" in text


def test_an_older_gpu_computes_in_float32(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_a_gpu(monkeypatch, OLD)
    precisions = found(capsys)["precisions"]
    assert precisions.pop("float32") == "works"
    assert precisions and set(precisions.values()) == {"this GPU has no tensor cores for it"}


def test_a_wrong_product_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_a_gpu(monkeypatch, GPU)
    monkeypatch.setattr(doctor, "ones", lambda shape, device: mg.full(shape, 1.5))
    assert set(found(capsys)["precisions"].values()) == {"gives a wrong product"}


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken\nin two lines")


@pytest.mark.parametrize(
    ("place", "name", "question"),
    [
        (platform, "platform", "platform"),
        (doctor, "usable_cpus", "processors"),
        (np, "show_config", "blas"),
        (doctor, "openblas_libraries", "blas"),
        (doctor, "_installed", "numba"),
        (mg.kernels, "in_use", "kernels"),
        (Queries, "nvrtc", "nvrtc"),
        (Queries, "cublas", "cublas"),
    ],
)
def test_what_is_broken_is_said_and_the_rest_is_answered(
    place: Any, name: str, question: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_gpu(monkeypatch, GPU)  # CuPy's libraries are asked for only where CuPy is installed
    monkeypatch.setattr(place, name, broken)
    answers = found(capsys)
    assert answers[question] == "failed: RuntimeError: broken in two lines"
    assert answers["minigrad"] == mg.__version__ and answers["gpu"]


def test_a_gpu_that_breaks_in_the_middle_is_said_for_each_precision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_gpu(monkeypatch, GPU)
    monkeypatch.setattr(doctor, "ones", broken)
    assert found(capsys)["precisions"] == dict.fromkeys(PRECISIONS, "failed: RuntimeError: broken in two lines")


@pytest.mark.parametrize("question", [name for name in vars(Queries) if not name.startswith("_")])
def test_whatever_cupy_fails_with_there_is_an_answer(
    question: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {"packages": list, "cupy": str, "driver": lambda: 1, "runtime": lambda: 1, "gpus": lambda: 1, "gpu": lambda i: GPU}
    for name, answer in {
        **answers,
        "nvrtc": lambda: (12, 9),
        "architectures": lambda: [(9, 0)],
        "cublas": str,
        "compute": str,
        question: broken,
    }.items():
        monkeypatch.setattr(Queries, name, staticmethod(answer))
    probe(refresh=True)
    answers = found(capsys)
    assert "RuntimeError: broken in two lines" in str(answers)
    assert answers["gpu"] != "usable" or question == "nvrtc"  # its version is asked for nothing but the answer
