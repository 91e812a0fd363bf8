"""What this machine allows: CPUs and memory, cgroup limits of a container included."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**60  # cgroup v1 writes "no limit" as a number near 2**63


def usable_cpus() -> int:
    """CPUs this process may run on, at most the container's quota, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _cpu_quota() or allowed))


def available_memory_bytes() -> int:
    """Memory that can still be taken without swapping: the machine's, or what the container's limit leaves."""
    machine = _meminfo_bytes("MemAvailable") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_room_bytes()])


def _cpu_quota() -> int | None:
    """Whole CPUs' worth of time the container may use, at least 1; None = no quota."""
    v1 = [*_fields(_CGROUP / "cpu/cpu.cfs_quota_us"), *_fields(_CGROUP / "cpu/cpu.cfs_period_us")]
    match _fields(_CGROUP / "cpu.max") or v1:
        case [quota, period] if quota not in ("max", "-1"):
            return max(1, int(quota) // int(period))
        case _:
            return None


def _cgroup_room_bytes() -> list[int]:
    pairs = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    rooms = []
    for limit_name, usage_name in pairs:
        limit, usage = _fields(_CGROUP / limit_name), _fields(_CGROUP / usage_name)
        if limit and limit[0] != "max" and int(limit[0]) < _NO_LIMIT:
            rooms.append(max(0, int(limit[0]) - (int(usage[0]) if usage else 0)))
    return rooms


def _meminfo_bytes(name: str) -> int | None:
    fields = _fields(Path("/proc/meminfo"))
    label = f"{name}:"
    return int(fields[fields.index(label) + 1]) * 1024 if label in fields else None


def _fields(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
