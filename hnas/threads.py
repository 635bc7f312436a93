"""Threads of a training: how many, and how they wait. Known before torch is imported, for it reads them then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from hnas.errors import UsageError

# Where a machine has more cores, networks of the benchmarks' size are better trained side by side.
_MOST = 8


def physical_cores() -> int:
    """The number of physical cores that this process may use."""
    allowed = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
    return max(1, min(allowed or 1, psutil.cpu_count(logical=False) or 1))


def training_threads(asked: int | None, parallel: int = 1) -> int:
    """The threads of each of `parallel` trainings: those asked for, else its share of the physical cores, 1 to 8.

    It depends on the machine and never on its load, because a training repeats itself to the bit for one number of
    threads only. Raises `UsageError` for a number that cannot be.
    """
    if asked is None:
        return max(1, min(physical_cores() // parallel, _MOST))
    if not 1 <= asked <= 1024:
        raise UsageError(f"--threads {asked} cannot be; give 1 to 1024")
    return asked


def wait_without_spinning() -> None:
    """Have the threads of libraries that are imported from now on sleep while they wait for each other.

    By default those of OpenMP spin, each on a core that another process may need: two threads on two cores with other
    work took four times the time of one, and as long as one without spinning. What the user set stands.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch compute with `count` threads inside, and with as many as before outside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
