"""HOW the hot operations run fast, backend by backend. Everything here is optional: without this folder each result is the same, later.

The environment variable MINIGRAD_KERNELS, read when minigrad is imported, says what runs: nothing but the readable bodies ("off"), NumPy's
passes ("numpy"), or by default the fastest that is installed: the passes that Numba compiles (the `fast` extra), else NumPy's. On a GPU the
kernels of `cuda/` run unless the word is "off".
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
    """Raises: ArgumentError for an unknown word. Asked when kernels are first wanted: an import could not say it in one line."""
    if chosen not in CHOICES:
        raise ArgumentError(f'the environment variable MINIGRAD_KERNELS must be "off", "numpy" or empty, got {chosen!r}')


@cache
def compiled_passes() -> ModuleType | None:
    """The module of compiled functions, or None where Numba is not wanted, not installed or broken.

    Decided once, when a function is first wanted: Numba takes half a second to import, and each function some tenths to compile.
    Raises: as `check_choice`.
    """
    check_choice()
    if chosen or find_spec("numba") is None:
        return None
    try:
        os.getcwd()  # Numba asks for it whenever it compiles, and the current folder may have been deleted
        import numba  # noqa: F401 - its own failures are told apart from ours
    except Exception as error:  # whatever is wrong with it, for instance a NumPy that it does not know: everything works without
        logger.warning("Numba is installed but cannot be used, so NumPy's passes run: %s", error)
        return None
    logger.info("Numba compiles the kernels, each when it is first used: some seconds in all")
    from minigrad.kernels import compiled

    return compiled


def passes_in_use() -> ModuleType:
    """The module whose passes over memory run: `compiled` or `passes`, which have the same functions."""
    return compiled_passes() or passes


def prepare(training: bool) -> None:
    """Compile now what would be compiled when it is first used: before a fork, whose processes then share the work and its memory."""
    if (compiled := compiled_passes()) is not None:
        compiled.prepare(training)


def in_use(device: str = "cpu") -> str:
    """What runs there, for the records of a run: "off", or "numpy" or "compiled" on a CPU, "cuda" on a GPU.

    Raises: as `check_choice`; ArgumentError for a device that is neither "cpu" nor "cuda".
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
