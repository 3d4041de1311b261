"""Pack `tests/gpu`, `gpu_profile.py` and `gpu_step.py` for a GPU machine without network: the repository's files, kernels compiled for
its GPU, and wheels of packages that it lacks.

On that machine, with Python, CuPy, pytest and hypothesis installed or among the wheels (and PyTorch and transformers for the comparison):

    tar xzf gpu.tar.gz && MINUTES=9 RESULTS=results bash minigrad-gpu/run.sh
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from minigrad.errors import MinigradError
from minigrad.kernels.cuda import build

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "minigrad-gpu"
MOST = 64 << 20
"""The largest archive, in bytes, that such a machine accepts."""

RUN = """#!/usr/bin/env bash
# Run tests, benchmark and profile on this machine's GPU within MINUTES (9) altogether; arguments go to the benchmark. Results are written
# to the directory RESULTS (results/), each as soon as it is known. The exit status is 0 if all of it could run and no test has failed.
set -uo pipefail
minutes="${MINUTES:-9}"
[[ "$minutes" =~ ^[1-9][0-9]*$ ]] || { echo "error: MINUTES must be a whole number above 0, got '$minutes'" >&2; exit 2; }
left() { echo "$((60 * minutes - SECONDS > $1 ? 60 * minutes - SECONDS - $1 : 1))"; } # seconds left before the last $1
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
results="$(realpath -m "${RESULTS:-$here/results}")"
mkdir -p "$results"
cd "$here"
if compgen -G "wheels/*.whl" >/dev/null; then
  if python3 -m pip install -q --no-index --no-deps --target site wheels/*.whl; then
    export PYTHONPATH="$PWD/site"
  else
    echo "error: the wheels do not fit here: what needs them is left out" # everything else still runs
  fi
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" MINIGRAD_CUBINS="$PWD/cubins" PYTHONUNBUFFERED=1
export CUPY_CACHE_DIR="$PWD/cache/cupy" MINIGRAD_CACHE="$PWD/cache" # there may be no writable home
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # other installed plugins may warn, and warnings are errors
export MINIGRAD_SANITIZER_SECONDS="$((17 * minutes))"
several=""
if python3 -c "import xdist" 2>/dev/null; then several="-p xdist.plugin -n 8"; fi # CuPy compiles a thousand small kernels
timeout --kill-after=5 "$((7 * minutes))" python3 -m minigrad doctor 2>&1 | tee "$results/doctor.txt"

# The benchmark compiles from now on, at lower priority, but times nothing before the tests are over.
export TORCHINDUCTOR_COMPILE_THREADS=4 # for each of a dozen compilers
profiling=$((7 * minutes))
rm -f tested
timeout --kill-after=10 "$(left 10)" nice -n 5 python3 benchmarks/gpu_step.py --json "$results/gpu_step.json" --after tested \
  --minutes "$(python3 -c "print($(left $profiling) / 60)")" "$@" >"$results/gpu_step.md" 2>&1 &
benchmark=$!

tested_in="timeout --signal=INT --kill-after=20 $((20 * minutes))" # SIGINT lets pytest still report failures
runs="memcheck memcheck_attention racecheck synccheck" # the slowest tests run in parallel, and beside all others
jobs=()
export OPENBLAS_NUM_THREADS=2 # a dozen processes compute reference values
for run in $runs; do
  $tested_in python3 -m pytest "tests/gpu/test_sanitizer.py::test_nothing_is_found[$run]" -q -p no:cacheprovider >"$results/$run.txt" 2>&1 &
  jobs+=("$!")
done
$tested_in python3 -m pytest $several tests/gpu --ignore tests/gpu/test_sanitizer.py -v \
  -p no:cacheprovider -o faulthandler_timeout=100 2>&1 | tee "$results/tests.txt"
failed=$?
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
for run in $runs; do
  tee -a "$results/tests.txt" <"$results/$run.txt" && rm "$results/$run.txt"
done
unset OPENBLAS_NUM_THREADS
touch tested

wait "$benchmark" || failed=1
cat "$results/gpu_step.md"
timeout --kill-after=5 "$(left 5)" python3 benchmarks/gpu_profile.py --json "$results/gpu_profile.json" 2>&1 \
  | tee "$results/gpu_profile.md" || failed=1
exit "$failed"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="the .tar.gz to write")
    parser.add_argument("--arch", default="80,90", help="compute capabilities of the GPUs, without dots (80,90)")
    parser.add_argument("--wheels", nargs="*", default=[], metavar="NAME", help="packages to bring along, as pip takes them")
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}", help="the other machine's Python (this one's)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        try:
            build.main(["--arch", options.arch, "--output", str(folder / "cubins")])
        except MinigradError as wrong:
            sys.exit(f"error: {wrong}")
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        (folder / "run.sh").write_text(RUN, encoding="utf-8")
        if options.wheels:
            fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", options.python]
            subprocess.run([*fetch, "-d", str(folder / "wheels"), *options.wheels], check=True)
        with tarfile.open(options.archive, "w:gz") as archive:
            for name in filter(None, listed.split("\0")):
                if (ROOT / name).is_file():  # else deleted but not yet committed
                    archive.add(ROOT / name, f"{FOLDER}/{name}")
            archive.add(folder, FOLDER)
    size = options.archive.stat().st_size
    if size > MOST:
        sys.exit(f"error: {options.archive} has {size / 2**20:.0f} MiB, more than {MOST >> 20}: bring fewer wheels")
    print(f"{options.archive}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
