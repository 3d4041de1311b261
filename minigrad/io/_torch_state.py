"""What the pickle of a PyTorch state dict may say: the few names it may use, and the tensors it describes.

A storage is a record of the zip file; a tensor is a view of one, given by an untrusted offset, size and strides. They are checked here
with Python's integers, which do not overflow, against the bytes that are really in the file, so that reading a tensor later can neither
leave its storage nor take memory out of proportion to the file.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from minigrad.errors import WeightFileError
from minigrad.files import quoted
from minigrad.io._pickle_stream import Dict, List, Tuple, interpret
from minigrad.io._safetensors_header import MAX_ARRAY_BYTES, STORED_DTYPES, name_problem
from minigrad.io._strict_zip import Record

MAX_DIMS = 8
MAX_SHARING = 64
"""The tensors of a storage may together have at most this many times its size: enough for a weight that every layer shares."""
MAX_METADATA_ENTRIES = 100_000

SAVE_AGAIN = "where the file comes from, save the weights as safetensors"


class Global(Enum):
    """The only names that a stream may use; the members are tokens, not the objects of these names."""

    ORDERED_DICT = b"collections", b"OrderedDict"
    REBUILD_TENSOR = b"torch._utils", b"_rebuild_tensor_v2"
    REBUILD_PARAMETER = b"torch._utils", b"_rebuild_parameter"
    DOUBLE_STORAGE = b"torch", b"DoubleStorage"
    FLOAT_STORAGE = b"torch", b"FloatStorage"
    HALF_STORAGE = b"torch", b"HalfStorage"
    BFLOAT16_STORAGE = b"torch", b"BFloat16Storage"
    LONG_STORAGE = b"torch", b"LongStorage"
    INT_STORAGE = b"torch", b"IntStorage"
    SHORT_STORAGE = b"torch", b"ShortStorage"
    CHAR_STORAGE = b"torch", b"CharStorage"
    BYTE_STORAGE = b"torch", b"ByteStorage"
    BOOL_STORAGE = b"torch", b"BoolStorage"
    COMPLEX_FLOAT_STORAGE = b"torch", b"ComplexFloatStorage"


STORAGE_DTYPES: Mapping[Global, str] = {
    Global.DOUBLE_STORAGE: "F64",
    Global.FLOAT_STORAGE: "F32",
    Global.HALF_STORAGE: "F16",
    Global.BFLOAT16_STORAGE: "BF16",
    Global.LONG_STORAGE: "I64",
    Global.INT_STORAGE: "I32",
    Global.SHORT_STORAGE: "I16",
    Global.CHAR_STORAGE: "I8",
    Global.BYTE_STORAGE: "U8",
    Global.BOOL_STORAGE: "BOOL",
    Global.COMPLEX_FLOAT_STORAGE: "C64",
}
"""The dtype of each kind of storage, by its name in STORED_DTYPES."""

_GLOBALS: Mapping[object, Global] = {member.value: member for member in Global}

_UNSUPPORTED_TENSORS = frozenset(
    f"_rebuild_{kind}".encode()
    for kind in (
        "tensor", "tensor_v3", "from_type", "from_type_v2", "sparse_tensor", "sparse_csr_tensor", "nested_tensor", "qtensor",
        "meta_tensor_no_storage", "device_tensor_from_numpy", "device_tensor_from_cpu_tensor", "xla_tensor", "wrapper_subclass",
        "parameter_with_state",
    )
)  # fmt: skip
"""Names refused as an unsupported kind of tensor; all others are refused as an attack."""

_UNSUPPORTED_STORAGES = frozenset(
    f"{kind}Storage".encode() for kind in ("ComplexDouble", "QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4", "Typed", "Untyped")
)

_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)
_LOCATION = re.compile(r"[a-z]{1,16}(:[0-9]{1,4})?", re.ASCII)  # the device of the saved tensor: "cpu", "cuda:0", "mps"


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A record that holds exactly `numel` elements of a dtype."""

    dtype: str
    record: Record
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class TorchTensor:
    """A view of a storage. `offset` and `strides` count elements; `strides` is None if the tensor is C-contiguous."""

    dtype: str
    shape: tuple[int, ...]
    record: Record
    offset: int
    strides: tuple[int, ...] | None

    @property
    def span(self) -> int:
        """The number of elements from the tensor's first to its last."""
        if self.strides is None:
            return math.prod(self.shape)
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))


