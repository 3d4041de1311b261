"""cuBLAS by ctypes: makes the calls that `gemm` plans on a GPU.

CuPy (14.2) does not serve here: it computes batches of fp16 in float32 and refuses those of bf16, has no compute type per call, and refuses
every product during the capture of a CUDA graph.

A handle belongs to one device, one thread and one stream, and has its workspace from the start: cuBLAS allocates nothing later, and
products on two streams do not share a workspace.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_longlong, c_size_t, c_void_p
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

from minigrad.backend.gemm import Gemm
from minigrad.backend.probe import INSTALL, error_text
from minigrad.errors import DeviceError

WORKSPACE = 32 << 20
"""Bytes of a handle's workspace: cuBLAS's default on Hopper, and more than its default on other GPUs."""

VALUES = {
    "CUBLAS_STATUS_ALLOC_FAILED": 3,
    "CUBLAS_OP_N": 0,
    "CUBLAS_OP_T": 1,
    "CUBLAS_GEMM_DEFAULT": -1,
    "CUBLAS_COMPUTE_32F": 68,
    "CUBLAS_COMPUTE_64F": 70,
    "CUBLAS_COMPUTE_32F_FAST_TF32": 77,
    "CUDA_R_32F": 0,
    "CUDA_R_64F": 1,
    "CUDA_R_16F": 2,
    "CUDA_R_16BF": 14,
}
"""The constants of cublas_api.h and library_types.h that are used here."""

TYPES = {kind: VALUES[f"CUDA_R_{name}"] for kind, name in (("float32", "32F"), ("float64", "64F"), ("fp16", "16F"), ("bf16", "16BF"))}
COMPUTE = {kind: VALUES[f"CUBLAS_COMPUTE_{name}"] for kind, name in (("float32", "32F"), ("tf32", "32F_FAST_TF32"), ("float64", "64F"))}

_matrix = (c_void_p, c_int, c_int)  # address, type, leading dimension
_shape = (c_void_p, c_int, c_int, c_int, c_int, c_int, c_void_p)  # handle, op(A), op(B), m, n, k, alpha

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (POINTER(c_void_p),),
    "cublasSetStream_v2": (c_void_p, c_void_p),
    "cublasSetWorkspace_v2": (c_void_p, c_void_p, c_size_t),
    "cublasGemmEx": (*_shape, *_matrix, *_matrix, c_void_p, *_matrix, c_int, c_int),
    "cublasGemmStridedBatchedEx": (
        *_shape, *_matrix, c_longlong, *_matrix, c_longlong, c_void_p, *_matrix, c_longlong, c_int, c_int, c_int,
    ),
}  # fmt: skip
"""The functions used, with the types of their arguments; each returns a status."""

Library: TypeAlias = Any
"""A ctypes.CDLL with the functions of SIGNATURES and cublasGetStatusName."""

_handles: dict[tuple[int, int, int], tuple[c_void_p, Any]] = {}
"""Handles with their workspaces, by device, stream and thread. They outlive their thread, since graphs that it captured compute in the
workspace; a later thread with the same number takes them over."""


@cache
def library() -> Library:
    """The same cuBLAS library that CuPy uses. Raises: DeviceError if there is none."""
    try:
        pathfinder: Any = import_module("cuda.pathfinder")  # comes with CuPy; has no type stubs
        loaded = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception as error:  # the loader's own exceptions, and the system's
        raise DeviceError(
            f"CUDA's library cuBLAS, which multiplies matrices, cannot be loaded ({error_text(error)}): {INSTALL} brings it along"
        ) from error
    for name, arguments in SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, c_int
    loaded.cublasGetStatusName.argtypes, loaded.cublasGetStatusName.restype = (c_int,), c_char_p
    return loaded


def run(gemm: Gemm, a: Any, b: Any, c: Any, starts: tuple[int, int, int]) -> None:
    """Make one planned call on CuPy arrays, on the current device and stream.

    Raises: DeviceError, or MemoryError, if cuBLAS refuses; DeviceError for the first product on a stream that is being captured.
    """
    at_a, at_b, at_c = (x.data.ptr + start * x.itemsize for x, start in zip((a, b, c), starts, strict=True))
    name, arguments = call_of(gemm, at_a, at_b, at_c)
    functions = library()
    if status := getattr(functions, name)(current_handle(), *arguments):  # formatting the details takes as long as the call
        check(functions, name, status, f" for {gemm}")


def call_of(gemm: Gemm, a: int, b: int, c: int) -> tuple[str, tuple[Any, ...]]:
    """The function for a call, and its arguments after the handle. a, b, c: addresses."""
    number = c_double if gemm.compute == "float64" else c_float  # alpha and beta have the type of the sums
    of_a, of_b = (a, TYPES[gemm.operands], gemm.lda), (b, TYPES[gemm.operands], gemm.ldb)
    of_c = (c, TYPES[gemm.result], gemm.ldc)
    flags = [VALUES["CUBLAS_OP_T" if flag else "CUBLAS_OP_N"] for flag in (gemm.transpose_a, gemm.transpose_b)]
    shape, beta = (*flags, gemm.m, gemm.n, gemm.k, byref(number(1.0))), byref(number(gemm.beta))
    how = COMPUTE[gemm.compute], VALUES["CUBLAS_GEMM_DEFAULT"]
    if gemm.batch == 1:
        return "cublasGemmEx", (*shape, *of_a, *of_b, beta, *of_c, *how)
    batched = (*shape, *of_a, gemm.stride_a, *of_b, gemm.stride_b, beta, *of_c, gemm.stride_c, gemm.batch, *how)
    return "cublasGemmStridedBatchedEx", batched


def check(functions: Library, name: str, status: int, details: str = "") -> None:
    """Raises: MemoryError or DeviceError for a status that is not success."""
    if status:
        word = functions.cublasGetStatusName(status).decode("ascii", "replace")
        kind = MemoryError if status == VALUES["CUBLAS_STATUS_ALLOC_FAILED"] else DeviceError
        raise kind(f"cuBLAS: {name} answers {word} ({status}){details}")


# ---------------------------------------------------------------- handles
def current_handle() -> c_void_p:
    """The handle of the current device, thread and stream, created at its first product. Raises: as `run`."""
    import cupy

    stream = cupy.cuda.get_current_stream().ptr
    key = cupy.cuda.runtime.getDevice(), stream, threading.get_ident()
    if key not in _handles:
        if cupy.cuda.runtime.streamIsCapturing(stream):
            raise DeviceError("the first matrix product on a stream cannot be captured: compute the step once on that stream before")
        workspace = cupy.get_default_memory_pool().malloc(WORKSPACE)  # not from the pool of a capture, which does not live as long
        _handles[key] = new_handle(library(), stream, workspace.ptr), workspace
    return _handles[key][0]


def new_handle(functions: Library, stream: int, workspace: int) -> c_void_p:
    """A handle for one stream, with its own workspace. It lives as long as the process. Raises: DeviceError or MemoryError."""
    handle = c_void_p()
    check(functions, "cublasCreate_v2", functions.cublasCreate_v2(byref(handle)))
    check(functions, "cublasSetStream_v2", functions.cublasSetStream_v2(handle, stream))
    # after the stream, because setting that resets the workspace to cuBLAS's own
    check(functions, "cublasSetWorkspace_v2", functions.cublasSetWorkspace_v2(handle, workspace, WORKSPACE))
    return handle
