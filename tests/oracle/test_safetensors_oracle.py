"""The reference implementation of safetensors reads what we write, byte for byte what it would write, and the reverse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minigrad.io import SafetensorsFile, load_file, save_file

reference = pytest.importorskip("safetensors", reason="the reference implementation of safetensors is not installed")
pytestmark = pytest.mark.oracle

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def examples() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = {f"{prefix}.{dtype}": (generator.random((3, 4)) * 9).astype(dtype) for dtype in DTYPES for prefix in ("b", "a", "Ä", "中")}
    return {"scalar": np.array(2.5), "empty": np.zeros((0, 3), np.float32), 'quote"\\\n\x01\x7f/': np.ones(3, np.int8), **arrays}


def test_reference_reads_ours(tmp_path: Path) -> None:
    arrays = examples()
    save_file(arrays, tmp_path / "f", {"format": "np"})
    with reference.safe_open(tmp_path / "f", framework="np") as file:
        assert file.metadata() == {"format": "np"}
        assert set(file.keys()) == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array, strict=True)


def test_we_read_the_reference(tmp_path: Path) -> None:
    from safetensors.numpy import save_file as reference_save

    arrays = examples()
    reference_save(arrays, tmp_path / "f", metadata={"format": "np", "other": "x"})
    with SafetensorsFile(tmp_path / "f") as file:
        assert file.metadata == {"format": "np", "other": "x"}
        assert set(file.names()) == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.read(name, array.dtype), array, strict=True)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_bytes_are_the_same(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    from safetensors.numpy import save_file as reference_save

    save_file(examples(), tmp_path / "ours", metadata)
    reference_save(examples(), tmp_path / "theirs", metadata=metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_bf16_means_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="NumPy has no bfloat16: PyTorch is the judge of its values")
    from safetensors.torch import save_file as reference_save

    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    reference_save({"x": values}, tmp_path / "f")
    np.testing.assert_array_equal(load_file(tmp_path / "f")["x"], values.float().numpy(), strict=True)
