"""The short form of the fuzzing: each reader's seeds and some hundred changes of them, the same every time. And that escapes are seen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fuzz import runner
from fuzz.runner import Campaign, scratch_folder, try_input
from fuzz.targets import TARGETS

from minigrad.errors import ConfigError, WeightFileError

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_escapes(name: str) -> None:
    with scratch_folder() as scratch:
        report = Campaign(name, seed=0, scratch=scratch).run(inputs=600)
    assert not report.escapes, "\n".join(report.escapes.values())
    assert report.codes["accepted"] >= 10, "valid files are among them"
    assert len(report.codes) >= 6, "more than the first check is reached"


def test_the_same_seed_makes_the_same_inputs() -> None:
    reports = []
    for _ in range(2):
        with scratch_folder() as scratch:
            reports.append(Campaign("safetensors", seed=3, scratch=scratch).run(inputs=100).codes)
    assert reports[0] == reports[1]


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=100)


def test_the_command(tmp_path: Path) -> None:
    done = _command("-m", "fuzz", "shards", "--minutes", "0.005", "--escapes", str(tmp_path))
    assert done.returncode == 0 and done.stdout.startswith("shards: ") and ", 0 escapes" in done.stdout, done.stderr
    (tmp_path / "saved").write_bytes(b"nothing that is JSON")
    again = _command("-m", "fuzz", "config", "--reproduce", str(tmp_path / "saved"))
    assert again.returncode == 1 and "ConfigError" in again.stderr


def test_a_crash_costs_one_process_and_leaves_its_files(tmp_path: Path) -> None:
    crash = "(scratch / 'input').write_bytes(b'x'), os.kill(os.getpid(), signal.SIGKILL)"
    imports = "import os, signal, sys; from pathlib import Path; from fuzz.__main__ import supervised"
    program = f"{imports}; print(supervised('torch', Path(sys.argv[1]), lambda scratch: ({crash})))"
    done = _command("-c", program, str(tmp_path))
    assert done.stdout == "False\n" and "ended by a signal" in done.stderr
    assert (tmp_path / "torch-SIGKILL" / "input").read_bytes() == b"x"


def _raise(error: BaseException) -> None:
    raise error


def _write(path: Path) -> None:
    path.write_bytes(b"")


def _connect() -> None:
    with socket.socket() as unbound:
        unbound.connect_ex(("127.0.0.1", 9))


ESCAPES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another exception": (lambda scratch: _raise(KeyError("x")), "KeyError"),
    "an error of another family": (lambda scratch: _raise(ConfigError(scratch, "x")), "ConfigError"),
    "no exception proper": (lambda scratch: _raise(BaseException("panic")), "BaseException"),
    "a message without the path": (lambda scratch: _raise(WeightFileError("x", "broken")), "without the path"),
    "a message of a megabyte": (lambda scratch: _raise(WeightFileError(scratch, "x" * 10**6)), "a message of"),
    "a file elsewhere read": (lambda scratch: Path("/etc/hostname").exists() and open("/etc/hostname").close(), "open"),
    "a file written": (lambda scratch: _write(scratch / "x"), "open"),
    "a file removed": (lambda scratch: os.unlink(scratch / "model.safetensors"), "os.remove"),
    "a connection": (lambda scratch: _connect(), "socket"),
    "a program": (lambda scratch: os.system("true"), "os.system"),
    "code": (lambda scratch: eval("1"), "compile"),
    "an import": (lambda scratch: __import__("this_is_no_module_at_all"), "ModuleNotFoundError"),
    "memory": (lambda scratch: bytes(300 << 20).find(b"\1"), "MB"),
}


@pytest.mark.parametrize("what", ESCAPES)
def test_escapes_are_seen(what: str) -> None:
    act, word = ESCAPES[what]
    target = replace(TARGETS["safetensors"], read=act)
    with scratch_folder() as scratch:
        found = try_input(target, b"x", scratch, traced=what == "memory")
    assert found.escape is not None and word in found.escape


def test_slow_and_endless_inputs_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def spin(scratch: Path) -> None:
        while True:
            pass

    monkeypatch.setattr(runner, "HANG_SECONDS", 1)
    with scratch_folder() as scratch:
        assert try_input(replace(TARGETS["safetensors"], read=spin), b"x", scratch).code == "hang"
        monkeypatch.setattr(runner, "SECONDS", 0.0)
        slow = try_input(TARGETS["safetensors"], TARGETS["safetensors"].seeds()[0], scratch)
    assert slow.escape is not None and "processor time" in slow.escape
