"""Array namespaces and devices: the one place that knows which library an array belongs to.

A namespace is NumPy (or CuPy) plus the few names it lacks; operation bodies receive it as `xp`. Tensors are the third
kind of array: `functional` registers their namespace here when it is imported, so nothing low has to import upwards.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from minigrad.backend import numpy as numpy_namespace
from minigrad.errors import ArgumentError, DeviceError, DTypeError, MissingExtraError

Array: TypeAlias = Any
"""numpy.ndarray, cupy.ndarray, or (inside an operation body) Tensor."""

Namespace: TypeAlias = Any

DEVICES = ("cpu", "cuda")
FLOAT_DTYPES = ("float32", "float64")

_namespaces: dict[type, Namespace] = {np.ndarray: numpy_namespace, np.generic: numpy_namespace}  # a 0-d result may be a scalar


def register_namespace(array_type: type, namespace: Namespace) -> None:
    """Teach `namespace_of` about one more array type."""
    _namespaces[array_type] = namespace


def namespace_of(array: Array) -> Namespace:
    """The namespace whose functions take `array`.

    Raises: DTypeError for anything that is no array of a known library.
    """
    namespace = _namespaces.get(type(array))
    if namespace is None:
        for known, candidate in list(_namespaces.items()):  # a subclass (Parameter, numpy.memmap): found once, then remembered
            if isinstance(array, known):
                _namespaces[type(array)] = candidate
                return candidate
        raise DTypeError(f"{type(array).__name__} is not an array that minigrad knows (numpy.ndarray, cupy.ndarray, minigrad.Tensor)")
    return namespace


def device_of(array: Array) -> str:
    """The word "cpu" or "cuda"."""
    return str(namespace_of(array).DEVICE)


def cuda_namespace() -> Namespace:
    """CuPy's namespace, imported on first use.

    Raises: MissingExtraError without CuPy; DeviceError without a usable GPU.
    """
    try:
        from minigrad.backend import cupy as cupy_namespace
    except ImportError as error:
        raise MissingExtraError('device "cuda" needs CuPy: install the extra with `pip install "minigrad-nn[gpu]"`') from error
    if not cupy_namespace.gpu_present():
        raise DeviceError('device "cuda": CuPy is installed but finds no usable NVIDIA GPU; use device "cpu"')
    register_namespace(cupy_namespace.ndarray, cupy_namespace)
    return cupy_namespace


def check_device(device: str) -> str:
    """Return `device` if it names one that exists here.

    Raises: ArgumentError for an unknown word; MissingExtraError or DeviceError when "cuda" cannot be had.
    """
    if device not in DEVICES:
        raise ArgumentError(f"unknown device {device!r}: use one of {', '.join(DEVICES)}")
    if device == "cuda":
        cuda_namespace()
    return device


def to_device(array: Array, device: str) -> Array:
    """The array on `device`; the same object if it is there already."""
    check_device(device)
    if device_of(array) == device:
        return array
    return cuda_namespace().asarray(array) if device == "cuda" else to_numpy(array)


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """The array in host memory; the same object if it is there already."""
    return np.asarray(array) if isinstance(array, np.ndarray) else np.asarray(array.get())
