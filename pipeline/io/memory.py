"""Memory of this process."""

from __future__ import annotations

import sys

from hnas.allocator import most_held


def peak_memory() -> int:
    """The most bytes that this process has held."""
    if known := most_held():
        return known
    try:
        import resource
    except ImportError:  # Windows, where psutil knows it
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
