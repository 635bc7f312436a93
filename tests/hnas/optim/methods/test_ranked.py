"""Methods that rank by one column, against plain programs, and properties of all methods that read columns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hnas import Search, UsageError
from tests.support.cells_bench import CELLS, SPACE, accuracy, run_method
from tests.support.columns_bench import CLASSES, COLUMNS, columns_pool

NAMES = [
    "top:params", "best-of:trace", "zero-cost", "zero-cost-warmup", "zero-cost-move", "robot", "authors",
]  # fmt: skip


def queried_archs(method: str, queries: int = 40, *, seed: int = 3, **options: object) -> list[str]:
    return [query.arch for query in run_method(method, columns_pool(), queries, seed=seed, **options)]


def place(arch: str) -> int:
    return CELLS.index(arch)


def first_of_each_class(order: list[int]) -> list[str]:
    seen: set[str] = set()
    kept = []
    for i in order:
        if CLASSES[i] not in seen:
            seen.add(CLASSES[i])
            kept.append(CELLS[i])
    return kept


@pytest.mark.parametrize("column", ["params", "-kappa", "spotty", "grasp"])
def test_top_queries_each_class_once_and_missing_values_last(column: str) -> None:
    sign, values = (-1, COLUMNS[column[1:]]) if column[0] == "-" else (1, COLUMNS[column])
    scores = [-math.inf if math.isnan(v) else sign * v for v in values.tolist()]
    order = sorted(range(len(CELLS)), key=lambda i: (scores[i], CELLS[i]), reverse=True)
    expected = first_of_each_class(order)
    assert queried_archs(f"top:{column}", 200) == expected
    assert len(expected) < len(CELLS)  # some classes have several cells, so the search ends early


@pytest.mark.parametrize("draws", [1, 30, 1000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_best_of_makes_one_query_for_the_best_draw(draws: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    best = -1
    for i in random.integers(len(CELLS), size=draws).tolist():
        value = COLUMNS["spotty"][i]
        if best < 0 or value > COLUMNS["spotty"][best] or (np.isnan(COLUMNS["spotty"][best]) and not np.isnan(value)):
            best = i
    assert queried_archs("best-of:spotty", 5, seed=seed, draws=draws) == [CELLS[best]]


@pytest.mark.parametrize("metric", ["trace", "grasp"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_zero_cost_queries_in_the_order_of_the_published_score(metric: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn: list[int] = []
    for i in random.integers(len(CELLS), size=2000).tolist():
        if i not in drawn:
            drawn.append(i)
    drawn.sort(key=lambda i: 1 / (abs(COLUMNS[metric][i]) + 1e-6))
    assert queried_archs(f"zero-cost:{metric}", 100, seed=seed) == first_of_each_class(drawn)[:100]


def evolution(first: list[str], seed_of_tournaments: np.random.Generator, queries: int, child) -> list[str]:  # type: ignore[no-untyped-def]
    """The notebook's `run_evolution_search`, after the first population."""
    history = [(accuracy(arch), arch) for arch in first]
    pool = list(history)
    while len(history) < queries:
        sample = [pool[i] for i in sorted(seed_of_tournaments.choice(len(pool), 10, replace=False).tolist())]
        parent = sorted(sample, key=lambda member: member[0])[-1][1]
        new = child(parent)
        history.append((accuracy(new), new))
        pool.append(history[-1])
        pool.pop(0)
    return [arch for _, arch in history]


