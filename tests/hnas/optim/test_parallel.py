"""Concurrent evaluations: no class is pending twice, results may arrive in any order, and searches resume exactly."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hnas import ArrayPool, Evaluation, HnasError, Query, Search, UsageError
from hnas.optim.algorithm import search
from hnas.optim.methods.protocol import Proposal
from tests.support.cells_bench import SPACE, accuracy

CELLS = SPACE.sample(300, seed=3)
ASYNCHRONOUS = [
    *("authors", "best-of", "hnas", "knas", "random", "rea", "regressor", "reinforce", "top"),
    *("zero-cost", "zero-cost-move", "zero-cost-warmup"),
]
ONE_ANSWER = ["naswot", "gradsign"]  # and it is not evaluated
ARGUMENTS = {"top": "top:params", "best-of": "best-of:params"}


def pool_of(archs: list[str]) -> ArrayPool:
    random = np.random.default_rng(len(archs))
    names = ("trace", "kappa", "params", "flops", "grad_norm", "snip", "grasp", "naswot", "gradsign", "knas")
    columns = {name: np.exp(random.normal(size=len(archs))) for name in names}
    return ArrayPool(archs, columns, [SPACE.canonical(arch) for arch in archs], SPACE)


@pytest.fixture(scope="module")
def pool() -> ArrayPool:
    return pool_of(CELLS)


def cost(arch: str) -> float:
    """Return between 1 and 10 seconds, so that results arrive in another order than the proposals."""
    return 1 + 9 * (hash_of(arch) % 97) / 97


def hash_of(arch: str) -> int:
    return sum((i + 1) * ord(letter) for i, letter in enumerate(arch))


def oracle(arch: str, epochs: int | None = None) -> Evaluation:
    return Evaluation(accuracy(arch), cost(arch) * (epochs or 12) / 12)


def steps(queries: list[Query]) -> list[Query]:
    """Return the queries without measured times."""
    return [dataclasses.replace(query, seconds=0.0, own_seconds=0.0) for query in queries]


@pytest.mark.parametrize("method", [*ASYNCHRONOUS, *ONE_ANSWER, "robot", "bohb", "local-search"])
def test_no_class_is_pending_twice_and_a_stopped_search_resumes_exactly(method: str, pool: ArrayPool) -> None:
    settings = {"method": ARGUMENTS.get(method, method), "epochs": 12, "seed": 1, "parallel": 4}
    whole = search(pool, oracle, queries=11, **settings)
    assert len({query.asked for query in whole}) == len(whole)
    for one, other in itertools.combinations(whole, 2):
        # While it is pending, each query is the only one of its class.
        if one.asked is not None and other.asked is not None and one.asks is not None and other.asked <= one.asks:
            assert SPACE.canonical(one.arch) != SPACE.canonical(other.arch)
    for split in (min(2, len(whole)), len(whole) - 1):
        asked: list[str] = []

        def watched(arch: str, epochs: int | None = None, asked: list[str] = asked) -> Evaluation:
            asked.append(arch)
            return oracle(arch, epochs)

        again = search(pool, watched, queries=11, history=whole[:split], **settings)
        assert steps(again) == steps(whole), f"stopped after {split}"
        assert sorted(asked) == sorted(query.arch for query in whole[split:]), "known results are not evaluated again"


@pytest.mark.parametrize("method", ASYNCHRONOUS)
def test_asynchronous_methods_keep_all_workers_busy(method: str, pool: ArrayPool) -> None:
    queries = search(
        pool, lambda arch, epochs=None: Evaluation(accuracy(arch), 10.0), method=ARGUMENTS.get(method, method),
        queries=12, epochs=12, parallel=4,
    )  # fmt: skip
    times = [query.elapsed for query in queries]
    assert times == [10.0 * (k // 4 + 1) for k in range(len(queries))]


def test_the_clock_of_a_search_simulates_concurrent_evaluations() -> None:
    costs = {"a": 5.0, "b": 2.0, "c": 2.0, "d": 4.0}
    pool = ArrayPool(list(costs), {"size": [4.0, 3.0, 2.0, 1.0]})
    queries = search(pool, lambda a: Evaluation(50.0, costs[a]), method="top:size", queries=4, parallel=2)
    assert [(q.arch, q.elapsed) for q in queries] == [("b", 2.0), ("c", 4.0), ("a", 5.0), ("d", 8.0)]
    assert [(q.asked, q.asks) for q in queries] == [(2, 2), (3, 3), (1, 4), (4, 4)]
    alone = search(pool, lambda a: Evaluation(50.0, costs[a]), method="top:size", queries=4)
    assert [(q.asked, q.asks, q.elapsed) for q in alone] == [(1, 1, 5.0), (2, 2, 7.0), (3, 3, 9.0), (4, 4, 13.0)]


def test_methods_are_sequential_by_default(pool: ArrayPool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ascending:
        def __init__(self, pool: ArrayPool, argument: str | None, *, seed: int, epochs: int | None = None) -> None:
            self._left, self._pending = list(pool.archs), 0

        def ask(self) -> Proposal:
            assert not self._pending
            self._pending += 1
            return Proposal(self._left.pop(0))

        def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
            self._pending -= 1

    monkeypatch.setattr("hnas.optim.methods.random.Random", Ascending)
    queries = search(pool, oracle, method="random", queries=5, parallel=3)
    assert [query.elapsed for query in queries] == pytest.approx(np.cumsum([query.cost for query in queries]))


def test_bohb_promotes_only_from_complete_rungs(pool: ArrayPool) -> None:
    queries = search(pool, oracle, method="bohb", epochs=9, queries=40, parallel=4)
    assert {query.epochs for query in queries} == {1, 3, 9}
    first = [query for query in queries if query.epochs == 1]
    later = next(query for query in queries if query.epochs == 3)
    assert later.asks is not None
    assert len([query for query in first if query.query < later.query]) == 9


def test_a_class_waits_while_another_member_is_pending() -> None:
    pool = ArrayPool(["a", "b", "c"], {}, ["x", "x", "y"])
    running = Search(pool, "random", seed=0)
    asked = [running.ask() for _ in range(4)]
    kept = [proposal for proposal in asked if proposal is not None]
    assert sorted(proposal.arch in "ab" for proposal in kept) == [False, True]
    running.tell(kept[0], 50.0)
    again = running.ask()
    assert again is not None
    assert (again.arch in "ab") == (kept[0].arch in "ab")


def test_results_may_arrive_in_any_order(pool: ArrayPool) -> None:
    running = Search(pool, "hnas:trace", seed=0)
    asked = [running.ask() for _ in range(7)]
    for proposal in reversed(asked):
        assert proposal is not None
        running.tell(proposal, accuracy(proposal.arch))
    resumed = Search(pool, "hnas:trace", seed=0)
    for query in running.queries:
        resumed.replay(query)
    one, other = running.ask(), resumed.ask()
    assert one == other


def test_running_evaluations_still_count_after_the_budget_is_exceeded(pool: ArrayPool) -> None:
    def even(arch: str) -> Evaluation:
        return Evaluation(50.0, 10.0)

    queries = search(pool, even, method="random", queries=None, budget=35.0, parallel=3)
    assert len(queries) == 6
    assert [query.elapsed for query in queries] == [10.0] * 3 + [20.0] * 3
    assert steps(search(pool, even, method="random", queries=None, budget=35.0, history=queries[:5], parallel=3)) == (
        steps(queries)
    )


@pytest.mark.parametrize("pending", [(1, 0), (5, 2), (10**9, 3)])
def test_an_impossible_history_is_refused(pool: ArrayPool, pending: tuple[int, int]) -> None:
    asks, asked = pending
    history = [dataclasses.replace(search(pool, oracle, method="local-search", queries=1)[0], asks=asks, asked=asked)]
    with pytest.raises(HnasError, match="start a new search"):
        search(pool, oracle, method="local-search", queries=4, history=history, parallel=4)


@pytest.mark.parametrize("parallel", [0, -1, 1025])
def test_impossible_numbers_of_parallel_evaluations_are_refused(pool: ArrayPool, parallel: int) -> None:
    with pytest.raises(UsageError, match=f"parallel evaluations must be between 1 and 1024, got {parallel}"):
        search(pool, oracle, parallel=parallel)


def test_an_executor_runs_the_evaluations_and_its_errors_propagate(pool: ArrayPool) -> None:
    reported: list[Query] = []
    with ThreadPoolExecutor(3) as executor:
        queries = search(pool, oracle, queries=9, parallel=3, executor=executor, on_query=reported.append)
        assert queries == reported
        assert {(query.arch, query.performance) for query in queries} <= {(a, accuracy(a)) for a in pool.archs}
        again = search(pool, oracle, queries=12, parallel=3, executor=executor, history=queries[:4])
        assert again[:4] == queries[:4]

        def broken(arch: str) -> float:
            raise HnasError(f"the machine that trains {arch} is on fire")

        with pytest.raises(HnasError, match="on fire"):
            search(pool, broken, queries=9, parallel=3, executor=executor)


def test_an_executor_with_one_worker_makes_the_same_search(pool: ArrayPool) -> None:
    with ThreadPoolExecutor(2) as executor:
        assert steps(search(pool, oracle, queries=8, executor=executor)) == steps(search(pool, oracle, queries=8))


def pending_of(running: Search) -> list[str]:
    return [asked.proposal.arch for asked in running.pending]


def test_a_search_lists_its_pending_proposals(pool: ArrayPool) -> None:
    running = Search(pool, "rea", seed=0)
    first, second = running.ask(), running.ask()
    assert first is not None and second is not None  # noqa: PT018
    assert pending_of(running) == [first.arch, second.arch]
    running.tell(first, 50.0)
    assert pending_of(running) == [second.arch]
