"""NVIDIA's compute-sanitizer over the tests of kernels: accesses out of bounds, threads of a block that race, barriers that some miss."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).with_name("test_kernels.py")

SHARING = " or ".join(
    [
        "(test_attention[ and 64-training)",
        "(test_attention[ and 32-decoder)",
        "(test_layer_blocks[ and small)",
        "cross_entropy",
        "dense_gelu[130-4]",
        "linears[129]",
        "ids_are_ordered",
        "embedding[1000-11-132]",
        "(embed_norm and 300-132)",
        "rows_are_added",
        "sum_of_squares[40001-1]",
        "captured_update",
        "(are_pooled and 770)",
    ]
)
"""Every kernel whose threads share memory, at sizes that the slow tools get through in a minute."""

TOOLS = {
    "memcheck": "not many_sequences and not every_kernel and not 4097 and not 70000 and not base",
    "racecheck": SHARING,
    "synccheck": SHARING,
}


@pytest.fixture
def sanitizer(device: str) -> str:
    found = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"]))
    if found is None:
        pytest.skip("there is no compute-sanitizer, which comes with the CUDA toolkit")
    if device == "cpu":
        pytest.skip("there are no kernels on a CPU")
    return found


@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_is_found(tool: str, sanitizer: str) -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(KERNELS), "-k", TOOLS[tool]],
        env=outside | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=KERNELS.parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
