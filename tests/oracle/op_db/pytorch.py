"""PyTorch and its lists of operations and layers, imported in silence."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=object, ACCEPT=False))  # type: ignore[arg-type]  # not installed, not used


@contextmanager
def silent() -> Iterator[None]:
    """Inside: PyTorch's advice to its users is not heard (nested tensors, dropout of a single layer, kl_div's mean, …)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


with silent():
    import torch
    from torch.testing._internal.common_device_type import toleranceOverride
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

__all__ = ["module_db", "op_db", "silent", "toleranceOverride", "torch"]