def read_state_dict(path: Path, stream: bytes, records: Mapping[str, Record]) -> dict[str, TorchTensor]:
    """The tensors of a state dict's pickle by name, in the order of the stream. `records`: storages by key.

    Raises: WeightFileError.
    """
    return _StateDictReader(path, records).read(stream)


class _StateDictReader:
    """The `Reader` of a state dict: it answers with `Global` tokens, storages, tensors and dictionaries."""

    def __init__(self, path: Path, records: Mapping[str, Record]) -> None:
        self._path, self._records = path, records

    def read(self, stream: bytes) -> dict[str, TorchTensor]:
        root = interpret(self._path, stream, self)
        if type(root) is not Dict:
            self._fail("not-a-state-dict", f"it holds no dictionary of tensors but {_kind(root)}; save a model's state_dict() instead")
        tensors: dict[str, TorchTensor] = {}
        claimed: Counter[str] = Counter()
        for name, tensor in root.pairs:
            if type(name) is not str or type(tensor) is not TorchTensor:
                message = f"its entry {quoted(name)} is {_kind(tensor)}, not a tensor under a name"
                self._fail("not-a-state-dict", f"{message}; of a training checkpoint, save the model's state_dict() alone")
            if problem := name_problem(name):
                self._fail("bad-name", f"the name {quoted(name)} {problem}")
            if name in tensors:
                self._fail("duplicate-key", f"the tensor {quoted(name)} stands twice in its state dict")
            tensors[name] = tensor
            claimed[tensor.record.name] += math.prod(tensor.shape) * STORED_DTYPES[tensor.dtype].itemsize
            if claimed[tensor.record.name] > MAX_SHARING * tensor.record.size:
                self._fail("view-limit", f"its tensors read the storage {quoted(tensor.record.name)} more than {MAX_SHARING} times over")
        return tensors

    def name(self, module: bytes, name: bytes) -> Global:
        found = _GLOBALS.get((module, name))
        if found is not None:
            return found
        shown = quoted(b".".join((module[:80], name[:80])).decode("utf-8", "replace"))
        if module in (b"torch._utils", b"torch._tensor") and name in _UNSUPPORTED_TENSORS:
            self._fail("unsupported-tensor-kind", f"it holds a tensor that is not a plain dense one ({shown}); {SAVE_AGAIN}")
        if module in (b"torch", b"torch.storage") and name in _UNSUPPORTED_STORAGES:
            self._fail("unsupported-dtype", f"it holds numbers of a kind that minigrad does not read ({shown}); {SAVE_AGAIN}")
        self._fail("forbidden-global", f"its pickle names {shown}, which no state dict needs; nothing was imported or run")

    def call(self, function: Any, arguments: Any) -> Dict | TorchTensor:
        if type(arguments) is Tuple:
            if function is Global.ORDERED_DICT and not arguments.items:
                return Dict(ordered=True)
            if function is Global.REBUILD_TENSOR:
                return self._tensor(arguments.items)
            if function is Global.REBUILD_PARAMETER:
                return self._parameter(arguments.items)
        self._fail("bad-reduce", f"its pickle calls {_kind(function)} with arguments that no state dict needs")

    def persistent(self, identity: Any) -> Storage:
        items = identity.items if type(identity) is Tuple else ()
        if len(items) != 5 or items[0] != "storage" or items[1] not in STORAGE_DTYPES:
            self._fail("bad-persistent-id", "its pickle refers to something that is no storage")
        _, kind, key, location, numel = items
        if type(key) is not str or not _DIGITS.fullmatch(key) or type(location) is not str or not _LOCATION.fullmatch(location):
            self._fail("bad-persistent-id", "its pickle refers to a storage by a key that is no number, or on no known kind of device")
        if type(numel) is not int or not 0 <= numel < 2**63:
            self._fail("bad-numel", f"the number of elements of the storage {quoted(key)} is no integer from 0 to 2**63 - 1")
        record = self._records.get(key)
        if record is None:
            self._fail("missing-storage", f"the storage {quoted(key)} is not in the file; fetch the file again")
        dtype = STORAGE_DTYPES[kind]
        if numel * STORED_DTYPES[dtype].itemsize != record.size:
            self._fail("storage-size", f"the storage {quoted(key)} has {record.size} bytes, its pickle speaks of {numel} {dtype}")
        return Storage(dtype, record, numel)

    def set_state(self, target: Any, state: Any) -> None:
        """Accept and ignore an OrderedDict's attribute `_metadata`, which PyTorch adds to state dicts; refuse any other state."""
        pairs = state.pairs if type(state) is Dict else []
        if (
            type(target) is not Dict
            or not target.ordered
            or [key for key, _ in pairs[:2]] != ["_metadata"]
            or type(pairs[0][1]) is not Dict
        ):
            self._fail("forbidden-opcode", "its pickle sets the state of an object (opcode BUILD) other than a state dict's _metadata")
        if len(pairs[0][1].pairs) > MAX_METADATA_ENTRIES:
            self._fail("not-a-state-dict", f"its _metadata has more than {MAX_METADATA_ENTRIES} entries")

    def _parameter(self, arguments: tuple[Any, ...]) -> TorchTensor:
        """_rebuild_parameter(data, requires_grad, backward_hooks)"""
        if len(arguments) != 3 or type(arguments[0]) is not TorchTensor or type(arguments[1]) is not bool or not _is_empty(arguments[2]):
            self._fail("bad-tensor-args", "its pickle makes a parameter of something other than a tensor")
        tensor: TorchTensor = arguments[0]
        return tensor

    def _tensor(self, arguments: tuple[Any, ...]) -> TorchTensor:
        """_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks)"""
        if len(arguments) == 7:
            self._fail("unsupported-tensor-kind", f"it holds a tensor with further properties (conjugated, negated, ...); {SAVE_AGAIN}")
        if len(arguments) != 6 or type(arguments[0]) is not Storage or type(arguments[4]) is not bool or not _is_empty(arguments[5]):
            self._fail("bad-tensor-args", "its pickle makes a tensor of something other than a storage and its layout")
        storage: Storage = arguments[0]
        where = f"a tensor in the storage {quoted(storage.record.name)}"
        offset, size, strides = arguments[1], self._integers(where, arguments[2]), self._integers(where, arguments[3])
        if type(offset) is not int or len(size) != len(strides) or min(size, default=0) < 0:
            self._fail("bad-tensor-args", f"{where}: offset, size and strides are not integers that fit each other")
        if len(size) > MAX_DIMS:
            self._fail("too-many-dims", f"{where} has {len(size)} dimensions; at most {MAX_DIMS} are read")
        if 16 * math.prod(dim for dim in size if dim) > MAX_ARRAY_BYTES:  # 16 bytes: the widest dtype it may be read as
            code = "size-overflow" if 0 in size else "size-exceeds-storage"
            self._fail(code, f"{where}: an array of shape {quoted(size)} cannot exist")
        if math.prod(size) > storage.numel:
            self._fail("size-exceeds-storage", f"{where} has shape {quoted(size)}, its storage only {storage.numel} elements")
        empty = 0 in size
        last = offset + sum((dim - 1) * stride for dim, stride in zip(size, strides, strict=True))
        if min((offset, *strides)) < 0 or (last >= storage.numel and not empty):
            self._fail("stride-out-of-bounds", f"{where} reaches out of it: it has {storage.numel} elements")
        first = 0 if empty else offset  # PyTorch lets an empty slice begin anywhere
        return TorchTensor(storage.dtype, size, storage.record, first, _strides(size, strides))

    def _integers(self, where: str, value: Any) -> tuple[int, ...]:
        if type(value) is not Tuple or not all(type(item) is int for item in value.items):
            self._fail("bad-tensor-args", f"{where}: its size or strides are not a tuple of integers")
        return value.items

    def _fail(self, code: str, message: str) -> NoReturn:
        raise WeightFileError(self._path, message, code=code)


def _strides(size: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """`strides`, with 0 for axes where they do not matter; None if they are those of a C-contiguous array."""
    kept = tuple(stride if dim > 1 else 0 for dim, stride in zip(size, strides, strict=True))
    dense = tuple(math.prod(size[axis + 1 :]) if dim > 1 else 0 for axis, dim in enumerate(size))
    return None if 0 in size or kept == dense else kept


def _is_empty(value: Any) -> bool:
    return type(value) is Dict and not value.pairs


def _kind(value: Any) -> str:
    """The kind of a symbol in words that quote nothing from the file."""
    names = {Dict: "a dictionary", List: "a list", Tuple: "a tuple", TorchTensor: "a tensor", Storage: "a storage", str: "a text"}
    return names.get(type(value), "a name" if type(value) is Global else "a plain value")
