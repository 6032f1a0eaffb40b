"""What this machine offers a batch: cores and memory, within the limits of its control group."""

import os
from pathlib import Path

MIB = 1 << 20
WORKER_MIB = 3072
"""What a worker needs for a usual study, with room to spare (docs/scaling.md)."""
SHARE = 0.8
"""Of the free memory, what all workers together may take."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


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
    root = Path("/sys/fs/cgroup")
    pairs = (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    )
    left = []
    for limit, used in pairs:
        try:
            left.append((int(limit.read_text()) - int(used.read_text())) // MIB)
        except (OSError, ValueError):  # "max", or no such group
            continue
    return [mib for mib in left if mib > 0]
