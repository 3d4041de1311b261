"""The memory of a process and all its descendants, measured from outside.

The kernel's proportional set size divides a shared page among the processes that share it, so the sum over a family of processes is the
memory that they hold. But pages of files, mostly libraries, are shared with other processes too, such as other contenders. They count in
full here, as if no other process had them: the maximum over the family.
"""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """The process and its descendants that are still alive."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for member in found:  # grows while it is walked
        found += children.get(member, [])
    return found


def held(pid: int) -> int:
    """Bytes that the process and its descendants hold now; 0 if they have ended."""
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
    """The lines "name: number kB" of a file in /proc, in bytes; empty if the process has ended."""
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
