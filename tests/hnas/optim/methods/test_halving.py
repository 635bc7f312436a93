"""Successive halving: each training runs in rungs, the best continue, and everything fits the budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hnas import ArrayPool, Evaluation, Query, UsageError
from hnas.optim.algorithm import best, search
from hnas.optim.objective import objective

N = 400
RANDOM = np.random.default_rng(0)
METRIC, KAPPA = np.exp(RANDOM.normal(size=(2, N)))
ARCHS = [f"a{k:03d}" for k in range(N)]
WORTH = dict(zip(ARCHS, (80 + 3 * np.log(METRIC) - np.log(KAPPA) + RANDOM.normal(size=N)).tolist(), strict=True))


class Curves:
    """Trainings that converge to an architecture's accuracy, with epochs of 1 s or of `seconds(arch)`."""

    def __init__(self, seconds: Callable[[str], float] = lambda arch: 1.0) -> None:
        self._seconds = seconds

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        return self.continued(arch, 0, epochs or 12)

    def continued(self, arch: str, since: int, epochs: int) -> Evaluation:
        return Evaluation(WORTH[arch] * (1 - 0.5 * 0.7**epochs), self._seconds(arch) * (epochs - since))


class Anew:
    """As `Curves`, but each training starts from scratch."""

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        return Curves()(arch, epochs)


@pytest.fixture
def pool() -> ArrayPool:
    return ArrayPool(ARCHS, {"trace": METRIC, "kappa": KAPPA})


def halved(pool: ArrayPool, oracle: object = None, budget: float | None = None, **options: object) -> list[Query]:
    seconds = {} if budget is None else {"seconds": budget}
    settings = {"queries": None if budget else 200, "budget": budget, "epochs": 12, "seed": 2, **seconds, **options}
    return search(pool, oracle or Curves(), method="halving:trace", **settings)


@pytest.mark.parametrize("parallel", [1, 4])
def test_the_best_third_of_each_rung_continues_its_training(pool: ArrayPool, parallel: int) -> None:
    queries = halved(pool, parallel=parallel)
    rungs = {epochs: [q for q in queries if q.epochs == epochs] for epochs in (1, 4, 12)}
    assert [len(rung) for rung in rungs.values()] == [9, 3, 1]
    for below, above in ((1, 4), (4, 12)):
        order = sorted(rungs[below], key=lambda q: -q.performance)
        assert {q.arch for q in rungs[above]} == {q.arch for q in order[: len(rungs[above])]}
        assert all(q.cost == above - below for q in rungs[above])
    assert best(queries).arch == rungs[12][0].arch
    for k, query in enumerate(sorted(rungs[1], key=lambda q: q.asked or 0)):
        value = objective(METRIC, KAPPA, mu=query.mu or 0, nu=query.nu or 0)
        taken = [ARCHS.index(q.arch) for q in sorted(rungs[1], key=lambda q: q.asked or 0)[:k]]
        value[taken] = np.inf
        assert query.arch == ARCHS[int(np.argmin(value))], "the candidates minimise eq. (7)"


@pytest.mark.parametrize("budget", [20.0, 60.0, 200.0, 900.0])
@pytest.mark.parametrize("parallel", [1, 4])
def test_a_budget_is_used_without_exceeding_it(pool: ArrayPool, budget: float, parallel: int) -> None:
    queries = halved(pool, Curves(lambda arch: 1 + int(arch[1:]) % 2), budget, parallel=parallel)
    spent = sum(query.cost for query in queries)
    assert best(queries).epochs == 12
    assert spent <= budget * 1.3
    assert spent >= 0.5 * budget or budget > 800  # the pool is small


def test_an_oracle_that_cannot_continue_trains_from_scratch(pool: ArrayPool) -> None:
    assert [query.cost for query in halved(pool, Anew())] == [1.0] * 9 + [4.0] * 3 + [12.0]


def test_a_stopped_search_resumes_exactly(pool: ArrayPool) -> None:
    whole = halved(pool, parallel=3)
    for split in (2, 9, 11):
        again = halved(pool, parallel=3, history=whole[:split])
        assert [(q.arch, q.epochs, q.cost, q.elapsed) for q in again] == [
            (q.arch, q.epochs, q.cost, q.elapsed) for q in whole
        ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": None}, "needs epochs"),
        ({"min_budget": 13}, "min_budget must be .* got 13"),
        ({"eta": 1}, "eta must be .* got 1"),
        ({"candidates": 0}, "candidates must be .* got 0"),
        ({"seconds": "abc"}, "seconds must be .* got 'abc'"),
        ({"t": 0}, "t of F.* got 0"),
    ],
)
def test_impossible_settings_are_refused(pool: ArrayPool, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        halved(pool, **options)


def test_halving_beats_full_trainings_within_the_same_budget(pool: ArrayPool) -> None:
    found = [best(halved(pool, budget=120.0, seed=seed)).performance for seed in range(5)]
    full = [
        best(search(pool, Curves(), method="hnas:trace", queries=None, budget=108.0, seed=seed)).performance
        for seed in range(5)
    ]
    assert np.mean(found) >= np.mean(full) - 0.5
