"""Regularised evolution against the published program written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from hnas import UsageError
from tests.support.cells_bench import CELLS, SPACE, accuracy, pool_of, run_method


def evolution(archs: list[str], seed: int, queries: int, population: int, sample: int) -> list[str]:
    """`regularized_evolution` of the benchmark's program, with a list as history and one random stream."""
    random = np.random.default_rng(seed)
    history: list[tuple[float, str]] = []

    def evaluate(arch: str) -> None:
        history.append((accuracy(arch), arch))

    for _ in range(population):
        evaluate(archs[random.integers(len(archs))])
    while len(history) < queries:
        alive = history[-population:]
        candidates = [alive[i] for i in random.integers(population, size=sample)]
        parent = candidates[0]
        for candidate in candidates[1:]:
            if candidate[0] > parent[0]:
                parent = candidate
        for _ in range(100):
            child = SPACE.mutate(parent[1], random)
            if child in archs:
                break
        else:
            child = archs[random.integers(len(archs))]
        evaluate(child)
    return [arch for _, arch in history]


@pytest.mark.parametrize(("population", "sample"), [(10, 3), (4, 1), (1, 2)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_queries_match_the_published_program(seed: int, population: int, sample: int) -> None:
    queries = run_method("rea", pool_of(CELLS), 80, seed=seed, population=population, tournament=sample)
    assert [query.arch for query in queries] == evolution(CELLS, seed, 80, population, sample)


def test_children_are_one_edit_from_a_living_member() -> None:
    queries = [query.arch for query in run_method("rea", pool_of(list(SPACE.enumerate())), 60)]
    for k in range(10, 60):
        assert any(queries[k] in SPACE.neighbours(parent) for parent in queries[k - 10 : k])


def test_evolution_beats_as_many_random_draws() -> None:
    everything = pool_of(list(SPACE.enumerate()))
    found = {
        method: np.mean([max(q.performance for q in run_method(method, everything, 100, seed=s)) for s in range(8)])
        for method in ("rea", "random")
    }
    assert found["rea"] > found["random"] + 1


@pytest.mark.parametrize("options", [{"population": 0}, {"population": 2.5}, {"tournament": "three"}])
def test_impossible_population_sizes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"the option (population|tournament) must be a whole number of at"):
        run_method("rea", pool_of(CELLS), 1, **options)
