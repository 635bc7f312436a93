"""Warm starts: the order of known performances decides where a search starts, and known values never win."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hnas import ArrayPool, Search, UsageError
from hnas.optim.methods.warm import best_point, normal_scores
from tests.support.cells_bench import CELLS, accuracy
from tests.support.columns_bench import columns_pool

WARM = {
    "bohb": {"epochs": 12},
    "hnas": {},
    "local-search": {},
    "rea": {"population": 4},
    "regressor": {},
    "regressor:forest": {},
}
#: For 60 cells, on another scale.
KNOWN = {arch: math.exp(accuracy(arch) / 10) for arch in CELLS[::3][:60]}
BEST = sorted(KNOWN, key=KNOWN.__getitem__, reverse=True)


@pytest.fixture(scope="module")
def pool() -> ArrayPool:
    return columns_pool()


def queried_archs(pool: ArrayPool, method: str, known: dict[str, float] | None, queries: int = 8) -> list[str]:
    search = Search(pool, method, seed=1, known=known, **WARM[method])
    for _ in range(queries):
        proposal = search.ask()
        assert proposal is not None
        search.tell(proposal, accuracy(proposal.arch))
    return [query.arch for query in search.queries]


@pytest.mark.parametrize("method", WARM)
def test_only_the_order_of_known_performances_matters(method: str, pool: ArrayPool) -> None:
    warm = queried_archs(pool, method, KNOWN)
    assert warm[:4] != queried_archs(pool, method, None, 4)
    others = {"no candidate": 1e9, **{arch: 3 * math.log(value) - 1000 for arch, value in reversed(KNOWN.items())}}
    assert queried_archs(pool, method, others) == warm
    reverse = {arch: -value for arch, value in KNOWN.items()}
    assert queried_archs(pool, method, reverse) != warm


def test_evolution_and_local_search_start_with_the_best_known(pool: ArrayPool) -> None:
    assert queried_archs(pool, "rea", KNOWN)[:4] == BEST[:4]
    assert queried_archs(pool, "local-search", KNOWN)[0] == BEST[0]


@pytest.mark.parametrize("method", ["regressor", "regressor:forest", "bohb"])
def test_a_warm_start_improves_the_first_queries(method: str, pool: ArrayPool) -> None:
    warm, cold = ([accuracy(arch) for arch in queried_archs(pool, method, known, 5)] for known in (KNOWN, None))
    assert np.mean(warm) > np.mean(cold)


def test_hnas_starts_where_the_best_known_architecture_minimises_eq_7(pool: ArrayPool) -> None:
    """Of two known architectures, the points at which the better one minimises (7) are searched first."""
    pair = [arch for arch in CELLS if np.isfinite(pool.column("kappa")[pool.position(arch)])][:2]
    for better, worse in (pair, pair[::-1]):
        small = ArrayPool(
            pair, {name: pool.column(name)[[pool.position(a) for a in sorted(pair)]] for name in ("trace", "kappa")}
        )
        proposal = Search(small, "hnas", seed=0, known={better: 2.0, worse: 1.0}).ask()
        assert proposal is not None
        assert proposal.arch == better


@pytest.mark.parametrize(
    "method", ["random", "reinforce", "top:params", "best-of:params", "zero-cost", "authors", "robot"]
)
def test_methods_without_a_warm_start_say_which_have_one(method: str, pool: ArrayPool) -> None:
    with pytest.raises(UsageError, match="has no warm start; bohb, hnas, local-search, rea and regressor have one"):
        Search(pool, method, known=KNOWN)


@pytest.mark.parametrize("known", [{}, {BEST[0]: 1.0}, {BEST[0]: 1.0, "none": 2.0}, {BEST[0]: 1.0, BEST[1]: 1.0}])
def test_a_warm_start_without_information_is_refused(known: dict[str, float], pool: ArrayPool) -> None:
    with pytest.raises(UsageError, match="needs two known candidates with different values"):
        Search(pool, "rea", known=known)


def test_scores_and_points() -> None:
    assert normal_scores([5.0, 1.0, 5.0, 9.0]).tolist() == pytest.approx([0.0, -1.1503, 0.0, 1.1503], abs=1e-4)
    points = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    assert best_point(points, np.array([3.0, 3.0, 3.0, 1.0])).tolist() == [1.0, 0.0]
