"""Chunk sizes: fixed, or learnt from earlier chunks; at most a minute, smaller toward the end."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnas.pipeline.precompute.chunking import CHUNK_SECONDS, Budget, ChunkSizes


def played(seconds: list[float], workers: int, *, block: int = 8) -> list[tuple[int, list[int], float, float]]:
    """Simulate `workers` on networks that take these seconds, which are also their costs, the most expensive first.

    Returns for each chunk the worker, the networks, and its start and end.
    """
    order = sorted(range(len(seconds)), key=lambda k: -seconds[k])
    sizes = ChunkSizes(None, block)
    free_at = [0.0] * workers
    chunks = []
    while order:
        worker = min(range(workers), key=free_at.__getitem__)
        budget = sizes.budget(sum(seconds[k] for k in order), workers)
        taken = [order[0]]
        for k in order[1 : budget.networks]:
            if sum(seconds[j] for j in taken) + seconds[k] > budget.cost:
                break
            taken.append(k)
        del order[: len(taken)]
        took = sum(seconds[k] for k in taken)
        sizes.learn(len(taken), took, took)
        chunks.append((worker, taken, free_at[worker], free_at[worker] + took))
        free_at[worker] += took
    return chunks


def test_a_fixed_size_ignores_measurements():
    sizes = ChunkSizes(5, 5)
    for seconds in (0.001, 1000.0):
        sizes.learn(5, 5.0, seconds)
        assert sizes.budget(100.0, 2) == Budget(5, math.inf)


def test_a_measured_size_grows_from_one_network_to_a_minute():
    sizes = ChunkSizes(None, 8)
    assert sizes.budget(1e9, 2).networks == 1
    largest = []
    for _ in range(5):
        budget = sizes.budget(1e9, 2)
        networks = min(budget.networks, int(budget.cost)) if budget.cost < math.inf else budget.networks
        sizes.learn(networks, networks, 0.5 * networks)  # a cost of 1 and half a second each
        largest.append(networks)
    assert largest == [1, 4, 16, 64, 120]


def test_a_slowdown_is_noticed():
    sizes = ChunkSizes(None, 1)
    for _ in range(10):
        sizes.learn(100, 100.0, 10.0)
    fast = sizes.budget(1e9, 2).cost
    for _ in range(10):
        sizes.learn(100, 100.0, 100.0)
    assert sizes.budget(1e9, 2).cost == pytest.approx(fast / 10)
    assert sizes.budget(1e9, 2).cost == pytest.approx(CHUNK_SECONDS)


def test_a_chunk_that_took_no_time_teaches_nothing():
    sizes = ChunkSizes(None, 1)
    sizes.learn(16, 16.0, 0.0)
    assert sizes.budget(1e9, 2) == Budget(1, math.inf)


@given(
    seconds=st.lists(st.floats(0.01, 20), min_size=1, max_size=400),
    workers=st.integers(1, 5),
)
def test_chunks_cover_every_network_once_and_workers_end_together(seconds, workers):
    chunks = played(seconds, workers)
    done = [k for _, taken, _, _ in chunks for k in taken]
    assert sorted(done) == list(range(len(seconds)))
    assert [seconds[k] for k in done] == sorted(seconds, reverse=True), "the most expensive first"
    for _, taken, begun, ended in chunks:
        assert len(taken) == 1 or ended - begun <= CHUNK_SECONDS + 1e-6
    ends = [max((ended for at, _, _, ended in chunks if at == worker), default=0.0) for worker in range(workers)]
    # No worker waits longer than for one network or a quarter of a worker's share.
    assert max(ends) - min(ends) <= max(*seconds, sum(seconds) / (4 * workers), 0.0) + 1e-6


def test_chunks_become_smaller_toward_the_end():
    lengths = [ended - begun for _, _, begun, ended in played([1.0] * 2000, 2)]
    grown = lengths.index(max(lengths))
    assert max(lengths) == CHUNK_SECONDS
    assert lengths[grown:] == sorted(lengths[grown:], reverse=True)
    assert lengths[-1] == 1.0


@pytest.mark.parametrize(("seconds", "together"), [(0.001, 64), (0.01, 25), (0.1, 2), (1.0, 1), (60.0, 1)])
def test_only_tiny_chunks_share_a_task(seconds, together):
    sizes = ChunkSizes(1, 1)
    assert sizes.together == 1
    sizes.learn(1, 1.0, seconds)
    assert sizes.together == together


@pytest.mark.parametrize("learn", [lambda sizes: None, lambda sizes: sizes.learn(1, 1.0, 0.001),
                                   lambda sizes: sizes.learn(60, 60.0, 60.0)])  # fmt: skip
def test_tasks_in_flight_are_bounded_and_exceed_the_workers(learn: Callable[[ChunkSizes], None]):
    sizes = ChunkSizes(None, 1)
    learn(sizes)
    for workers in (1, 2, 100):
        assert workers + 1 <= sizes.in_flight(workers) <= 9 * workers
