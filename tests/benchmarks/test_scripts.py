"""The scripts as they are started: smoke runs of what needs no other library, and the figures that they rest on."""

from __future__ import annotations

import json
import operator
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import finetune_wall
import import_and_size
import numpy as np
import op_overhead
import pytest
from train.runs import run_folder

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=BENCHMARKS.parent).stdout


def test_bert_step_alone(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    arguments = ["--sizes", "tiny", "--lengths", "mixed", "--batch", "2", "--batches", "1", "--rounds", "1", "--against", "alone"]
    printed = run("bert_step.py", *arguments, "--ours", "numpy,off", "--json", path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [m["what"] for m in found["measured"]] == ["infer", "train"]
    assert set(found["measured"][0]["seconds"]) == {"sgemm", "minigrad numpy", "minigrad off"}
    assert printed.count("\n### ") == len(found["tables"]) == 8


@pytest.mark.parametrize("wrong", [["--sizes", "huge"], ["--lengths", "nowhere.txt"], ["--rounds", "0"], ["--ours", "2"]])
def test_bert_step_names_what_is_wrong(wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import bert_step

    monkeypatch.setattr(sys, "argv", ["bert_step.py", *wrong])
    with pytest.raises(SystemExit):
        bert_step.arguments()
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize("operation", [operator.add, operator.mul])
def test_the_chain_by_hand_has_the_gradient_of_the_engine(operation: Any) -> None:
    x = np.linspace(0.999, 1.001, 8, dtype=np.float32)
    by_hand, by_engine = op_overhead.chain_by_hand(operation, x), op_overhead.chain_and_back(operation, x)
    np.testing.assert_allclose(by_hand, by_engine, rtol=1e-4)  # sums of a thousand float32 numbers in another order
    exact = np.full(8, 1001.0) if operation is operator.add else 1001 * x.astype(np.float64) ** 1000
    np.testing.assert_allclose(by_engine, exact, rtol=1e-3)  # a thousand roundings of 6e-8 each, in chain and sum


def test_op_overhead_prints_a_table(tmp_path: Path) -> None:
    printed = run("op_overhead.py", "--rounds", "1", "--json", tmp_path / "found.json")
    assert "| minigrad, forward and backward |" in printed
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["measured"]["minigrad, recorded"]["add"] > 0


def test_import_and_size_of_what_is_there() -> None:
    seconds, mebibytes, modules = import_and_size.probe("import minigrad")
    assert seconds > 0 and 5 < mebibytes < 500 and {"minigrad", "numpy"} <= modules
    sizes = import_and_size.closure(["minigrad-nn"])
    assert sizes["numpy"] > 10 and "tokenizers" in sizes and "pytest" not in sizes  # an extra is no requirement


# ---------------------------------------------------------------- whole fine-tunings
def options(**others: Any) -> Namespace:
    return Namespace(**{"format": None, "text": None, "label": None, "encoding": "utf-8", "task": "token-classification"} | others)


def test_rows_are_prepared_for_both_sides(tmp_path: Path) -> None:
    path, prepared = tmp_path / "words.conll", tmp_path / "rows.jsonl"
    path.write_text("Maria B-PER\nwas O\n\nBerlin I-LOC\n", encoding="utf-8")
    finetune_wall.prepare(path, prepared, options())
    rows = [json.loads(line) for line in prepared.read_text(encoding="utf-8").splitlines()]
    assert rows == [{"tokens": ["Maria", "was"], "tags": ["B-PER", "O"]}, {"tokens": ["Berlin"], "tags": ["B-LOC"]}]
    path = tmp_path / "texts.tsv"
    path.write_text("verdict\tbody\ngood\tworks well\n", encoding="utf-8")
    finetune_wall.prepare(path, prepared, options(task="sequence-classification", text="body", label="verdict"))
    assert json.loads(prepared.read_text(encoding="utf-8")) == {"text": "works well", "label": "good"}
    with pytest.raises(SystemExit, match="tags of words"):
        finetune_wall.prepare(path, prepared, options(text="body", label="verdict"))


def test_the_table_of_fine_tunings() -> None:
    runs = [(name, seed, {"minigrad": 10.0, "torch": 25.0}[name] + seed) for seed in (0, 1) for name in ("minigrad", "torch")]
    rows = [{"contender": c, "seed": s, "seconds": t, "dev": 0.5, "test": 0.25, "memory": 2**30} for c, s, t in runs]
    table = finetune_wall.table_of(rows, "sequence-classification")
    assert table.rows[0] == ["minigrad", "0", "10.0", "0.500", "0.250", "1,024"]
    assert table.rows[-1][:3] == ["**torch / minigrad**", "pairs", "2.43 (2.40–2.47)"]
    assert all(len(row) == len(table.header) for row in table.rows)


def test_finetune_wall_of_minigrad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAD_KERNELS", "numpy")  # compiling would take seconds
    config = run_folder(tmp_path)
    files = [word for split in ("train", "dev", "test") for word in (f"--{split}", getattr(config.data, split) or "")]
    arguments = ["--model", config.model.name, "--epochs", "1", "--batch", "24", "--max-length", "32", "--lr", "1e-3", "--workers", "1"]
    run("finetune_wall.py", "--contenders", "minigrad", *files, *arguments, "--json", tmp_path / "found.json")
    (found,) = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["measured"]
    assert found["contender"] == "minigrad" and found["seconds"] > 0 and found["memory"] > 2**20
    assert 0 <= found["dev"] <= 1 and 0 <= found["test"] <= 1
