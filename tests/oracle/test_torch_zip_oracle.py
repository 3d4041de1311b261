"""PyTorch as the judge of torch.save files: what it writes we read alike, and what we refuse though it loads is on purpose."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_zip import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import WeightFileError
from minigrad.io.torch_zip import TorchZipFile

torch = pytest.importorskip("torch", reason="the oracle is PyTorch (extra `oracle`)")
pytestmark = pytest.mark.oracle

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]


def values(dtype: str, *shape: int) -> Any:
    source = torch.Generator().manual_seed(7)
    if dtype == "bool":
        return torch.randint(0, 2, shape, generator=source).bool()
    kind = getattr(torch, dtype)
    if kind.is_floating_point or kind.is_complex:
        return torch.randn(shape, generator=source).to(kind)
    return torch.randint(0, 100, shape, generator=source).to(kind)


def assert_same(path: Path) -> int:
    """Every tensor of the file is what torch.load says; gives their number."""
    theirs = torch.load(path, weights_only=True)
    with TorchZipFile(path) as file:
        assert file.names() == tuple(theirs)
        for name, tensor in theirs.items():
            tensor = tensor.detach()
            wide = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
            np.testing.assert_array_equal(file.read(name), wide.numpy(), strict=True)
        return len(theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_layouts(dtype: str, tmp_path: Path) -> None:
    base = values(dtype, 6, 8, 10)
    state = {
        "whole": base.clone(),
        "transposed": base.permute(2, 0, 1),
        "slice": base[2, 1:5, ::3],
        "column": base[:, 3, 4],
        "tied": base,
        "number": values(dtype),
        "empty": values(dtype, 0, 3),
        "empty slice": base[6:],
        "parameter": torch.nn.Parameter(values(dtype, 4), requires_grad=False),
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert assert_same(tmp_path / "pytorch_model.bin") == len(state)


def test_a_model_with_buffers_tied_weights_and_metadata(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(11, 4), torch.nn.BatchNorm1d(4), torch.nn.LSTM(4, 3), torch.nn.Linear(4, 11))
    model[3].weight = model[0].weight
    torch.save(model.state_dict(), tmp_path / "model.with dots.bin")
    assert assert_same(tmp_path / "model.with dots.bin") == 12
    torch.save(OrderedDict(model.named_parameters()), tmp_path / "parameters.bin")
    assert assert_same(tmp_path / "parameters.bin") == 8
    torch.save(dict(reversed(model.state_dict().items())), tmp_path / "dict.bin")
    assert_same(tmp_path / "dict.bin")


def test_many_tensors(tmp_path: Path) -> None:
    """More than one batch of SETITEMS, and the long opcodes of the memo."""
    torch.save({f"layer.{number}.weight": torch.full((3,), float(number)) for number in range(2500)}, tmp_path / "f")
    assert assert_same(tmp_path / "f") == 2500


def test_more_than_four_gigabytes(tmp_path: Path) -> None:
    """Sizes and offsets of 64 bits, in a file of holes: PyTorch leaves the data out, and so its checksums cannot hold."""
    state = {"big": torch.empty(1_200_000_000), "after": torch.empty(10), "empty": torch.empty(0)}
    path = tmp_path / "f"
    with torch.serialization.skip_data():
        torch.save(state, path)
    assert os.path.getsize(path) > 1 << 32
    with TorchZipFile(path) as file:
        assert {name: file.shape(name) for name in file.names()} == {"big": (1_200_000_000,), "after": (10,), "empty": (0,)}
        assert file.read("empty").shape == (0,)
        with pytest.raises(WeightFileError) as caught:  # 40 bytes of zeros behind 4.8 GB
            file.read("after")
        assert caught.value.code == "crc-mismatch"
    path.unlink()


@given(data=st.data())
def test_any_view(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    tensor = values(data.draw(st.sampled_from(DTYPES)), *shape)
    for axis in range(len(shape)):
        start, step = data.draw(st.integers(0, shape[axis])), data.draw(st.integers(1, 3))
        tensor = tensor[(slice(None),) * axis + (slice(start, None, step),)]
    tensor = tensor.permute(data.draw(st.permutations(range(len(shape)))))
    path = tmp_path_factory.mktemp("views") / "f"
    torch.save({"view": tensor, "again": tensor}, path)
    assert assert_same(path) == 2


REFUSED: dict[str, tuple[str, Any]] = {
    "expanded": ("size-exceeds-storage", lambda: {"w": torch.ones(1).expand(5)}),
    "conjugated": ("unsupported-tensor-kind", lambda: {"w": torch.ones(2, dtype=torch.complex64).conj()}),
    "sparse": ("unsupported-tensor-kind", lambda: {"w": torch.eye(3).to_sparse()}),
    "meta": ("unsupported-tensor-kind", lambda: {"w": torch.ones(2, device="meta")}),
    "uint16": ("unsupported-tensor-kind", lambda: {"w": torch.ones(2, dtype=torch.uint16)}),
    "complex128": ("unsupported-dtype", lambda: {"w": torch.ones(2, dtype=torch.complex128)}),
    "a list": ("not-a-state-dict", lambda: [torch.ones(2)]),
    "a tensor": ("not-a-state-dict", lambda: torch.ones(2)),
    "a training checkpoint": ("not-a-state-dict", lambda: {"epoch": 3, "state_dict": {"w": torch.ones(2)}}),
    "an optimizer": ("not-a-state-dict", lambda: torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()),
    "a whole model": ("forbidden-global", lambda: torch.nn.Linear(2, 2)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_torch_saves_and_no_state_dict_holds(case: str, tmp_path: Path) -> None:
    code, make = REFUSED[case]
    torch.save(make(), tmp_path / "f")
    if case != "a whole model":
        torch.load(tmp_path / "f", weights_only=True)
    with pytest.raises(WeightFileError) as caught:
        TorchZipFile(tmp_path / "f")
    assert caught.value.code == code


def test_other_containers_of_torch(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, which is PyTorch's to say
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script")
    torch.save({"w": torch.ones(2)}, tmp_path / "protocol 4", pickle_protocol=4)
    for name, code in {"old": "unsupported-container", "script": "unsupported-container", "protocol 4": "forbidden-opcode"}.items():
        with pytest.raises(WeightFileError) as caught:
            TorchZipFile(tmp_path / name)
        assert caught.value.code == code


@pytest.mark.parametrize("key", [key for key in HOSTILE if key.endswith("[A]")])
def test_rows_that_torch_accepts(key: str, tmp_path: Path) -> None:
    """If PyTorch begins to refuse one of these, the mark [A] must go; that we refuse it is tested with the corpus."""
    row = HOSTILE[key]
    (tmp_path / "f").write_bytes(row.make(tmp_path / "canary"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse checks, deprecated storage types
        torch.load(tmp_path / "f", weights_only=True)
