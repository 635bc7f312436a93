"""How the C library's allocator treats the memory of tensors; without glibc nothing here does anything."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from functools import cache
from pathlib import Path

# glibc's mallopt parameters, and the largest threshold it takes.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20

# Bytes that a process holds where gaps between tensors are given back within a network, which costs 3 % of its time:
# with less there is room for them, and a network that needs more than a gigabyte does so without them too.
_CROWDED = range(704 * 2**20, 2**30)


@cache
def keep_freed_memory() -> None:
    """Have this process's allocator keep the memory of freed tensors for the next ones.

    Dask starts workers with `MALLOC_TRIM_THRESHOLD_` set, which also makes glibc map every tensor of more than 128 KiB
    afresh: ten networks then cost 9.5 million page faults and 2.2 times the time.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def give_back_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` kept: the gaps between tensors, which grow with many networks.

    They grow because glibc before 2.38 does not put an aligned block, as torch asks for, where one of its size was.
    """
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def give_back_where_crowded() -> None:
    """`give_back_freed_memory`, in a process that keeps freed memory and is about to hold more than a gigabyte."""
    if keep_freed_memory.cache_info().currsize and resident() in _CROWDED:
        give_back_freed_memory()


def resident() -> int:
    """Bytes of memory that this process holds, 0 where the system does not tell as Linux does."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


@cache
def _of_glibc(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
    return found
