"""Starting `child.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHILD = Path(__file__).with_name("child.py")
_ENVIRONMENT = os.environ | {"PYTHONPATH": str(_CHILD.parents[2]), "OPENBLAS_NUM_THREADS": "1"}


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
