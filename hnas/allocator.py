"""How the C library's allocator treats the memory of tensors.

Freed memory is kept by glibc alone. What is given back within a network needs glibc 2.33 or newer and Linux's /proc, to
see what is in use and was held.
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

# What a process is kept below, in bytes, and how much of it may be in use before gaps between tensors are given back
# within a network, which costs such a network a tenth of its time. With less in use there is room for the gaps.
_MOST, _CROWDED = 10**9, 440 * 2**20


@cache
def keep_freed_memory() -> None:
    """Have this process's allocator keep the memory of freed tensors for the next ones.

    Dask starts workers with `MALLOC_TRIM_THRESHOLD_` set, which also makes glibc map every tensor of more than 128 KiB
    afresh: ten networks then cost 9.5 million page faults and 2.2 times the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def give_back_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` kept: the gaps between tensors, which grow with many networks.

    They grow because glibc (seen of 2.36) does not put an aligned block, as torch asks for, where one of its size was.
    """
    if hasattr(psutil, "heap_trim"):
        psutil.heap_trim()


def give_back_where_crowded() -> None:
    """`give_back_freed_memory`, in a process that keeps freed memory and would outgrow a gigabyte with its gaps.

    One that has outgrown it already is left alone: the cost would buy nothing that it has not lost.
    """
    if keep_freed_memory.cache_info().currsize and bytes_in_use() > _CROWDED and most_held() < _MOST:
        give_back_freed_memory()


def most_held() -> int:
    """The most bytes of memory that this process has held, 0 where the system does not tell.

    Not `ru_maxrss`, which a process inherits from the one that started it.
    """
    try:
        (peak,) = re.findall(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except (OSError, ValueError):
        return 0
    return int(peak) * 1024


def bytes_in_use() -> int:
    """Bytes that this process has allocated and not freed, gaps apart; 0 where the allocator does not tell."""
    if not hasattr(psutil, "heap_info"):
        return 0
    heap = psutil.heap_info()
    return int(heap.heap_used) + int(heap.mmap_used)  # in its heaps, and mapped one by one
