"""NASWOT, GradSign and KNAS with made-up scores, against a plain computation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hnas import ArrayPool, Search, UsageError, search
from hnas.optim.algorithm import Evaluation, Query

N = 60
ARCHS = [f"a{i:02d}" for i in range(N)]
RANDOM = np.random.default_rng(5)
SCORE = RANDOM.integers(0, 20, N).astype(float)  # with ties
SCORE[RANDOM.random(N) < 0.2] = np.nan
SECONDS = RANDOM.random(N)
ACCURACY = dict(zip(ARCHS, (90 + RANDOM.random(N)).tolist(), strict=True))


def pool(**columns: np.ndarray) -> ArrayPool:
    return ArrayPool(ARCHS, columns)


def draw_positions(seed: int, draws: int) -> list[int]:
    return np.random.default_rng(seed).integers(N, size=draws).tolist()


def by_score(positions: list[int]) -> list[int]:
    order = sorted(positions, key=lambda i: math.inf if np.isnan(SCORE[i]) else -SCORE[i])
    return list(dict.fromkeys(order))


def oracle(arch: str, epochs: int | None = None) -> Evaluation:
    return Evaluation(ACCURACY[arch] - (0 if epochs is None else 20), 100.0)


@pytest.mark.parametrize(("name", "draws"), [("naswot", 1000), ("gradsign", 100), ("naswot", 7)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_draw_is_charged_all_scores_and_no_evaluation(name: str, draws: int, seed: int) -> None:
    given = {name: SCORE, f"{name}_seconds": SECONDS}
    options = {} if draws in (1000, 100) else {"draws": draws}
    (query,) = search(pool(**given), oracle, method=name, seed=seed, **options)
    positions = draw_positions(seed, draws)
    assert query.arch == ARCHS[by_score(positions)[0]]
    assert query.performance == ACCURACY[query.arch]
    assert query.cost == pytest.approx(sum(SECONDS[i] for i in positions))


def test_another_column_can_replace_the_score_and_missing_times_are_free() -> None:
    (query,) = search(pool(zico=SCORE), oracle, method="naswot:zico", seed=2)
    assert (query.arch, query.cost) == (ARCHS[by_score(draw_positions(2, 1000))[0]], 0.0)
    (query,) = search(pool(zico=SCORE, zico_seconds=SECONDS), oracle, method="naswot:-zico", seed=2)
    assert query.cost == pytest.approx(sum(SECONDS[i] for i in draw_positions(2, 1000)))
    with pytest.raises(UsageError, match="no column 'gradsign'"):
        Search(pool(zico=SCORE), "gradsign")


@pytest.mark.parametrize(
    ("epochs", "asked"), [(200, 20), (20, None), (12, None), (None, None)], ids=["200", "20", "12", "none"]
)
def test_knas_evaluates_the_best_draws_at_epoch_20(epochs: int | None, asked: int | None) -> None:
    given = pool(knas=SCORE, knas_seconds=SECONDS)
    queries = search(given, oracle, method="knas", seed=1, epochs=epochs, queries=None, budget=1e9, k=10)
    positions = draw_positions(1, 300)
    assert [q.arch for q in queries] == [ARCHS[i] for i in by_score(positions)[:10]]
    assert {q.epochs for q in queries} == {asked}
    assert sum(q.cost for q in queries) == pytest.approx(1000 + sum(SECONDS[i] for i in positions))


def test_knas_uses_the_signal_if_the_pool_has_no_other_epochs() -> None:
    given = pool(knas=SCORE)
    given.knows = lambda epochs: False  # type: ignore[attr-defined]
    queries = search(given, oracle, method="knas", seed=1, epochs=200, queries=3)
    assert [q.epochs for q in queries] == [None] * 3


@pytest.mark.parametrize("method", ["naswot", "knas"])
def test_a_resumed_search_repeats_its_queries_and_pays_for_scores_once(method: str) -> None:
    def run(queries: int, history: list[Query] | None = None) -> list[Query]:
        columns = {"naswot": SCORE, "knas": SCORE, f"{method}_seconds": SECONDS}
        return search(pool(**columns), oracle, method=method, seed=3, queries=queries, history=history or ())

    whole = run(5)
    resumed = run(5, run(1))
    key: Callable[[Query], object] = lambda q: (q.arch, q.cost, q.performance)  # noqa: E731
    assert list(map(key, whole)) == list(map(key, resumed))
