"""What a container, a batch system or a service manager allows this process: cores and memory, by Linux's control groups.

Limits stand at every level from the process's own group up to the root, and the smallest counts. Both versions are read:
version 2, and the version 1 that older systems and batch systems such as Slurm still use.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

OWN = Path("/proc/self")
# Version 1 states "no limit" as the largest multiple of a page in 63 bits.
UNLIMITED = 2**62


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """Cores' worth of time (1.5 is one and a half), bytes, and bytes still free under the tightest level; None: no limit."""

    cores: float | None
    memory_bytes: int | None
    memory_left_bytes: int | None


def allowed(own: Path = OWN) -> Allowed:
    """The smallest limits over all levels of this process's groups; `own` is its folder in /proc."""
    cores = [quota for folder, version in _levels(own, "cpu") if (quota := _quota(folder, version))]
    memory = [found for folder, version in _levels(own, "memory") if (found := _memory(folder, version))]
    return Allowed(
        cores=min(cores, default=None),
        memory_bytes=min((limit for limit, _ in memory), default=None),
        memory_left_bytes=min((max(0, left) for _, left in memory), default=None),
    )


def _levels(own: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of the groups that bound a controller, the process's own first, with the version of each."""
    for version, root, mount in _mounts(own, controller):
        path = _group(own, controller if version == 1 else "")
        if path is None:
            continue
        # A group outside what is mounted here, as some containers state, is seen as the mount itself.
        below = path.relative_to(root) if path.is_relative_to(root) and ".." not in path.parts else PurePosixPath()
        folder = mount / below
        yield from ((level, version) for level in (folder, *folder.parents) if level.is_relative_to(mount))


def _mounts(own: Path, controller: str) -> Iterator[tuple[int, PurePosixPath, Path]]:
    """Version, root and mount point of each hierarchy that may bound this controller."""
    for line in (_read(own / "mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if kind == "cgroup2" or (kind == "cgroup" and rest and controller in rest[-1].split(",")):
            yield 2 if kind == "cgroup2" else 1, PurePosixPath(_unescape(fields[3])), Path(_unescape(fields[4]))


def _group(own: Path, controller: str) -> PurePosixPath | None:
    """The process's group in a controller's hierarchy; version 2 has one hierarchy, and no controller's name there."""
    for line in (_read(own / "cgroup") or "").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return None


def _quota(folder: Path, version: int) -> float | None:
    words = (_read(folder / "cpu.max") or "").split()
    if version == 1:
        words = [_read(folder / "cpu.cfs_quota_us") or "", _read(folder / "cpu.cfs_period_us") or ""]
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[1]):  # "max", -1 or not there
        return None
    return int(words[0]) / int(words[1])


def _memory(folder: Path, version: int) -> tuple[int, int] | None:
    """Limit and what is left of it, in bytes; file cache gives way and counts as left."""
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit_name, used_name, cache_name = names if version == 1 else ("memory.max", "memory.current", "inactive_file")
    limit, used = _read(folder / limit_name), _read(folder / used_name)
    if not limit or not limit.isdigit() or int(limit) >= UNLIMITED:
        return None
    if not used or not used.isdigit():
        return int(limit), int(limit)
    stated = dict(line.partition(" ")[::2] for line in (_read(folder / "memory.stat") or "").splitlines())
    return int(limit), int(limit) - int(used) + int(stated.get(cache_name, 0))


def _unescape(path: str) -> str:
    """mountinfo writes blanks in paths as octal numbers."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
