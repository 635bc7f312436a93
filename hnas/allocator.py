"""How the C library's allocator treats the memory of tensors.

Only glibc can be made to keep freed memory. Releasing it within a network needs glibc 2.33 or newer and Linux's /proc,
to see how much memory is in use and how much the process has held.
"""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from pathlib import Path

import psutil

# glibc's mallopt parameters, and the largest threshold it takes.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20

# The limit that a process should stay below, and the bytes in use above which gaps between tensors are released within
# a network, at the cost of a tenth of its time. With less in use, the gaps fit under the limit.
_MOST, _CROWDED = 10**9, 440 * 2**20


@cache
def keep_freed_memory() -> None:
    """Make this process's allocator keep the memory of freed tensors for later ones.

    Dask starts workers with `MALLOC_TRIM_THRESHOLD_` set, which also makes glibc map every tensor above 128 KiB anew:
    ten networks then take 9.5 million page faults and 2.2 times as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def give_back_freed_memory() -> None:
    """Release the memory that `keep_freed_memory` kept: the gaps between tensors, which grow from network to network.

    They grow because glibc (observed with 2.36) does not reuse the place of a freed block for an aligned block of the
    same size, which is what torch requests.
    """
    if hasattr(psutil, "heap_trim"):
        psutil.heap_trim()


def give_back_where_crowded() -> None:
    """Release freed memory if this process keeps it and would otherwise exceed a gigabyte because of the gaps.

    Skipped once the peak exceeds the limit, since releasing memory can then no longer keep it below.
    """
    if keep_freed_memory.cache_info().currsize and bytes_in_use() > _CROWDED and most_held() < _MOST:
        give_back_freed_memory()


def most_held() -> int:
    """Return the peak resident memory of this process in bytes, 0 where the system does not report it.

    `ru_maxrss` is unsuitable because a process inherits it from its parent.
    """
    try:
        (peak,) = re.findall(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except (OSError, ValueError):
        return 0
    return int(peak) * 1024


def bytes_in_use() -> int:
    """Return the bytes allocated and not freed, without gaps; 0 where the allocator does not report them."""
    if not hasattr(psutil, "heap_info"):
        return 0
    heap = psutil.heap_info()
    return int(heap.heap_used) + int(heap.mmap_used)  # in heaps, and in mappings of their own
