"""Local search against the published algorithm written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.cells_bench import CELLS, SPACE, accuracy, pool_of, run_method


def local_search(archs: list[str], seed: int, queries: int) -> list[str]:
    """Algorithm 1 of White et al. with restarts; queries the whole neighbourhood and nothing twice."""
    random = np.random.default_rng(seed)
    asked: list[str] = []
    while len(asked) < len(archs):
        left = [arch for arch in archs if arch not in asked]
        v = left[random.choice(len(left))]
        asked.append(v)
        while True:
            neighbours = SPACE.neighbours(v)
            evaluated = []
            for i in random.permutation(len(neighbours)):
                u = neighbours[i]
                if u in archs and u not in asked:
                    asked.append(u)
                    evaluated.append(u)
            u = max(evaluated, key=accuracy, default=v)
            if accuracy(u) <= accuracy(v):
                break
            v = u
    return asked[:queries]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_queries_match_the_published_algorithm(seed: int) -> None:
    queries = run_method("local-search", pool_of(CELLS), 500, seed=seed)
    assert [query.arch for query in queries] == local_search(CELLS, seed, 500)


def test_every_candidate_is_evaluated_exactly_once() -> None:
    queries = [query.arch for query in run_method("local-search", pool_of(CELLS), 1000)]
    assert sorted(queries) == CELLS


def test_it_climbs_to_a_local_maximum() -> None:
    everything = list(SPACE.enumerate())
    queries = run_method("local-search", pool_of(everything), 400)
    assert any(all(accuracy(other) < query.performance for other in SPACE.neighbours(query.arch)) for query in queries)
