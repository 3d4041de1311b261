"""python -m fuzz TARGET [--minutes N] [--seed S] [--engine own|atheris] [--escapes DIR]; python -m fuzz TARGET --reproduce FILE

Run with PYTHONPATH=.:tests from the repository's folder. TARGET is one of fuzz.targets.TARGETS, or `all`, each for so long.
The exit status is 1 where an input escaped; it is saved, and `--reproduce` reads it again and shows the traceback.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

if "atheris" in sys.argv:  # before anything imports minigrad or its readers: what they have of coverage is put in by the import
    import atheris

    with atheris.instrument_imports(include=["minigrad"]):
        import fuzz.targets  # noqa: F401

from fuzz.mutations import MAX_BYTES
from fuzz.runner import Campaign, quiet, scratch_folder
from fuzz.targets import TARGETS

ADDRESS_SPACE = 8 << 30


def supervised(name: str, escapes: Path, campaign: Callable[[Path], bool]) -> bool:
    """A campaign in a process of its own, so that a crash costs no more than that; the files that caused it are saved."""
    with scratch_folder() as scratch:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.RLIM_INFINITY))  # MemoryError, not a dead machine
                status = 0 if campaign(scratch) else 1
            except BaseException:  # the process ends here: nobody else would show it
                traceback.print_exc()
            finally:
                os._exit(status)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        _, result = os.waitpid(child, 0)
        if os.WIFSIGNALED(result):
            kept = escapes / f"{name}-{signal.Signals(os.WTERMSIG(result)).name}"
            shutil.copytree(scratch, kept, dirs_exist_ok=True)
            print(f"ESCAPE {name}: the process was ended by a signal; its files are in {kept}", file=sys.stderr)
        return result == 0


def with_own_engine(name: str, minutes: float, seed: int, escapes: Path, scratch: Path) -> bool:
    report = Campaign(name, seed, scratch, escapes).run(seconds=60 * minutes)
    print(report.line(), flush=True)
    print("  " + ", ".join(f"{code} {count}" for code, count in report.codes.most_common()), flush=True)
    return not report.escapes


def with_atheris(name: str, minutes: float, seed: int, escapes: Path, scratch: Path) -> bool:
    """The same target and mutations, led by the coverage that atheris measures."""
    import atheris

    campaign = Campaign(name, seed, scratch, escapes)

    def test_one_input(data: bytes) -> None:
        if (escape := campaign.judge(data).escape) is not None:
            raise RuntimeError(escape)

    def mutate(data: bytes, size: int, number: int) -> bytes:
        return campaign.mutated(data, Random(number))[:size]

    seeds = scratch / "corpus"
    seeds.mkdir()
    for number, content in enumerate(campaign.target.seeds()):
        (seeds / f"{number:04d}").write_bytes(content)
    escapes.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={int(60 * minutes)}", f"-seed={seed}", f"-max_len={MAX_BYTES}", f"-artifact_prefix={escapes}/{name}-"]
    with quiet():
        atheris.Setup([sys.argv[0], *options, str(seeds)], test_one_input, custom_mutator=mutate)
        atheris.Fuzz()  # ends the process
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["own", "atheris"], default="own")
    parser.add_argument("--escapes", type=Path, default=Path("escapes"), help="where inputs that escape are saved (default ./escapes)")
    parser.add_argument("--reproduce", type=Path, metavar="FILE", help="read one saved input, with its traceback")
    options = parser.parse_args()
    names = list(TARGETS) if options.target == "all" else [options.target]
    if options.reproduce:
        with scratch_folder() as scratch:
            target = TARGETS[names[0]]
            target.prepare(scratch)
            target.place(options.reproduce.read_bytes(), scratch)
            target.read(scratch)
        print("accepted")
        return 0
    engine = with_atheris if options.engine == "atheris" else with_own_engine
    arguments = (options.minutes, options.seed, options.escapes)
    clean = [supervised(name, options.escapes, partial(engine, name, *arguments)) for name in names]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
