"""When the GPU's kernels take over: at the first use of a GPU, unless they are switched off; never for users of a CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FIRST_USE = """
from minigrad import backend
from minigrad.op import REGISTRY
for prepare in backend._preparations:
    prepare()
print(*sorted(name for name, operation in REGISTRY.items() if "cupy" in operation.overrides))
"""


def fresh(code: str, kernels: str = "") -> str:
    """What a new interpreter prints; warnings are errors there too."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "MINIGRAD_KERNELS": kernels},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kernels", ["", "numpy"])
def test_the_first_use_of_a_gpu_registers_them(kernels: str) -> None:
    expected = (
        "attention attention_block cross_entropy dense_add_norm dense_gelu dense_tanh dropout embed_norm embedding feed_forward layer_norm "
        "linear linears segment_max segment_mean"
    )
    assert fresh(FIRST_USE, kernels).split() == expected.split()


def test_off_means_off() -> None:
    assert not fresh(FIRST_USE, "off").split()
    code = "from minigrad.optim.adam import adam; print(adam.overrides['cupy'](None, None, None, [], []))"
    assert fresh(code, "off").strip() == "NotImplemented"


def test_a_users_cpu_loads_none_of_them() -> None:
    code = (
        "import sys, numpy as np, minigrad as mg; from minigrad.optim import AdamW\n"
        "p = mg.Parameter(np.ones(3, np.float32)); p.sum().backward(); AdamW([p]).step()\n"
        "print(*[m for m in sys.modules if m.startswith(('minigrad.kernels.cuda', 'cupy'))])"
    )
    assert not fresh(code).split()


def test_they_load_without_cupy() -> None:
    """Until one is launched: so tests run them, and their operations' declining, anywhere."""
    code = "import sys; sys.modules['cupy'] = None; from minigrad.kernels import register_cuda; register_cuda(); print('loaded')"
    assert fresh(code).strip() == "loaded"
