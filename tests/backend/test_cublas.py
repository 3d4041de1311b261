"""The calls of cuBLAS as far as that goes without a GPU: constants and signatures as in NVIDIA's headers, arguments, failures.

A cuBLAS that is installed is really loaded, and without a driver it really refuses.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pytest
from kernels.cuda import short_arrays

import minigrad as mg
from minigrad.backend import cublas
from minigrad.backend.cublas import COMPUTE, SIGNATURES, TYPES, VALUES, call_of, check, new_handle
from minigrad.backend.gemm import DTYPES, Gemm, layout_of, plan_of
from minigrad.backend.probe import probe
from minigrad.errors import DeviceError


def headers(name: str) -> list[Path]:
    """Every installed copy of one of NVIDIA's headers."""
    spec = find_spec("nvidia")
    packages = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    folders = [Path("/usr/local/cuda/include"), *(folder for package in packages for folder in package.glob("*/include"))]
    return [folder / name for folder in folders if (folder / name).exists()]


@pytest.mark.parametrize(("name", "prefix"), [("library_types.h", "CUDA_R_"), ("cublas_api.h", "CUBLAS_")])
def test_constants_are_those_of_the_headers(name: str, prefix: str) -> None:
    found = headers(name)
    if not found:
        pytest.skip(f"no {name}: the CUDA toolkit, or the package nvidia-cublas, is not installed")
    for path in found:
        declared = {
            word: int(value) for word, value in re.findall(r"(\w+)\s*=\s*(-?\d+)", path.read_text(encoding="utf-8", errors="replace"))
        }
        ours = {word: value for word, value in VALUES.items() if word.startswith(prefix)}
        assert ours and ours == {word: declared.get(word) for word in ours}


C_TYPES = {
    "cublasHandle_t*": ctypes.POINTER(ctypes.c_void_p), "cublasHandle_t": ctypes.c_void_p, "cudaStream_t": ctypes.c_void_p,
    "cublasOperation_t": ctypes.c_int, "cudaDataType": ctypes.c_int, "cublasComputeType_t": ctypes.c_int, "cublasGemmAlgo_t": ctypes.c_int,
    "int": ctypes.c_int, "long long int": ctypes.c_longlong, "size_t": ctypes.c_size_t, "const void*": ctypes.c_void_p,
    "void*": ctypes.c_void_p,
}  # fmt: skip


def test_signatures_are_those_of_the_header() -> None:
    found = headers("cublas_api.h")
    if not found:
        pytest.skip("no cublas_api.h: the package nvidia-cublas is not installed")
    for path in found:
        text = path.read_text(encoding="utf-8", errors="replace")
        for name, types in SIGNATURES.items():
            parameters = re.search(rf"cublasStatus_t CUBLASWINAPI {name}\(([^)]*)\)", text)
            assert parameters is not None, f"{path} has no {name}"
            declared = [re.fullmatch(r"\s*(.*?)\s*(\w+)", part.replace("\n", " ")) for part in parameters[1].split(",")]
            assert [C_TYPES[match[1]] for match in declared if match] == list(types), name


# ---------------------------------------------------------------- the arguments of a call
NAMES = ("transa", "transb", "m", "n", "k", "alpha", "A", "Atype", "lda", "B", "Btype", "ldb", "beta", "C", "Ctype", "ldc", "computeType",
         "algo")  # fmt: skip
BATCHED = (*NAMES[:9], "strideA", *NAMES[9:12], "strideB", *NAMES[12:16], "strideC", "batchCount", *NAMES[16:])


def described(gemm: Gemm) -> tuple[str, dict[str, Any]]:
    name, arguments = call_of(gemm, 1000, 2000, 3000)
    names = NAMES if name == "cublasGemmEx" else BATCHED
    assert len(arguments) == len(names) == len(SIGNATURES[name]) - 1
    for argument, kind in zip(arguments, SIGNATURES[name][1:], strict=True):
        kind.from_param(argument)  # as ctypes does for the call; an argument of another type raises
    return name, dict(zip(names, arguments, strict=True))


def planned(*shapes: tuple[int, ...], accumulate: bool = False, how: tuple[str, str, str] = ("float32", "float32", "float32")) -> Gemm:
    return plan_of(*(layout_of(np.zeros(shape, np.float32)) for shape in shapes), accumulate, *how).gemm


