"""Number of threads of a training, and how they wait. Must be set before torch is imported, which reads it then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from hnas.errors import UsageError

# With more cores than this, networks of the benchmarks' size train faster side by side.
_MOST = 8


def physical_cores() -> int:
    """Return the number of physical cores that this process may use."""
    allowed = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
    return max(1, min(allowed or 1, psutil.cpu_count(logical=False) or 1))


def training_threads(requested: int | None, parallel: int = 1) -> int:
    """Return the threads of each of `parallel` trainings: as requested, else a share of the physical cores, 1 to 8.

    The number depends on the machine but never on its load, because a training is bit-reproducible only for a fixed
    number of threads. Raises `UsageError` for a request outside 1 to 1024.
    """
    if requested is None:
        return max(1, min(physical_cores() // parallel, _MOST))
    if not 1 <= requested <= 1024:
        raise UsageError(f"threads must be between 1 and 1024, got {requested}")
    return requested


def wait_without_spinning() -> None:
    """Let the threads of libraries imported from now on sleep while they wait for each other.

    By default OpenMP threads spin, each on a core that another process may need: beside other work, two threads on two
    cores took four times as long as one, and as long as one without spinning. A value that the user set is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside, and restore the number on exit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
