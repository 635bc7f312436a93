"""Memory use of this process."""

from __future__ import annotations

import sys

from hnas.allocator import most_held


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    if peak := most_held():
        return peak
    try:
        import resource
    except ImportError:  # on Windows, psutil reports it
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
