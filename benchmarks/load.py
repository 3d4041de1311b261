"""Measure time and memory of loading a checkpoint: by minigrad, by PyTorch + transformers, and by only reading the file.

    python benchmarks/load.py [DIRECTORY] [--rounds 5]

DIRECTORY holds config.json and model.safetensors of a BertModel (default: the named checkpoint minilm-l6). The contenders take turns, each
in its own process, with the file in the page cache. Times, medians and fastest, exclude imports. Memory is the increase of the peak
resident size over the size before loading; for libraries that map the file it includes the pages that loading touched.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

PROBE = """
import json, resource, sys, time
def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))
{imports}
directory = sys.argv[1]
before = resident("VmRSS")
started = time.perf_counter()
{load}
seconds = time.perf_counter() - started
peak, held = resident("VmHWM"), resident("VmRSS")
print(json.dumps([seconds, peak - before, held - before]))
"""

CONTENDERS = {
    "reading the file": (
        "import numpy, os",
        """
size = os.path.getsize(directory + "/model.safetensors")
buffer, done = memoryview(numpy.empty(size, numpy.uint8)), 0
with open(directory + "/model.safetensors", "rb", buffering=0) as file:
    while count := file.readinto(buffer[done : done + (1 << 20)]):  # all at once takes longer, on virtual machines several times
        done += count
assert done == size
""",
    ),
    "minigrad": (
        "from minigrad.models import BertModel",
        "model = BertModel.from_pretrained(directory)",
    ),
    "transformers": (
        "import torch; from transformers import BertModel; from transformers.utils import logging; logging.disable_progress_bar()",
        """
model = BertModel.from_pretrained(directory, dtype=torch.float32)
total = sum(float(p.detach().sum()) for p in model.parameters())  # a mapped file is read when it is used
""",
    ),
}


def probe(name: str, directory: Path) -> list[float] | None:
    """Seconds of one load in a fresh process, and its megabytes at the peak and at the end; None if the library is absent."""
    imports, load = CONTENDERS[name]
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(imports=imports, load=load), str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return [float(number) for number in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of loading a checkpoint.")
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    directory = options.directory
    if directory is None:
        from minigrad.io import find_checkpoint

        directory = find_checkpoint("minilm-l6")
    megabytes = os.path.getsize(directory / "model.safetensors") / 2**20
    print(f"{directory}: {megabytes:.1f} MiB of weights, medians of {options.rounds} rounds\n")
    names = list(CONTENDERS)
    for name in names:
        probe(name, directory)  # not counted: fills the page cache
    orders = [names[i % len(names) :] + names[: i % len(names)] for i in range(options.rounds)]  # the first one rotates
    rounds = [{name: found for name in order if (found := probe(name, directory))} for order in orders]
    print("| | time, ms | fastest, ms | peak memory, MiB | of the file | held at the end, MiB |")
    print("|---|---|---|---|---|---|")
    for name in [name for name in names if name in rounds[0]]:
        seconds, peak, held = (statistics.median(r[name][i] for r in rounds) for i in range(3))
        fastest = min(r[name][0] for r in rounds)
        print(f"| {name} | {seconds * 1e3:.0f} | {fastest * 1e3:.0f} | {peak:.1f} | {peak / megabytes:.2f} | {held:.1f} |")


if __name__ == "__main__":
    main()
