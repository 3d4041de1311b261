"""HOW the hot operations run fast, backend by backend. Everything here is optional: without this folder each result is the same, later.

The environment variable MINIGRAD_KERNELS, read when minigrad is imported, says what runs: nothing but the readable bodies ("off"), NumPy's
passes ("numpy"), or by default the fastest that is installed.
"""

import os
from types import ModuleType

from minigrad.errors import ArgumentError
from minigrad.kernels import passes

CHOICES = ("", "numpy", "off")

chosen = os.environ.get("MINIGRAD_KERNELS", "")
if chosen not in CHOICES:
    raise ArgumentError(f'the environment variable MINIGRAD_KERNELS must be "off", "numpy" or empty, got {chosen!r}')


def passes_in_use() -> ModuleType:
    """The module whose passes over memory run."""
    return passes


if chosen != "off":
    from minigrad.kernels import cpu  # noqa: F401 - registers itself with the operations
