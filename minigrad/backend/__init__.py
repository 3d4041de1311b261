"""Array namespaces and devices: the one place that knows which library an array belongs to.

A namespace is NumPy (or CuPy) plus the few names it lacks; operation bodies receive it as `xp`. Tensors are the third kind of array:
`functional` registers their namespace here when it is imported, so that this low-level package imports nothing above it.

A device is given as a word: "cpu", "cuda" (the first GPU that the process sees) or "auto" (the GPU if it is usable, else the CPU).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, TypeGuard

import numpy as np

from minigrad.backend import numpy as numpy_namespace
from minigrad.backend import probe, transfers
from minigrad.errors import ArgumentError, DeviceError, DTypeError, MissingExtraError

Array: TypeAlias = Any
"""numpy.ndarray, cupy.ndarray, or (inside an operation body) Tensor."""

Namespace: TypeAlias = Any

logger = logging.getLogger("minigrad")

DEVICES = ("cpu", "cuda", "auto")
FLOAT_DTYPES = ("float32", "float64")

_namespaces: dict[type, Namespace] = {np.ndarray: numpy_namespace, np.generic: numpy_namespace}  # a 0-d result may be a scalar
_preparations: list[Callable[[], object]] = []


def register_namespace(array_type: type, namespace: Namespace) -> None:
    """Make `namespace_of` recognise one more array type."""
    _namespaces[array_type] = namespace


def namespace_of(array: Array) -> Namespace:
    """The namespace whose functions take `array`.

    Raises: DTypeError for anything but an array of a known library.
    """
    namespace = _namespaces.get(type(array))
    if namespace is None:
        for known, candidate in list(_namespaces.items()):  # a subclass (Parameter, numpy.memmap): looked up once, then cached
            if isinstance(array, known):
                _namespaces[type(array)] = candidate
                return candidate
        raise DTypeError(f"{type(array).__name__} is not an array that minigrad knows (numpy.ndarray, cupy.ndarray, minigrad.Tensor)")
    return namespace


def device_of(array: Array) -> str:
    """The word "cpu" or "cuda"."""
    return str(namespace_of(array).DEVICE)


def when_cuda(prepare: Callable[[], object]) -> None:
    """Register `prepare` to be called when device "cuda" is first used; it may then register faster operations."""
    _preparations.append(prepare)


def cuda_namespace() -> Namespace:
    """CuPy's namespace, imported on first use.

    Raises: MissingExtraError without CuPy; DeviceError without a usable GPU. Both say what to do.
    """
    found = probe.probe()
    if not found.usable:
        raise (DeviceError if found.installed else MissingExtraError)(f'device "cuda": {found.reason}')
    return _prepared_cuda()


@cache
def _prepared_cuda() -> Namespace:
    from minigrad.backend import cupy as cupy_namespace

    register_namespace(cupy_namespace.ndarray, cupy_namespace)
    for prepare in _preparations:
        prepare()
    return cupy_namespace


def cuda_in_use() -> bool:
    """Whether this process has used a GPU, which makes it unusable in processes forked from this one."""
    return _prepared_cuda.cache_info().currsize > 0


def names_device(target: object) -> TypeGuard[str]:
    """Whether `target`, a dtype or a device, is meant to be a device."""
    return isinstance(target, str) and target.partition(":")[0] in DEVICES


def check_device(device: str) -> str:
    """The word "cpu" or "cuda" for a device that exists here; "auto" falls back to the CPU without a usable GPU and logs why, once.

    Raises: ArgumentError for an unknown word; MissingExtraError or DeviceError if "cuda" is not available.
    """
    if device not in DEVICES:
        hint = (
            '; a process uses one GPU, "cuda", and the environment variable CUDA_VISIBLE_DEVICES chooses it' if names_device(device) else ""
        )
        raise ArgumentError(f"unknown device {device!r}: use one of {', '.join(DEVICES)}{hint}")
    if device == "auto":
        return _best_device()
    if device == "cuda":
        cuda_namespace()
    return device


@cache
def _best_device() -> str:
    found = probe.probe()
    if not found.usable:
        logger.warning('device "auto" is the CPU: %s', found.reason)
        return "cpu"
    return check_device("cuda")


def to_device(array: Array, device: str) -> Array:
    """The array on `device`; the same object if it is there already."""
    device = check_device(device)
    if device_of(array) == device:
        return array
    return transfers.to_gpu(array) if device == "cuda" else to_numpy(array)


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """The array in host memory; the same object if it is there already."""
    return np.asarray(array) if isinstance(array, np.ndarray) else transfers.to_host(array)


def to_number(array: Array) -> Any:
    """The only element of an array as a Python number. From a GPU it arrives once all earlier work is done."""
    return (array if isinstance(array, np.ndarray | np.generic) else transfers.to_host(array)).item()
