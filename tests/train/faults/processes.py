"""Starting `child.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import minigrad

_CHILD = Path(__file__).with_name("child.py")
_PACKAGES = [_CHILD.parents[2], Path(minigrad.__file__).parents[1]]  # the child must test the same package as this process
_ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, _PACKAGES)), "OPENBLAS_NUM_THREADS": "1"}


def run_child(mode: str, directory: Path) -> str:
    """What the child prints, after it ended well."""
    done = subprocess.run([sys.executable, _CHILD, mode, directory], env=_ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def child(mode: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A running child with pipes to it; killed at the end, if it still runs."""
    command = [sys.executable, str(_CHILD), mode, str(directory)]
    with subprocess.Popen(
        command, env=_ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
