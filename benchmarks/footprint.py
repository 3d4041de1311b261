"""What minigrad weighs: import time beside NumPy's, memory after import, modules loaded, and the size of the installed closure."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import statistics
import subprocess
import sys

PROBE = """
import resource, sys, time
started = time.perf_counter()
import {module}
seconds = time.perf_counter() - started
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def probe(module: str) -> tuple[float, float, set[str]]:
    """Seconds to import `module` in a fresh interpreter, megabytes afterwards, top-level modules loaded."""
    seconds, megabytes, *modules = subprocess.run(
        [sys.executable, "-c", PROBE.format(module=module)], capture_output=True, text=True, check=True
    ).stdout.split()
    return float(seconds), float(megabytes), set(modules)


def closure(distribution: str) -> dict[str, float]:
    """Megabytes on disk of a distribution and everything it requires (extras left out), by name."""
    sizes: dict[str, float] = {}
    waiting = [distribution]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in sizes:
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        sizes[name] = sum(path.stat().st_size for f in found.files or [] if (path := found.locate_file(f)).is_file()) / 1e6
        for requirement in found.requires or []:
            if "extra ==" not in requirement:
                waiting.append(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
    return sizes


def main() -> None:
    rounds = [(probe("numpy"), probe("minigrad")) for _ in range(9)]
    for i, name in enumerate(("numpy", "minigrad")):
        seconds = statistics.median(r[i][0] for r in rounds)
        megabytes = statistics.median(r[i][1] for r in rounds)
        print(f"import {name:9s} {seconds * 1e3:6.1f} ms   {megabytes:6.1f} MB resident")
    extra = rounds[0][1][2] - rounds[0][0][2] - set(sys.stdlib_module_names) - {"minigrad"}
    print("loaded by minigrad outside NumPy and the standard library:", ", ".join(sorted(extra)) or "nothing")
    sizes = closure("minigrad-nn")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"  {name:24s} {size:6.1f} MB")
    print(f"installed closure of minigrad-nn: {sum(sizes.values()):.1f} MB in {len(sizes)} distributions")


if __name__ == "__main__":
    main()