@pytest.mark.parametrize("seed", [0, 1])
def test_warm_up_starts_from_the_best_of_3000_draws(seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn = random.integers(len(CELLS), size=3000).tolist()
    first = sorted(drawn, key=lambda i: COLUMNS["trace"][i], reverse=True)[:64]

    def child(parent: str) -> str:
        for _ in range(100):
            new = SPACE.mutate(parent, random)
            if new in CELLS:
                return new
        return CELLS[random.integers(len(CELLS))]

    expected = evolution([CELLS[i] for i in first], random, 100, child)
    assert queried_archs("zero-cost-warmup", 100, seed=seed) == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_three_of_four_moves_go_to_the_best_neighbour(seed: int) -> None:
    random = np.random.default_rng(seed)
    first = [CELLS[random.integers(len(CELLS))] for _ in range(64)]

    def child(parent: str) -> str:
        near = [arch for arch in SPACE.neighbours(parent) if arch in CELLS]
        if not near:
            return CELLS[random.integers(len(CELLS))]
        if random.random() > 0.75:
            return near[random.integers(len(near))]
        return sorted(near, key=lambda arch: COLUMNS["trace"][place(arch)])[-1]

    assert queried_archs("zero-cost-move", 120, seed=seed) == evolution(first, random, 120, child)


# Properties of all of them.


@pytest.mark.parametrize("method", NAMES)
def test_replayed_searches_resume_exactly_and_query_candidates_only(method: str) -> None:
    queries = run_method(method, columns_pool(), 30, seed=5)
    assert {query.arch for query in queries} <= set(CELLS)
    for stop in {1, 6, len(queries) - 1}:
        resumed = Search(columns_pool(), method, seed=5)
        for query in queries[:stop]:
            resumed.replay(query)
        for query in queries[stop:]:
            proposal = resumed.ask()
            assert proposal is not None
            assert (proposal.arch, proposal.objective) == (query.arch, query.objective)
            resumed.tell(proposal, accuracy(proposal.arch))


@pytest.mark.parametrize("method", ["best-of:trace", "zero-cost-move", "robot", "authors"])
def test_seeds_differ(method: str) -> None:
    options = {"draws": 20} if method.startswith("best-of") else {}
    assert queried_archs(method, 12, seed=0, **options) != queried_archs(method, 12, seed=1, **options)


def test_top_does_not_depend_on_the_seed() -> None:
    assert queried_archs("top:params", 12, seed=0) == queried_archs("top:params", 12, seed=1)


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("value", [1.0, 0.0, math.inf])
def test_constant_columns_are_searched_if_anything_can_be_ranked(method: str, value: float) -> None:
    pool = columns_pool({name: np.full(len(CELLS), value) for name in COLUMNS})
    refused = {("zero-cost", 0.0): "never positive", ("authors", math.inf): "no candidate has a finite trace"}
    if (method, value) in refused:
        with pytest.raises(UsageError, match=refused[method, value]):
            run_method(method, pool, 12)
        return
    assert len(run_method(method, pool, 12)) == (1 if method.startswith("best-of") else 12)


@pytest.mark.parametrize("method", NAMES)
def test_a_column_without_values_is_refused(method: str) -> None:
    pool = columns_pool({name: np.full(len(CELLS), math.nan) for name in COLUMNS})
    with pytest.raises(UsageError, match="for at least 1 candidates, but only 0 of 200 have it"):
        run_method(method, pool, 5)


@pytest.mark.parametrize("method", NAMES)
def test_an_unknown_column_is_refused(method: str) -> None:
    with pytest.raises(UsageError, match="no column 'tracy'"):
        Search(columns_pool(), f"{method.partition(':')[0]}:tracy")


@pytest.mark.parametrize("method", ["top", "best-of"])
def test_methods_that_need_a_column_are_refused_without_it(method: str) -> None:
    with pytest.raises(UsageError, match=f"{method} needs a column"):
        Search(columns_pool(), method)


def test_zero_draws_are_refused() -> None:
    with pytest.raises(UsageError, match=r"draws must be .* got 0"):
        Search(columns_pool(), "best-of:trace", draws=0)


def test_zero_cost_refuses_a_column_that_is_never_positive() -> None:
    with pytest.raises(UsageError, match="use top:-kappa for signed ones"):
        Search(columns_pool(), "zero-cost:-kappa")
