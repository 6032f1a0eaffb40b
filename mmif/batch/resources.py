"""What this machine offers a batch: cores and memory, within the limits of its control group."""

import os
from pathlib import Path

# Bytes
MIB = 1 << 20
CONTROL_GROUP = Path("/sys/fs/cgroup")
WORKER_MIB = 3072
"""What a worker needs for a usual study, with room to spare (docs/scaling.md)."""
SHARE = 0.8
"""Of the free memory, what all workers together may take."""


def cores() -> int:
    """Processor cores that this process may use (of a container's share, the whole ones)."""
    here = len(os.sched_getaffinity(0))
    try:
        quota, period = map(int, (CONTROL_GROUP / "cpu.max").read_text().split())
    except (OSError, ValueError):  # "max", or no such group
        return here
    return max(1, min(here, quota // period))


def free_memory_mib() -> int:
    """Memory that can be had without swapping, in MiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    free = int(fields["MemAvailable"].split()[0]) // 1024
    return min(free, *_group_limits()) if _group_limits() else free


def default_jobs() -> int:
    """One worker a core, as long as each finds its memory."""
    return max(1, min(cores(), int(free_memory_mib() * SHARE) // WORKER_MIB))


def worker_memory_mib(jobs: int) -> int:
    """What each of ``jobs`` workers may take."""
    return max(512, int(free_memory_mib() * SHARE) // jobs)


def _group_limits() -> list[int]:
    """What the control group leaves, in MiB (cgroup v2, then v1); empty if it sets no limit."""
    old = CONTROL_GROUP / "memory"
    pairs = (
        (CONTROL_GROUP / "memory.max", CONTROL_GROUP / "memory.current"),
        (old / "memory.limit_in_bytes", old / "memory.usage_in_bytes"),
    )
    left = []
    for limit, used in pairs:
        try:
            left.append((int(limit.read_text()) - int(used.read_text())) // MIB)
        except (OSError, ValueError):  # "max", or no such group
            continue
    return [mib for mib in left if mib > 0]
