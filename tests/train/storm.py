"""A kill storm: a training is killed with SIGKILL at random moments and resumed until it ends, again and again.

    PYTHONPATH=.:tests python -m train.storm --kills 200 [--seed 0]

Half of the kills come at a random time after the start, wherever the process is then; half a few milliseconds after a step was logged,
which is while a step, an evaluation or a save is under way. At every end the SHA-256 of the weights must be that of the run without a kill.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from train.runs import child, last_digest, run_folder, save_config


def storm(folder: Path, kills: int, seed: int, say: Callable[[str], None] = print) -> tuple[int, int]:
    """(kills, ends with equal weights). Raises: AssertionError at the first end with other weights, or a run that fails by itself."""
    chance = random.Random(seed)
    config = save_config(folder, run_folder(folder, epochs=4))
    assert child(folder, "train", str(config)).wait() == 0
    expected = last_digest(folder)
    (folder / "run").rename(folder / "whole")
    done = ends = resumes = 0
    while done < kills:
        round_folder = folder / f"round-{ends}"
        round_folder.mkdir()
        text = config.read_text(encoding="utf-8").replace(str(folder / "run"), str(round_folder / "run"))
        (round_folder / "config.toml").write_text(text, encoding="utf-8")
        command = ["train", "config.toml"]
        while True:
            process = child(round_folder, *command)
            if done < kills and not _ended_by_itself(process, round_folder / "run" / "log.jsonl", chance):
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                if (round_folder / "run" / "config.toml").exists():
                    command, resumes = ["resume", "run"], resumes + 1
                continue
            assert process.wait() == 0, "a run failed by itself"
            break
        assert last_digest(round_folder) == expected, f"after {done} kills the weights differ"
        ends += 1
    say(f"{done} kills, {resumes} resumes, {ends} ends: SHA-256 of the weights equal in {ends} of {ends}")
    return done, ends


def _ended_by_itself(process: object, log: Path, chance: random.Random) -> bool:
    """Wait for the moment of the kill; True if the run ended before it."""
    steps = len(log.read_bytes().splitlines()) if log.exists() else 0
    if chance.random() < 0.5:
        deadline, wanted = time.monotonic() + chance.uniform(0.1, 2.5), None
    else:
        deadline, wanted = time.monotonic() + 60, steps + chance.randint(1, 8)
    while time.monotonic() < deadline:
        if process.poll() is not None:  # type: ignore[attr-defined]
            return True
        if wanted is not None and log.exists() and len(log.read_bytes().splitlines()) >= wanted:
            time.sleep(chance.uniform(0, 0.02))
            break
        time.sleep(0.003)
    return process.poll() is not None  # type: ignore[attr-defined]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        storm(Path(made), options.kills, options.seed)
    sys.exit(0)
