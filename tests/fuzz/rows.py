"""PYTHONPATH=.:tests python -m fuzz.rows: every hostile weight file of the tests, its code, the slowest and the largest refusal.

Each is read under the watch of the fuzzing: nothing elsewhere opened, nothing written, imported, started or sent. Rows that are no file
alone (changing files, pipes, directories, configurations, tokenizers) are tests: `python -m pytest -k "test_c0 or test_c1 or test_d0 or
test_d1" --durations=3`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import hostile_tf
import hostile_zip
from fuzz.corpus import hostile_safetensors
from fuzz.mutations import packed
from fuzz.runner import quiet, scratch_folder, try_input
from fuzz.targets import TARGETS


def rows() -> Iterator[tuple[str, str, str, bytes]]:
    """The target, the row's name, its code and its content."""
    for name, (code, content) in hostile_safetensors().items():
        yield "safetensors", name, code, content
    for name, row in hostile_zip.HOSTILE.items():
        yield "torch", name, row.code, row.make(Path("/nonexistent/canary"))
    for name, checkpoint in hostile_tf.HOSTILE.items():
        files = {f"model.ckpt.data-{at:05d}-of-{len(checkpoint.shards):05d}": part for at, part in enumerate(checkpoint.shards)}
        yield "tensorflow", name, checkpoint.code, packed({"model.ckpt.index": checkpoint.index()} | files)


def main() -> int:
    found: dict[str, list[tuple[float, float, str]]] = {name: [] for name, *_ in rows()}
    wrong = 0
    with scratch_folder() as scratch, quiet():
        for name, row, code, content in rows():
            target = TARGETS[name]
            for path in scratch.iterdir():
                path.unlink()
            try_input(target, content, scratch)  # what is imported on first use is imported here
            timed, traced = try_input(target, content, scratch), try_input(target, content, scratch, traced=True)
            if timed.code != code or timed.escape or traced.escape:
                wrong += 1
                print(f"WRONG {name} {row}: {timed.code}, not {code}; {timed.escape or traced.escape}", file=sys.stderr)
            found[name].append((timed.seconds, traced.megabytes or 0.0, row))
    for name, outcomes in found.items():
        slow, large = max(outcomes), max(outcomes, key=lambda outcome: outcome[1])
        times, sizes = f"{slow[0] * 1e3:.0f} ms ({slow[2]})", f"{large[1]:.1f} MB ({large[2]})"
        print(f"{name}: {len(outcomes)} files, slowest {times}, largest {sizes}")
    print(f"{wrong} not refused as they must be")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
