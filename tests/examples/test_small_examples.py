"""The small examples run from the checkout as their first lines say, and say whether they reached their goal by the exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=EXAMPLES.parent)


def test_linear_regression_meets_the_normal_equation() -> None:
    done = run("linear_regression.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "within 1e-06" in done.stdout
    assert run("linear_regression.py", "--steps", "3").returncode == 1  # not there yet


def test_char_lstm_beats_the_frequencies() -> None:
    done = run("char_lstm.py", "--steps", "40", "--hidden", "64", "--lr", "0.01")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "below the frequencies'" in done.stdout


def test_tiny_gpt_reads_a_text_of_ones_own_and_says_when_it_is_not_there_yet(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    small = ("--text", str(text), "--dim", "16", "--heads", "2", "--layers", "1", "--context", "16", "--dropout", "0")
    assert run("tiny_gpt.py", *small, "--steps", "1").returncode == 1
    done = run("tiny_gpt.py", *small, "--steps", "150", "--lr", "0.01")
    assert done.returncode == 0, done.stdout + done.stderr


def test_digits_cnn_learns() -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn, the `examples` extra")
    done = run("digits_cnn.py", "--epochs", "1", "--goal", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")))
def test_help_needs_no_extra(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage:"), done.stdout + done.stderr