def test_one_product() -> None:
    name, given = described(planned((5, 7), (7, 3), (5, 3), accumulate=True))
    assert name == "cublasGemmEx"
    assert (given["transa"], given["transb"], given["m"], given["n"], given["k"]) == (0, 0, 3, 5, 7)
    assert (given["A"], given["B"], given["C"]) == (1000, 2000, 3000) and (given["lda"], given["ldb"], given["ldc"]) == (3, 7, 3)
    alpha, beta = given["alpha"]._obj, given["beta"]._obj
    assert (alpha.value, beta.value) == (1.0, 1.0) and isinstance(alpha, ctypes.c_float) and isinstance(beta, ctypes.c_float)
    assert given["algo"] == -1


def test_a_batch() -> None:
    name, given = described(planned((4, 5, 7), (4, 7, 3), (4, 5, 3)))
    assert name == "cublasGemmStridedBatchedEx"
    assert (given["strideA"], given["strideB"], given["strideC"], given["batchCount"]) == (21, 35, 15, 4)
    assert given["beta"]._obj.value == 0.0


@pytest.mark.parametrize(
    ("operands", "compute", "result", "constants", "number"),
    [
        ("float32", "float32", "float32", ("CUDA_R_32F", "CUDA_R_32F", "CUBLAS_COMPUTE_32F"), ctypes.c_float),
        ("float32", "tf32", "float32", ("CUDA_R_32F", "CUDA_R_32F", "CUBLAS_COMPUTE_32F_FAST_TF32"), ctypes.c_float),
        ("bf16", "float32", "float32", ("CUDA_R_16BF", "CUDA_R_32F", "CUBLAS_COMPUTE_32F"), ctypes.c_float),
        ("bf16", "float32", "bf16", ("CUDA_R_16BF", "CUDA_R_16BF", "CUBLAS_COMPUTE_32F"), ctypes.c_float),
        ("fp16", "float32", "float32", ("CUDA_R_16F", "CUDA_R_32F", "CUBLAS_COMPUTE_32F"), ctypes.c_float),
        ("fp16", "float32", "fp16", ("CUDA_R_16F", "CUDA_R_16F", "CUBLAS_COMPUTE_32F"), ctypes.c_float),
        ("float64", "float64", "float64", ("CUDA_R_64F", "CUDA_R_64F", "CUBLAS_COMPUTE_64F"), ctypes.c_double),
    ],
)
def test_types_of_each_precision(operands: str, compute: str, result: str, constants: tuple[str, str, str], number: Any) -> None:
    _, given = described(planned((5, 7), (7, 3), (5, 3), how=(operands, compute, result)))
    taken, made, how = (VALUES[name] for name in constants)
    assert (given["Atype"], given["Btype"], given["Ctype"], given["computeType"]) == (taken, taken, made, how)
    assert isinstance(given["alpha"]._obj, number) and isinstance(given["beta"]._obj, number)
    assert set(TYPES) == set(DTYPES) and compute in COMPUTE


# ---------------------------------------------------------------- the library and its failures
class Noted:
    """Functions of a library that note how they were called and return a status."""

    def __init__(self, **statuses: int) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.statuses = statuses

    def __getattr__(self, name: str) -> Any:
        if name == "cublasGetStatusName":
            return lambda status: b"CUBLAS_STATUS_OF_%d" % status

        def function(*arguments: Any) -> int:
            self.calls.append((name, *arguments[1:]))
            return self.statuses.get(name, 0)

        return function


def test_a_handle_has_its_stream_and_then_its_workspace() -> None:
    """Setting the stream would set the workspace back."""
    noted = Noted()
    new_handle(noted, 77, 4096)
    assert noted.calls == [("cublasCreate_v2",), ("cublasSetStream_v2", 77), ("cublasSetWorkspace_v2", 4096, 32 << 20)]


