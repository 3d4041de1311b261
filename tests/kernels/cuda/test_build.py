"""Machine code is made once, kept, found again, and made anew when something has changed or is damaged."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minigrad.errors import ArgumentError, DeviceError, MissingExtraError
from minigrad.kernels.cuda import build
from minigrad.kernels.cuda.table import TABLE

SOURCE = "embedding.cu"


@pytest.fixture(autouse=True)
def compiler() -> None:
    try:
        build.compiler_version()
    except MissingExtraError as error:
        pytest.skip(f"no compiler for GPUs here: {error}")


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The sources compiled during a test, which has a cache of its own."""
    made: list[str] = []
    compile_source = build.compile_source

    def counted(name: str, text: str, architecture: int) -> tuple[bytes, str]:
        made.append(name)
        return compile_source(name, text, architecture)

    monkeypatch.setattr(build, "compile_source", counted)
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIGRAD_CUBINS", raising=False)
    return made


def test_headers_of_headers_are_found() -> None:
    assert list(build.headers('#include "warp.cuh"\n// #include "attention.cuh"\n#include "nowhere.cuh"')) == ["warp.cuh", "scalar.cuh"]


def test_the_second_time_it_is_found(compilations: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "minigrad"):
        path = build.cubin(SOURCE, 90)
        assert path.parent == tmp_path / "cache" / "kernels" and path.read_bytes().startswith(b"\x7fELF")
        assert build.cubin(SOURCE, 90) == path
    assert compilations == [SOURCE]
    [said] = caplog.messages
    assert said.startswith(f"{SOURCE} is compiled for sm_90: ") and said.endswith(str(path.parent))


def test_another_architecture_or_source_is_another_file(compilations: list[str]) -> None:
    assert len({build.cubin(SOURCE, 90), build.cubin(SOURCE, 80), build.cubin("loss.cu", 90)}) == 3


@pytest.mark.parametrize("what", ["a header", "the options", "the compiler"])
def test_a_change_makes_it_anew(what: str, compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.cubin(SOURCE, 90)
    if what == "a header":
        headers = build.headers('#include "rows.cuh"')
        headers["scalar.cuh"] += "\n"
        monkeypatch.setattr(build, "headers", lambda text: headers)
    elif what == "the options":
        monkeypatch.setattr(build, "OPTIONS", (*build.OPTIONS, "--use_fast_math"))
    else:
        monkeypatch.setattr(build, "compiler_version", lambda: "99.0")
    assert build.cubin(SOURCE, 90) != before and len(compilations) == 2


@pytest.mark.parametrize("damage", [b"", b"not machine code"], ids=["emptied", "overwritten"])
def test_a_damaged_file_is_made_anew(damage: bytes, compilations: list[str]) -> None:
    path = build.cubin(SOURCE, 90)
    whole = path.read_bytes()
    path.write_bytes(damage or whole[: len(whole) // 2])
    assert build.cubin(SOURCE, 90).read_bytes() == whole
    assert len(compilations) == 2


def test_two_processes_at_once(compilations: list[str], tmp_path: Path) -> None:
    code = f"from minigrad.kernels.cuda import build; print(build.cubin({SOURCE!r}, 90))"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert paths == {str(build.cubin(SOURCE, 90))} and not compilations
    assert [path.name for path in (tmp_path / "cache" / "kernels").iterdir()] == [Path(paths.pop()).name]  # nothing half done is left


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, compilations: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("MINIGRAD_CACHE", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match=r"cannot be kept in .*file/kernels .*MINIGRAD_CACHE") as caught:
        build.cubin(SOURCE, 90)
    assert caught.value.code == "cuda-cache"


def test_the_home_folder_has_the_cache_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MINIGRAD_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / ".cache" / "minigrad" / "kernels"


# ---------------------------------------------------------------- without a compiler
def no_compiler() -> Any:
    raise MissingExtraError("no compiler")


def test_a_folder_of_compiled_kernels_needs_no_compiler(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "sources", lambda architecture: [SOURCE, "loss.cu"])
    build.main(["--output", str(tmp_path / "made"), "--arch", "80,90"])
    assert len(list((tmp_path / "made").iterdir())) == 4
    assert "gather_rows" in capsys.readouterr().out
    monkeypatch.setenv("MINIGRAD_CUBINS", str(tmp_path / "made"))
    monkeypatch.setattr(build, "_nvrtc", no_compiler)
    for architecture, runs in ((90, 90), (80, 80), (86, 80), (89, 80)):  # a GPU runs what was made for an earlier one of its generation
        assert build.cubin(SOURCE, architecture).name.startswith(f"embedding-sm_{runs}-")
    for architecture in (75, 100):
        with pytest.raises(MissingExtraError):
            build.cubin(SOURCE, architecture)


def test_compiled_kernels_of_other_sources_are_not_taken(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build, "sources", lambda architecture: [SOURCE])
    build.main(["--output", str(tmp_path / "made"), "--arch", "90"])
    monkeypatch.setattr(build, "OPTIONS", (*build.OPTIONS, "--use_fast_math"))
    monkeypatch.setenv("MINIGRAD_CUBINS", str(tmp_path / "made"))
    assert build.cubin(SOURCE, 90).parent == tmp_path / "cache" / "kernels"
    assert "made has no embedding.cu of this version for sm_90, so it is compiled" in caplog.text


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy.cuda

    monkeypatch.setattr(cupy.cuda, "nvrtc", None)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nvrtc", None)
    with pytest.raises(MissingExtraError, match=r"minigrad-nn\[gpu\].*MINIGRAD_CUBINS"):
        build.compile_source("x.cu", "", 90)


# ---------------------------------------------------------------- for which GPUs
def test_a_gpu_gets_the_kernels_of_the_precisions_that_it_has() -> None:
    assert build.sources(80) == build.sources(120) == build.sources()
    assert {source for source in build.sources() if source not in build.sources(75)} == {
        "attention_tf32.cu",
        "attention_bf16.cu",
        "rows_bf16.cu",
    }
    assert {source for source in build.sources(75) if source not in build.sources(70)} == {"attention_fp16.cu", "rows_fp16.cu"}


# ---------------------------------------------------------------- what is said
def test_an_error_brings_the_compilers_words() -> None:
    with pytest.raises(
        DeviceError, match=r'wrong.cu does not compile for sm_90:\nwrong.cu\(2\): error: identifier "y" is undefined'
    ) as caught:
        build.compile_source("wrong.cu", 'extern "C" __global__ void k(float* x) {\n x[0] = y; }', 90)
    assert caught.value.code == "cuda-build"


def test_the_list_names_each_kernel_with_what_it_takes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "sources", lambda architecture: [SOURCE])
    build.main(["--arch", "90"])
    lines = capsys.readouterr().out.splitlines()
    kernels = [name for name, entry in TABLE.items() if entry.source == SOURCE]
    assert sorted(line.split()[:3] for line in lines) == sorted(["sm_90", SOURCE, name] for name in kernels)
    assert all("registers" in line and "0 spilled" in line for line in lines)


@pytest.mark.parametrize("arch", ["", "sm_90", "90,"])
def test_an_architecture_is_a_number(arch: str) -> None:
    with pytest.raises(ArgumentError, match="--arch takes numbers such as 80,90"):
        build.main(["--arch", arch])
