"""Failed evaluations cost a query but do not end the search: with every method, with budgets, and after resuming."""

from __future__ import annotations

import math

import pytest

from hnas import HnasError, Search
from hnas.optim.algorithm import Evaluation, EvaluationError, best, search
from hnas.optim.pools import Pool
from tests.support.cells_bench import accuracy
from tests.support.columns_bench import columns_pool

METHODS = (
    "authors", "best-of:params", "bohb", "halving:trace", "hnas", "local-search", "random", "rea", "regressor",
    "reinforce", "robot:trace+snip", "top:params", "zero-cost", "zero-cost-move", "zero-cost-warmup",
)  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Pool:
    return columns_pool()


class Flaky:
    """Fails for about a third of the architectures, chosen by name, and always for the first one."""

    def __init__(self) -> None:
        self.first = True

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        if self.first or sum(arch.encode()) % 3 == 0:
            self.first = False
            raise EvaluationError(f"no accuracy of {arch}", 7.0, "the end", 3)
        return Evaluation(accuracy(arch), 10.0, "fine", 0)


@pytest.mark.parametrize("method", METHODS)
def test_failed_evaluations_cost_a_query_never_win_and_are_replayed(method: str, pool: Pool) -> None:
    options = {"method": method, "queries": None, "budget": 150.0, "epochs": 12}
    whole = search(pool, Flaky(), **options)
    failed = [query for query in whole if query.failure is not None]
    assert failed[0] is whole[0]
    assert {(q.cost, q.output, q.exit_status) for q in failed} == {(7.0, "the end", 3)}
    assert all(math.isnan(query.performance) for query in failed)
    if method == "best-of:params":  # evaluates only one
        with pytest.raises(HnasError, match=r"the only evaluation failed, .* no winner; the last: no accuracy of"):
            best(whole)
        return
    if method != "halving:trace":  # ends when one is fully trained
        assert 140 <= sum(query.cost for query in whole[:-1]) <= 150 < sum(query.cost for query in whole)
    assert best(whole).failure is None
    oracle = Flaky()
    oracle.first = False
    again = search(pool, oracle, history=whole[:5], **options)
    assert [(q.arch, q.failure) for q in again] == [(q.arch, q.failure) for q in whole]


def test_failures_count_as_the_worst_performance_so_far(pool: Pool) -> None:
    running = Search(pool, "random")
    reported: list[float] = []
    running._method.tell = lambda proposal, performance, cost: reported.append(performance)  # type: ignore[method-assign]
    for performance in (None, 80.0, 70.0, 90.0, None):
        proposal = running.ask()
        assert proposal is not None
        running.tell(proposal, performance or math.nan, failure=None if performance else "it failed")
    assert reported == [0.0, 80.0, 70.0, 90.0, 70.0]
    assert running.best.performance == 90.0