def test_what_a_handle_works_in_outlives_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that the thread has recorded computes there, for as long as anybody has it."""

    class Memory:
        ptr = 4096

    def malloc(size: int) -> Memory:
        memory = Memory()
        made.append(ref(memory))
        return memory

    made: list[ref[Memory]] = []
    runtime = SimpleNamespace(getDevice=lambda: 0, streamIsCapturing=lambda stream: False)
    cuda = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=77), runtime=runtime)
    pool = SimpleNamespace(malloc=malloc)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool))
    monkeypatch.setattr(cublas, "library", Noted)
    monkeypatch.setattr(cublas, "_handles", {})

    def twice() -> None:
        assert cublas.current_handle() is cublas.current_handle()

    thread = Thread(target=twice)
    thread.start()
    twice()  # while the other may run: nobody else has this thread's handle
    thread.join()
    gc.collect()
    assert all(memory() is not None for memory in made) and len(made) == len(cublas._handles)


@pytest.mark.parametrize("name", ["cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2"])
def test_a_refusal_names_the_function_and_the_status(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"^cuBLAS: {name} answers CUBLAS_STATUS_OF_13 \(13\)$"):
        new_handle(Noted(**{name: 13}), 77, 4096)


def test_memory_that_does_not_suffice_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match=r"cublasGemmEx answers CUBLAS_STATUS_OF_3 \(3\) for it"):
        check(Noted(), "cublasGemmEx", 3, " for it")
    check(Noted(), "cublasGemmEx", 0)


def test_a_product_is_described_where_it_fails_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take as long as the call itself."""
    described = []
    gemm = planned((5, 7), (7, 3), (5, 3))
    monkeypatch.setattr(Gemm, "__repr__", lambda self: described.append(self) or "a product")
    monkeypatch.setattr(cublas, "current_handle", lambda: ctypes.c_void_p(7))
    array = SimpleNamespace(data=SimpleNamespace(ptr=1 << 20), itemsize=4)
    for status, times in ((0, 0), (13, 1)):
        noted = Noted(cublasGemmEx=status)
        monkeypatch.setattr(cublas, "library", lambda noted=noted: noted)
        with pytest.raises(DeviceError, match=r"answers CUBLAS_STATUS_OF_13 .* for a product") if status else nullcontext():
            cublas.run(gemm, array, array, array, (0, 0, 0))
        assert len(described) == times


@pytest.fixture
def fresh_library() -> Iterator[None]:
    cublas.library.cache_clear()
    yield
    cublas.library.cache_clear()


def installed() -> bool:
    try:
        cublas.library()
    except DeviceError:
        return False
    return True


def test_without_the_library_one_sentence_says_so(fresh_library: None) -> None:
    if installed():
        pytest.skip("cuBLAS is installed: what is said without it cannot be seen")
    with pytest.raises(DeviceError) as caught:
        cublas.library()
    assert str(caught.value).startswith("CUDA's library cuBLAS, which multiplies matrices, cannot be loaded (")
    assert 'pip install "minigrad-nn[gpu]"' in str(caught.value) and "\n" not in str(caught.value)


def test_the_library_has_every_function_and_refuses_without_a_driver(fresh_library: None) -> None:
    if not installed():
        pytest.skip("cuBLAS is not installed: its refusal without a driver cannot be seen")
    assert cublas.library().cublasGetStatusName(15) == b"CUBLAS_STATUS_NOT_SUPPORTED"
    if probe().usable:
        pytest.skip("there is a GPU: tests/gpu computes with it")
    with pytest.raises(DeviceError, match=r"^cuBLAS: cublasCreate_v2 answers CUBLAS_STATUS_NOT_INITIALIZED \(1\)$"):
        new_handle(cublas.library(), 0, 0)


# ---------------------------------------------------------------- the namespace
@pytest.mark.parametrize(
    ("precision", "dtypes", "expected"),
    [
        ("float32", ("f4", "f4"), ("float32", "float32", "f4")),
        ("tf32", ("f4", "f4"), ("float32", "tf32", "f4")),
        ("bf16", ("f4", "f4"), ("bf16", "float32", "u2")),
        ("fp16", ("f4", "f4"), ("fp16", "float32", "f2")),
        ("fp16", ("f8", "f8"), ("float64", "float64", "f8")),
        ("tf32", ("f4", "f8"), ("float64", "float64", "f8")),
        ("float32", ("f4", "i4"), ("float64", "float64", "f8")),  # as NumPy has it; operations convert integers to float32 before
    ],
)
def test_precision_and_dtypes_decide_how_a_product_is_called(
    precision: str, dtypes: tuple[str, str], expected: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namespace's `matmul` up to the plan, which does not care whose arrays they are."""
    pytest.importorskip("cupy", reason="CuPy is not installed: the namespace needs it")
    from minigrad.backend import cupy as namespace

    monkeypatch.setattr(namespace, "shortened", short_arrays.shortened)
    monkeypatch.setattr(namespace.cupy, "ascontiguousarray", np.ascontiguousarray)
    seen: list[Any] = []
    monkeypatch.setattr(namespace.gemm, "matmul", lambda xp, run, a, b, out, accumulate, *how: seen.append((a, b, how)))
    with mg.precision(precision):
        namespace.matmul(np.ones((2, 3), dtypes[0]), np.ones((3, 4), dtypes[1]))
    ((a, b, how),) = seen
    assert (*how, a.dtype, b.dtype) == (*expected, expected[2])
