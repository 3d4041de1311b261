"""How much memory `check_files` takes for a .jsonl file of a given size, in a process of its own.

    PYTHONPATH=.:tests python -m data_memory --megabytes 100 1000 [--near-records 100000] [--characters 200] [--folder /tmp]

Prints a line for each size: records, seconds, peak of resident memory, and that of a process that only imports. The file is removed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CHILD = """
import resource, sys, time
from minigrad.data.inspection import check_files
started, records = time.perf_counter(), 0
if sys.argv[1]:
    records = check_files([sys.argv[1]], near_records=int(sys.argv[2])).splits["data"].records
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(records, time.perf_counter() - started, peak)
"""


def write_data(path: Path, megabytes: float, characters: int) -> None:
    """Records of words that follow a Zipf-like law, with five labels; all texts differ."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(20_000)])
    per_text = max(characters // 6, 1)
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            chosen = words[(20_000 ** rng.random((1000, per_text))).astype(int)]
            for number, row in enumerate(chosen):
                file.write(json.dumps({"text": " ".join(row), "label": "abcde"[number % 5]}) + "\n")


def measured(path: Path | None, near_records: int) -> tuple[int, float, int]:
    """Records, seconds and peak bytes of a child process that checks `path`, or only imports."""
    arguments = [sys.executable, "-c", CHILD, "" if path is None else str(path), str(near_records)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    records, seconds, peak = done.stdout.split()
    return int(records), float(seconds), int(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100.0])
    parser.add_argument("--near-records", type=int, default=100_000)
    parser.add_argument("--characters", type=int, default=200, help="of a text, about")
    parser.add_argument("--folder", help="where the file is made")
    options = parser.parse_args()
    print(f"imports alone: peak {measured(None, 0)[2] / 1e6:.0f} MB")
    for size in options.megabytes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder) / "data.jsonl"
            write_data(path, size, options.characters)
            records, seconds, peak = measured(path, options.near_records)
        print(f"{size:g} MB: {records:,} records, {seconds:.1f} s, peak {peak / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
