"""Which passes run: what MINIGRAD_KERNELS asks for, and what is installed. Each case is a new interpreter: there nothing is decided yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import needs_numba

from minigrad import kernels
from minigrad.errors import ArgumentError
from minigrad.kernels import passes

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
import minigrad as mg
(mg.ones((2, 3)) + 1).sum()
print("before", "numba" in sys.modules)
for _ in range(2):
    y = mg.functional.layer_norm(mg.tensor([[1.0, 2.0, 3.0]]), mg.ones(3), mg.zeros(3))
print("after", "numba" in sys.modules, "minigrad.kernels.compiled" in sys.modules, round(float(y.numpy()[0, 2]), 3))
"""


@pytest.fixture(autouse=True)
def passes_used() -> None:
    """Nothing here depends on it."""


def fresh(choice: str, *paths: Path, program: str = PROGRAM) -> str:
    """What the program prints; warnings are errors there too."""
    environment = {**os.environ, "MINIGRAD_KERNELS": choice, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_numba
def test_numba_is_imported_when_a_kernel_first_runs_and_announced_once() -> None:
    before, announcement, after = fresh("").splitlines()
    assert before == "before False"
    assert announcement.startswith("INFO Numba compiles the kernels")
    assert after == "after True True 1.225"


@pytest.mark.parametrize("choice", ["numpy", "off"])
def test_who_asks_for_numpy_gets_no_numba(choice: str) -> None:
    assert fresh(choice).splitlines() == ["before False", "after False False 1.225"]


def test_a_broken_numba_is_one_warning(tmp_path: Path) -> None:
    """For instance one that knows no NumPy as new as this."""
    (tmp_path / "numba.py").write_text('raise ImportError("Numba needs NumPy 2.3 or less")', encoding="utf-8")
    before, warning, after = fresh("", tmp_path).splitlines()
    assert (before, after) == ("before False", "after False False 1.225")
    assert warning == "WARNING Numba is installed but cannot be used, so NumPy's passes run: Numba needs NumPy 2.3 or less"


@needs_numba
def test_in_a_folder_that_was_deleted_numpy_runs(tmp_path: Path) -> None:
    """Numba asks for the current folder when it compiles."""
    leave = f"import os\nos.chdir({str(tmp_path)!r})\nos.rmdir({str(tmp_path)!r})\n"
    _, warning, after = fresh("", program=leave + PROGRAM).splitlines()
    assert warning.startswith("WARNING Numba is installed but cannot be used, so NumPy's passes run: [Errno 2]")
    assert after == "after False False 1.225"


MISSPELT = """
import minigrad as mg
print(mg.ones(3).sum().item())
for wanted in (mg.kernels.in_use, mg.kernels.register_cuda, lambda: mg.functional.layer_norm(mg.ones((2, 3)), mg.ones(3), mg.zeros(3))):
    try:
        wanted()
    except mg.errors.ArgumentError as error:
        print(error)
"""


def test_an_unknown_word_is_an_error_when_kernels_are_first_wanted() -> None:
    """And not when minigrad is imported, where the command line could not say it in one line."""
    first, *errors = fresh("of", program=MISSPELT).splitlines()
    assert first == "3.0"
    assert errors == ['the environment variable MINIGRAD_KERNELS must be "off", "numpy" or empty, got \'of\''] * 3


@pytest.mark.parametrize(("choice", "on_gpu"), [("", "cuda"), ("numpy", "cuda"), ("off", "off")])
def test_what_is_in_use(choice: str, on_gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "chosen", choice)
    monkeypatch.setattr(kernels, "compiled_passes", lambda: None)
    assert (kernels.in_use(), kernels.in_use("cuda")) == (choice or "numpy", on_gpu)


def test_what_is_in_use_is_asked_of_a_device_that_there_is() -> None:
    with pytest.raises(ArgumentError, match='on "cpu" or on "cuda", got \'gpu\''):
        kernels.in_use("gpu")


def test_without_numba_numpys_passes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "chosen", "")
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels.compiled_passes.__wrapped__() is None
    monkeypatch.setattr(kernels, "compiled_passes", lambda: None)
    assert kernels.passes_in_use() is passes
