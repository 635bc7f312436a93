"""Freed memory is kept for the next tensors, and given back where a process would outgrow a gigabyte."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from hnas import allocator, compute_metrics

#: What the programs below begin with: 210 MB of tensors of which every second one is freed, and the memory held, in MB.
GAPS = """
import torch
from hnas import allocator

def held():
    return allocator.resident() / 1e6

def gaps():
    made = [torch.zeros(2**20 if i % 2 else 100) for i in range(100)]
    return made[::2]
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's allocator")


def printed(program: str) -> list[float]:
    """The numbers that a program prints after `GAPS`, in a process of its own: what is set there stays there."""
    done = subprocess.run([sys.executable, "-c", GAPS + program], capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


@glibc
def test_gaps_between_tensors_are_kept_until_they_are_given_back():
    kept, given = printed("""
allocator.keep_freed_memory()
before = held()
small = gaps()
print(held() - before)
allocator.give_back_freed_memory()
print(held() - before)
""")
    assert kept > 150
    assert given < 50


@glibc
@pytest.mark.parametrize(("least", "most", "given_back"), [(0, 2**40, True), (2**40, 2**41, False), (0, 1, False)])
def test_within_a_network_gaps_are_given_back_between_two_bounds(least, most, given_back):
    (freed,) = printed(f"""
allocator._CROWDED = range({least}, {most})
allocator.keep_freed_memory()
small = gaps()
before = held()
allocator.give_back_where_crowded()
print(before - held())
""")
    assert (freed > 150) == given_back


@glibc
def test_a_process_that_does_not_keep_freed_memory_is_left_alone():
    (calls,) = printed("""
allocator._CROWDED = range(2**40)
calls = []
allocator.give_back_freed_memory = lambda: calls.append(1)
allocator.give_back_where_crowded()
print(len(calls))
""")
    assert calls == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_memory_held_is_what_the_system_says():
    with open("/proc/self/status") as file:  # noqa: PTH123
        (line,) = (line for line in file if line.startswith("VmRSS"))
    assert allocator.resident() == pytest.approx(int(line.split()[1]) * 1024, rel=0.05)


def test_what_is_given_back_within_a_network_changes_no_number(monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn((6, 3, 8, 8), generator=generator), torch.arange(6)
    before = compute_metrics(network, images, labels).columns()
    times = []
    monkeypatch.setattr("hnas.metrics.engine.give_back_where_crowded", lambda: times.append(1) or torch.empty(10**6))
    assert compute_metrics(network, images, labels).columns() == before
    assert len(times) == 2
