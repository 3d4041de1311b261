"""A GPU emulated on NumPy arrays: a step's operations are computed eagerly, and can be recorded and replayed without the step's Python.

Device arrays have a class of their own. Every NumPy function that creates or changes one is recorded with the arrays it read and the one it
wrote, as a CUDA graph records CuPy's kernels; kernels run in the emulator and products in NumPy, and are recorded too. Views share memory
and need no recording.

When work is done, and in which memory: streams.py.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
from kernels.cuda import short_arrays, streams
from kernels.cuda.streams import Event, Memory, SecondStream, Stream, arrays_in, noted, owner, queue, settle, spoil

from minigrad import backend
from minigrad.backend import graph_memory, graphs, probe, transfers
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import Product
from minigrad.backend.precision import product_precision
from minigrad.backend.side_stream import SideStream
from minigrad.kernels import register_cuda
from minigrad.kernels.cuda import launch
from minigrad.modes import Mode

METHODS = ("copy", "astype", "sum", "max", "min", "mean", "argmax", "cumsum", "dot", "ravel", "flatten", "reshape", "any", "all")

allocated: list[np.ndarray] = []
"""The arrays allocated by a recording and the trial run before it: between its replays other graphs write to their memory."""


def plain(value: Any) -> Any:
    """Device arrays, also inside lists and tuples, as NumPy arrays of the same memory. Raises: AssertionError for a host array."""
    if isinstance(value, Device):
        return value.view(np.ndarray)
    if isinstance(value, list | tuple):
        return type(value)(plain(part) for part in value)
    assert not isinstance(value, np.ndarray) or value.ndim == 0, "an array of the host meets one of the GPU"
    return value


class Device(np.ndarray):
    """An array on the GPU."""

    device = "the emulated GPU"
    _wholes: ClassVar[WeakValueDictionary[int, Device]] = WeakValueDictionary()

    def __array_finalize__(self, source: Any) -> None:
        self.memory = Memory.of.get(id(owner(self)))

    @property
    def base(self) -> Device:
        """One array for all views of the same memory, as in CuPy; NumPy would return the array from which each view was made."""
        owned = owner(self)
        whole = self._wholes.get(id(owned))
        if whole is None:
            whole = self._wholes[id(owned)] = owned.view(Device)
        return whole

    def get(self, stream: Any = None, out: Any = None, blocking: bool = True) -> np.ndarray:
        source = self.view(np.ndarray)
        if not blocking:
            queue.append(lambda: np.copyto(out, source))
            return out
        settle()
        return np.array(source)

    def set(self, host: np.ndarray, stream: Any) -> None:
        target = self.view(np.ndarray)
        queue.append(lambda: np.copyto(target, host))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        settle()
        function, given = getattr(ufunc, method), [plain(part) for part in inputs]
        if out is None and method != "at":
            return made(ufunc.__name__, function, given, options)
        if out is None:
            function(*given, **options)
            noted(ufunc.__name__, lambda: function(*given, **options), given, given[0])
            return None
        target = plain(out)
        function(*given, out=target, **options)
        noted(ufunc.__name__, lambda: function(*given, out=target, **options), given, target)
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return made(function.__name__, function, plain(args), {name: plain(value) for name, value in options.items()})

    def __getitem__(self, key: Any) -> Any:
        return made("getitem", lambda x, k: np.asarray(x[k]), [plain(self), plain(key)], {})

    def __setitem__(self, key: Any, value: Any) -> None:
        settle()
        target, place, source = plain(self), plain(key), plain(value)
        target[place] = source
        written = target[place]
        noted("setitem", lambda: target.__setitem__(place, source), source, written if np.may_share_memory(written, target) else target)

    def fill(self, value: Any) -> None:
        self[...] = value

    def item(self, *args: Any) -> Any:
        return transfers.to_host(self).item(*args)

    def __bool__(self) -> bool:
        return bool(self.item())

    __float__ = __int__ = __index__ = __bool__  # type: ignore[assignment]


def _method(name: str) -> Callable[..., Any]:
    def call(self: Device, *args: Any, **options: Any) -> Any:
        return made(name, getattr(np.ndarray, name), [plain(self), *plain(args)], options)

    return call


for _name in METHODS:
    setattr(Device, _name, _method(_name))


def taken(array: np.ndarray) -> Device:
    """An array of the device with memory of its own; during a recording, it belongs to that."""
    memory = None
    if transfers.is_recording():
        allocated.append(array)
        memory = Memory(array)
    found = array.view(Device)
    assert found.memory is memory
    return found


def made(name: str, function: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
    """The result of a function as a device array; a view of an argument is not recorded."""
    settle()
    result = function(*args, **options)
    if isinstance(result, list | tuple):
        raise AssertionError(f"{name} has several results")
    found = np.asarray(result)
    if any(isinstance(part, np.ndarray) and np.may_share_memory(found, part) for part in args):
        return found.view(Device)
    noted(name, lambda: np.copyto(found, function(*args, **options)), args, found)
    return taken(found)


class Namespace:
    """NumPy as `minigrad.backend.cupy`."""

    NAME, DEVICE, ndarray = "cupy", "cuda", Device

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy_namespace, name)

    def empty(self, shape: Any, dtype: Any = float) -> Device:
        found = np.empty(shape, dtype)
        spoil(found)
        return taken(found)

    def empty_like(self, x: Device, dtype: Any = None) -> Device:
        return self.empty(x.shape, dtype or x.dtype)

    def full(self, shape: Any, value: Any, dtype: Any = None) -> Device:
        return made("full", np.full, [shape, value], {"dtype": dtype})

    def zeros(self, shape: Any, dtype: Any = float) -> Device:
        return self.full(shape, 0, dtype)

    def zeros_like(self, x: Device) -> Device:
        return self.zeros(x.shape, x.dtype)

    def ones(self, shape: Any, dtype: Any = float) -> Device:
        return self.full(shape, 1, dtype)

    def array(self, x: Device, order: str = "K") -> Device:
        return made("array", np.array, [plain(x)], {"order": order})

    def ascontiguousarray(self, x: Device) -> Device:
        return x if x.flags.c_contiguous else self.array(x, order="C")

    def constant(self, x: Device) -> Device:
        return x

    def like(self, host: Any, x: Any) -> Any:
        return host if isinstance(host, Device) else transfers.to_gpu(host)

    def matmul(self, a: Device, b: Device, out: Any = None, accumulate: bool = False) -> Device:
        left, right = plain(a), plain(b)
        found = taken(np.empty(np.matmul(left, right).shape, np.result_type(left, right))) if out is None else out
        target, precise = plain(found), Mode(product_precision, product_precision.get())

        def multiply() -> None:
            with precise, np.errstate(all="ignore"):
                numpy_namespace.matmul(left, right, target, accumulate)

        settle()
        multiply()
        noted("matmul", multiply, (left, right), target)
        return found

    def shortened(self, x: Device, name: str) -> Device:
        return made("shortened", short_arrays.shortened, [plain(x), name], {})

    def widened(self, x: Device) -> Device:
        return made("widened", short_arrays.widened, [plain(x)], {})

    def matmul_stored(self, a: Device, b: Device, out: Any = None, accumulate: bool = False, alike: bool = False) -> Device:
        if a.dtype == np.float32:
            return self.matmul(a, b, out, accumulate)
        if out is None:
            return made("matmul", short_arrays.matmul_stored, [plain(a), plain(b)], {"alike": alike})
        operands = plain(a), plain(b), plain(out), accumulate
        short_arrays.matmul_stored(*operands)
        noted("matmul", lambda: short_arrays.matmul_stored(*operands), operands[:2], operands[2])
        return out

    def product_stored(self, a: Device, b: Device) -> Product:
        return Product(a, b, self.matmul_stored, np.dtype(np.float32))

    def product(self, a: Device, b: Device) -> Product:
        return Product(a, b, self.matmul)

    def put_rows(self, g: Device, ids: Device, shape: Any) -> Device:
        out = self.zeros(shape, g.dtype)
        out[ids] = g
        return out

    def one_hot(self, ids: Device, classes: int, dtype: Any) -> Device:
        return (ids[..., None] == np.arange(classes).view(Device)).astype(dtype)

    def sum(self, x: Device, axis: Any = None, keepdims: bool = False) -> Device:
        return x.sum(axis=axis, keepdims=keepdims)


xp = Namespace()


class Recorder:
    """Replaces `graphs.Recorder`. lengths: for each recording, how often it contains each name."""

    lengths: ClassVar[list[Counter[str]]] = []

    def __init__(self) -> None:
        self.side_stream = SideStream(Stream(), SecondStream(), Event(), Event())

    @contextmanager
    def entered(self) -> Iterator[None]:
        yield

    def free_unused(self) -> None:
        pass

    def capture(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        allocated.clear()
        with transfers.recording():
            function()
            streams.tape = done = []
            try:
                result = function()
            finally:
                streams.tape = None
        shared = list(allocated)
        self.lengths.append(Counter(work.name for work in done if work.name != "freed"))

        def again() -> None:
            for array in shared:
                spoil(array)
            with np.errstate(all="ignore"):
                for work in done:
                    work.again()

        def replay() -> None:
            queue.append(again)

        return result, replay


GPU_MEMORY = 3 << 20
"""Bytes that the emulated GPU reports as held."""


def install(emulated: Callable[[str], Callable[..., None]], patch: Any) -> None:
    """Make the emulated GPU device "cuda". emulated: what `launch.kernel_of` returns. patch: pytest's monkeypatch."""

    def kernel_of(name: str) -> Callable[..., None]:
        kernel = emulated(name)

        def run(grid: Any, block: Any, arguments: Any) -> None:
            settle()
            given = tuple(plain(value) for value in arguments)
            arrays = arrays_in(given)
            before = [array.copy() for array in arrays] if streams.tape is not None else []
            kernel(grid, block, given)
            changed = [array for array, old in zip(arrays, before, strict=False) if array.tobytes() != old.tobytes()]
            noted(name, lambda: kernel(grid, block, given), arrays, changed)

        return run

    register_cuda()
    patch.setattr(launch, "kernel_of", kernel_of)
    patch.setattr(graphs, "Recorder", Recorder)
    patch.setattr(graph_memory, "gpu_memory", lambda: GPU_MEMORY)
    patch.setattr(Recorder, "lengths", [])
    patch.setattr(SecondStream, "disturbed", [])
    patch.setattr(probe, "probe", lambda: SimpleNamespace(usable=True, cupy=None))
    prepared = cache(lambda: xp)
    prepared()
    patch.setattr(backend, "_prepared_cuda", prepared)
    patch.setitem(backend._namespaces, Device, xp)
    patch.setattr(Event, "done", 0)
    queue.clear()
    cuda = SimpleNamespace(get_current_stream=Stream)
    patch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, array=lambda host: np.array(host).view(Device)))
    patch.setitem(sys.modules, "cupyx", SimpleNamespace(empty_pinned=np.empty))
