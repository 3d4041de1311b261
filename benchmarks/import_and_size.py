"""Measure time and memory of importing minigrad, beside NumPy, and the size on disk of the installed packages.

Every import happens in a fresh interpreter; the contenders alternate, and medians are reported. PyTorch + transformers take part if they
are installed.

    python benchmarks/import_and_size.py --json size.json
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from harness.machine import machine
from harness.processes import rotated
from harness.tables import Bars, Report, Table, quartiles, spread

PROBE = """
import sys, time
started = time.perf_counter()
{statement}
seconds = time.perf_counter() - started
with open("/proc/self/status") as status:
    kilobytes = next(line.split()[1] for line in status if line.startswith("VmRSS"))
print(seconds, kilobytes, *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""

IMPORTS = {
    "nothing": "pass",
    "numpy": "import numpy",
    "minigrad": "import minigrad",
    "minigrad with BERT": "from minigrad.models import BertForSequenceClassification; import minigrad.data, tokenizers",
    "torch + transformers with BERT": "import torch; from transformers import BertForSequenceClassification, BertTokenizerFast",
}


def probe(statement: str) -> tuple[float, float, set[str]]:
    """Seconds of a statement in a fresh interpreter, MiB resident afterwards, and top-level modules loaded."""
    command = [sys.executable, "-c", PROBE.format(statement=statement)]
    seconds, kilobytes, *modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), float(kilobytes) / 1024, set(modules)


def closure(distributions: Sequence[str]) -> dict[str, float]:
    """MiB on disk of distributions and all their requirements (without extras), by name."""
    sizes: dict[str, float] = {}
    waiting = list(distributions)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in sizes:
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # only required on other systems
            continue
        sizes[name] = sum(path.stat().st_size for f in found.files or [] if (path := Path(str(found.locate_file(f)))).is_file()) / 2**20
        for requirement in found.requires or []:
            if "extra ==" not in requirement:
                waiting.append(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
    if "minigrad-nn" in sizes:  # if installed from a checkout, its files are not listed
        package = Path(__file__).resolve().parents[1] / "minigrad"
        sizes["minigrad-nn"] = max(sizes["minigrad-nn"], sum(path.stat().st_size for path in package.rglob("*.py")) / 2**20)
    return sizes


def import_table(rounds: Mapping[str, Sequence[tuple[float, float, set[str]]]]) -> Table:
    rows, values = [], {}
    for name, found in rounds.items():
        milliseconds = [seconds * 1e3 for seconds, _, _ in found]
        values[name] = quartiles(milliseconds)[1]
        rows.append([name, spread(milliseconds, 1), f"{quartiles([mebibytes for _, mebibytes, _ in found])[1]:.1f}"])
    return Table("Import in a fresh interpreter", ["what", "ms", "MiB resident afterwards"], rows, Bars("ms", values))


def size_table(name: str, sizes: Mapping[str, float]) -> Table:
    ordered = dict(sorted(sizes.items(), key=lambda item: -item[1]))
    rows = [["**all**", f"**{sum(sizes.values()):.1f}**"], *([part, f"{size:.1f}"] for part, size in ordered.items())]
    return Table(f"Installed for {name}", ["distribution", "MiB"], rows, Bars("MiB", {"all": sum(sizes.values()), **ordered}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write measurements and tables here")
    options = parser.parse_args()
    here = machine()
    others = [] if find_spec("torch") is None or find_spec("transformers") is None else ["torch", "transformers"]
    names = [name for name in IMPORTS if others or "torch" not in name]
    rounds: dict[str, list[tuple[float, float, set[str]]]] = {name: [] for name in names}
    for name in names:
        probe(IMPORTS[name])  # not counted: it compiles, and fills the page cache
    for order in rotated(names, options.rounds):
        for name in order:
            rounds[name].append(probe(IMPORTS[name]))
    loaded = rounds["minigrad"][0][2] - rounds["numpy"][0][2] - set(sys.stdlib_module_names) - {"minigrad"}
    tables = [import_table(rounds), size_table("minigrad-nn", closure(["minigrad-nn"]))]
    if find_spec("numba") is not None:
        tables.append(size_table("minigrad-nn[fast]", closure(["minigrad-nn", "numba"])))
    if others:
        tables.append(size_table("torch + transformers", closure(others)))
    notes = [f"`import minigrad` loads outside NumPy and the standard library: {', '.join(sorted(loaded)) or 'nothing'}."]
    measured = {name: [[seconds, mebibytes] for seconds, mebibytes, _ in found] for name, found in rounds.items()}
    report = Report("import_and_size.py", sys.argv[1:], here, measured, tables, notes)
    if options.json is not None:
        report.save(options.json)
    print(report.markdown())


if __name__ == "__main__":
    main()
