"""How the C library's allocator treats the memory of tensors; without glibc nothing here does anything."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

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
    """`give_back_freed_memory`, in a process that keeps freed memory and would outgrow a gigabyte with its gaps.

    One that has outgrown it already is left alone: its networks need more, with gaps or without.
    """
    if keep_freed_memory.cache_info().currsize and bytes_in_use() > _CROWDED and most_held() < _MOST:
        give_back_freed_memory()


def most_held() -> int:
    """The most bytes of memory that this process has held, 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    # In KiB, but for macOS, which has no glibc.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bytes_in_use() -> int:
    """Bytes that this process has allocated and not freed, gaps apart; 0 where the allocator does not tell."""
    mallinfo = _of_glibc("mallinfo2")
    if mallinfo is None:
        return 0
    found = mallinfo()
    return int(found.uordblks) + int(found.hblkhd)  # in its heaps, and mapped one by one


class _Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_RETURNED = {"mallinfo2": _Mallinfo2, "mallopt": ctypes.c_int, "malloc_trim": ctypes.c_int}


@cache
def _of_glibc(name: str) -> Callable[..., Any] | None:
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
    function.restype = _RETURNED[name]
    found: Callable[..., Any] = function
    return found
