"""How the hot operations run fast, backend by backend. All of this is optional: without this folder every result is the same, only later.

The environment variable MINIGRAD_KERNELS, read when minigrad is imported, selects what runs: only the readable operation bodies ("off"),
NumPy's passes ("numpy"), or by default the fastest available: passes compiled by Numba (the `fast` extra) if it is installed, else NumPy's.
On a GPU the kernels of `cuda/` run unless it is "off".
"""

import logging
import os
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from minigrad.backend import when_cuda
from minigrad.errors import ArgumentError
from minigrad.kernels import passes

logger = logging.getLogger("minigrad")

CHOICES = ("", "numpy", "off")

chosen = os.environ.get("MINIGRAD_KERNELS", "")


def check_choice() -> None:
    """Raises: ArgumentError for an unknown word. Called when kernels are first needed: an import cannot report it in one line."""
    if chosen not in CHOICES:
        raise ArgumentError(f'the environment variable MINIGRAD_KERNELS must be "off", "numpy" or empty, got {chosen!r}')


@cache
def compiled_passes() -> ModuleType | None:
    """The module of compiled functions, or None if Numba is not wanted, not installed or broken.

    Decided once, when a function is first needed: Numba takes half a second to import, and each function a few tenths to compile.
    Raises: as `check_choice`.
    """
    check_choice()
    if chosen or find_spec("numba") is None:
        return None
    try:
        os.getcwd()  # Numba asks for it whenever it compiles, and the current folder may have been deleted
        import numba  # noqa: F401 - imported here to tell its own failures from ours
    except Exception as error:  # whatever is wrong, an incompatible NumPy for instance: everything works without it
        logger.warning("Numba is installed but cannot be used, so NumPy's passes run: %s", error)
        return None
    logger.info("Numba compiles the kernels, each when it is first used: some seconds in all")
    from minigrad.kernels import compiled

    return compiled


def passes_in_use() -> ModuleType:
    """The module whose passes over memory run, `compiled` or `passes`; both have the same functions."""
    return compiled_passes() or passes


def prepare(training: bool) -> None:
    """Compile now what would be compiled at first use: before a fork, so that the processes share the work and its memory."""
    if (compiled := compiled_passes()) is not None:
        compiled.prepare(training)


def in_use(device: str = "cpu") -> str:
    """What runs on a device, for the records of a run: "off"; on a CPU "numpy" or "compiled"; on a GPU "cuda".

    Raises: as `check_choice`; ArgumentError for a device other than "cpu" and "cuda".
    """
    check_choice()
    if device not in ("cpu", "cuda"):
        raise ArgumentError(f'kernels run on "cpu" or on "cuda", got {device!r:.80}')
    if device == "cuda":
        return chosen if chosen == "off" else "cuda"
    return chosen or ("numpy" if compiled_passes() is None else "compiled")


def register_cuda() -> None:
    """Import the GPU's kernels, which register themselves with the operations. Raises: as `check_choice`."""
    check_choice()
    from minigrad.kernels.cuda import attention, blocks, embedding, layers, losses, sequences  # noqa: F401


if chosen != "off":
    from minigrad.kernels import cpu  # noqa: F401 - registers itself with the operations

    when_cuda(register_cuda)
