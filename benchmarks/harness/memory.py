"""What a process and all its descendants hold in memory, asked from outside.

The kernel's proportional set size counts a page that several processes share once in all: over a family of processes it adds up to what
they hold. But pages of files, mostly libraries, are shared with strangers too, such as other contenders. Those count whole here, as if
nobody else had them: the most that any process of the family has.
"""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """The process and its descendants, as far as they still live."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for member in found:  # grows while it is walked
        found += children.get(member, [])
    return found


def held(pid: int) -> int:
    """Bytes that the process and its descendants hold now; 0 if there are none any more."""
    own, files = 0, 0
    for member in family(pid):
        sizes = _sizes(PROC / str(member) / "smaps_rollup") | _sizes(PROC / str(member) / "status")
        own += sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0)
        files = max(files, sizes.get("RssFile", 0))
    return own + files


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return None


def _sizes(path: Path) -> dict[str, int]:
    """The lines "name: number kB" of a file of /proc, in bytes; none if the process has ended."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value[:-3]) * 1024
    return found
