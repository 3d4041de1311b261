"""The number of BLAS threads is set and comes back, whatever happens in between."""

from __future__ import annotations

import os

import numpy as np
import pytest

from minigrad.backend import threads

needs_openblas = pytest.mark.skipif(not threads.openblas_libraries(), reason="this NumPy was not built with OpenBLAS")


def counts() -> list[int]:
    return [library.get() for library in threads.openblas_libraries()]


@needs_openblas
def test_inside_the_number_holds_and_afterwards_the_old_one() -> None:
    with threads.blas_threads(2):
        outside = counts()
        with threads.blas_threads(1):
            assert counts() == [1] * len(counts())
            np.ones((64, 64)) @ np.ones((64, 64))
        assert counts() == outside == [2] * len(outside)


@needs_openblas
def test_an_exception_restores_the_number() -> None:
    with threads.blas_threads(2):
        with pytest.raises(KeyError), threads.blas_threads(1):
            raise KeyError
        assert counts() == [2] * len(counts())


def test_without_openblas_the_block_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "openblas_libraries", tuple)
    ran = []
    with threads.blas_threads(1):
        ran.append(True)
    assert ran


def test_usable_cpus_are_those_of_this_process() -> None:
    allowed = os.sched_getaffinity(0)
    assert threads.usable_cpus() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert threads.usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_file_that_is_no_library_is_passed_over(tmp_path: pytest.TempPathFactory) -> None:
    assert threads._functions(f"{tmp_path}/libopenblas.so") is None
