"""CPUs and memory that this process may use, with the cgroup limits of a container."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_NO_LIMIT = 2**60  # cgroup v1 writes "no limit" as a number near 2**63


def usable_cpus() -> int:
    """Return the number of CPUs this process may run on, at most the container's quota, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _cpu_quota() or allowed))


def available_memory_bytes() -> int:
    """Return the memory that is free without swapping: the machine's, or what the container's limit leaves."""
    machine = _meminfo_bytes("MemAvailable") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_room_bytes()])


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process is inside this block for the same file, in containers too.

    A file system without locks lets all of them enter.
    """
    with path.open("rb") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cpu_quota() -> int | None:
    """Return the whole CPUs of time that the container may use, at least 1; None = no quota."""
    v1 = [*_fields(_CGROUP / "cpu/cpu.cfs_quota_us"), *_fields(_CGROUP / "cpu/cpu.cfs_period_us")]
    match _fields(_CGROUP / "cpu.max") or v1:
        case [quota, period] if quota not in ("max", "-1"):
            return max(1, int(quota) // int(period))
        case _:
            return None


def _cgroup_room_bytes() -> list[int]:
    """Return what the limits of this process's cgroup, and of those around it, leave."""
    rooms = []
    for folder, limit_name, usage_name, prefix in _memory_cgroups():
        limit, usage = _fields(folder / limit_name), _fields(folder / usage_name)
        if limit and limit[0] != "max" and int(limit[0]) < _NO_LIMIT:
            used = int(usage[0]) - _file_cache_bytes(folder, prefix) if usage else 0
            rooms.append(max(0, int(limit[0]) - used))
    return rooms


def _memory_cgroups() -> Iterator[tuple[Path, str, str, str]]:
    """Yield (folder, name of the limit, of the usage, prefix in memory.stat) of each, version 1 or 2."""
    paths = {}  # by controller; "" is version 2
    for line in _lines(_OWN_CGROUPS):
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path.strip("/")))
    for controller, root, limit, usage, prefix in (
        ("", _CGROUP, "memory.max", "memory.current", ""),
        ("memory", _CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        folder = root / paths.get(controller, "")
        for each in (folder, *folder.parents):
            yield each, limit, usage, prefix
            if each == root:
                break


def _file_cache_bytes(folder: Path, prefix: str) -> int:
    """Return the size of cached files: they count as used, and are dropped when memory is needed."""
    stat = _fields(folder / "memory.stat")
    counters = dict(zip(stat[::2], stat[1::2], strict=False))
    return sum(int(counters.get(f"{prefix}{name}", 0)) for name in ("inactive_file", "active_file"))


def _meminfo_bytes(name: str) -> int | None:
    fields = _fields(Path("/proc/meminfo"))
    label = f"{name}:"
    return int(fields[fields.index(label) + 1]) * 1024 if label in fields else None


def _fields(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
