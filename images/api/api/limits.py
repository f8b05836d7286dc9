"""What this container may use: cores and memory."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
STATUS = Path("/proc/self/status")


def cores(cgroup: Path = CGROUP) -> int:
    """Cores by the CPU quota of cgroup v2 or v1 (a started core counts) and the affinity, whichever is fewer."""
    available = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return available if quota is None else max(1, min(available, math.ceil(quota)))


def memory_bytes(cgroup: Path = CGROUP) -> int:
    """The memory limit of cgroup v2 or v1, or the machine's memory, whichever is less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _read(cgroup / "memory.max") or _read(cgroup / "memory/memory.limit_in_bytes")
    return min(machine, int(limit)) if limit.isdecimal() else machine


def peak_bytes(status: Path = STATUS) -> int:
    """The most memory that this process ever had. Not `getrusage`: its peak is also that of what started us."""
    return _status_bytes(status, "VmHWM:")


def resident_bytes(status: Path = STATUS) -> int:
    """The memory that this process has now."""
    return _status_bytes(status, "VmRSS:")


def _status_bytes(status: Path, field: str) -> int:
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _quota_v2(cgroup: Path) -> float | None:
    fields = _read(cgroup / "cpu.max").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(cgroup: Path) -> float | None:
    quota, period = _read(cgroup / "cpu/cpu.cfs_quota_us"), _read(cgroup / "cpu/cpu.cfs_period_us")
    if not period or int(quota) <= 0:  # -1: no limit
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
