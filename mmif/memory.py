"""What a step has freed goes back to the system."""

import ctypes


def give_memory_back() -> None:
    """Return freed memory to the system, where the C library is glibc.

    It keeps what threads free: the network's leave 0.4 GB (benchmarks/body.py).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
