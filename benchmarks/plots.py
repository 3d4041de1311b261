"""Draw every table of a benchmark's JSON file as an SVG.

python benchmarks/plots.py FILE.json OUT_DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness.tables import Table

from minigrad.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw every table of a benchmark's JSON file as an SVG.")
    parser.add_argument("file", type=Path, help="what a benchmark wrote with --json")
    parser.add_argument("directory", type=Path, help="output directory; created if missing")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    for values in json.loads(options.file.read_text(encoding="utf-8"))["tables"]:
        table = Table.from_json(values)
        path = options.directory / f"{table.name}.svg"
        write_text(path, table.svg())
        print(path)


if __name__ == "__main__":
    main()
