"""Algorithm 1: the pool's minimiser, the loop around it, resuming from a saved history, and the optimiser inside."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hnas import HnasError, UsageError
from hnas.optim.algorithm import Search, best, search
from hnas.optim.evaluations import Evaluation, Query
from hnas.optim.methods.hnas import HNAS
from hnas.optim.methods.protocol import Proposal
from hnas.optim.objective import BOUNDS, SearchRange, objective
from hnas.optim.pools import ArrayPool
from hnas.optim.proposer import ACQUISITIONS, Optimiser, latin_hypercube

INF, NAN = math.inf, math.nan


def pool_of(archs: list[str], metric: np.ndarray, kappa: np.ndarray, classes: list[str] | None = None) -> ArrayPool:
    return ArrayPool(archs, {"trace": metric, "kappa": kappa}, classes)


class Bench:
    """A synthetic benchmark: names, metric, κ, and an accuracy that the two predict up to noise."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.archs = [f"arch{k:05d}" for k in rng.permutation(n)]
        size, condition, noise = rng.normal(size=(3, n))
        self.metric = np.exp(3 + 1.5 * size)
        self.kappa = 10 ** (2 + 0.5 * condition)
        self.kappa[rng.random(n) < 0.02] = INF
        # Accuracy rises with the metric up to a point and falls with κ; singular networks learn nothing.
        self.accuracy = 90 - 1.5 * (size - 0.8) ** 2 - 1.5 * condition + 1.0 * noise
        self.accuracy[np.isinf(self.kappa)] = 10
        self.table = dict(zip(self.archs, self.accuracy.tolist(), strict=True))
        self.asked: list[str] = []

    def pool(self) -> ArrayPool:
        return pool_of(self.archs, self.metric, self.kappa)

    def __call__(self, arch: str) -> float:
        self.asked.append(arch)
        return self.table[arch]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(200, 1)


def steps(queries: Sequence[Query]) -> list[tuple[object, ...]]:
    """Return the decisions of a search, without times."""
    return [(q.query, q.mu, q.nu, q.arch, q.objective, q.performance) for q in queries]


def query(number: int, performance: float, arch: str = "a") -> Query:
    return Query(number, arch, performance, 0.0, 0.0, 0.0)


# The pool.


@pytest.mark.parametrize(("mu", "q"), [(-3.0, 0.0), (0.0, 0.5), (1.0, 0.9), (3.0, 1.0)])
def test_solve_finds_the_minimiser_of_equation_7(bench: Bench, mu: float, q: float) -> None:
    scale, nu = SearchRange.of(bench.metric, bench.kappa).point(mu, q)
    solution = bench.pool().minimiser("trace").solve(mu=scale, nu=nu, t=1.0)
    value = objective(bench.metric, bench.kappa, mu=scale, nu=nu)
    assert solution == (bench.archs[int(np.argmin(value))], value.min())


def test_taken_architectures_are_excluded_until_none_is_left() -> None:
    pool = pool_of(["d", "b", "c", "a"], np.full(4, 2.0), np.array([2.0, 8.0, 4.0, INF])).minimiser("trace")
    order = []
    while (solution := pool.solve(mu=0.0, nu=0.0, t=1.0)) is not None:
        order.append(tuple(solution))
        pool.take(solution.arch)
    assert order == [("d", 1.0), ("c", 2.0), ("b", 4.0)]


@pytest.mark.parametrize("archs", [["b", "a", "c"], ["c", "b", "a"], ["a", "c", "b"]])
def test_ties_go_to_the_first_name_for_any_order_of_the_pool(archs: list[str]) -> None:
    pool = pool_of(archs, np.ones(3), np.ones(3)).minimiser("trace")
    order = []
    while (solution := pool.solve(mu=1.0, nu=1.0, t=1.0)) is not None:
        order.append(solution.arch)
        pool.take(solution.arch)
    assert order == ["a", "b", "c"]


def test_the_whole_class_of_an_evaluated_architecture_is_excluded() -> None:
    kappa = np.array([1.0, 3.0, 1.0, 2.0])
    pool = pool_of(["a", "b", "c", "d"], np.ones(4), kappa, classes=["x", "y", "x", "z"]).minimiser("trace")
    order = []
    while (solution := pool.solve(mu=1.0, nu=1.0, t=1.0)) is not None:
        order.append(solution.arch)
        pool.take(solution.arch)
    assert order == ["a", "d", "b"]


def test_the_order_of_the_pool_does_not_change_the_search(bench: Bench) -> None:
    turned = pool_of(bench.archs[::-1], bench.metric[::-1], bench.kappa[::-1])
    assert steps(search(turned, bench, queries=5)) == steps(search(bench.pool(), bench, queries=5))


def test_an_empty_pool_has_no_solution_and_cannot_be_searched() -> None:
    pool = pool_of([], np.array([]), np.array([]))
    assert pool.minimiser("trace").solve(mu=1.0, nu=1.0, t=1.0) is None
    with pytest.raises(UsageError, match="the pool has 0"):
        search(pool, lambda arch: 1.0)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(UsageError, match="one value of trace per name, got 3 for 2"):
        pool_of(["a", "b"], np.ones(3), np.ones(1))


def test_a_duplicate_name_in_the_pool_is_refused() -> None:
    """Excluding one of two rows would propose the other one forever."""
    with pytest.raises(UsageError, match="'a'"):
        pool_of(["a", "b", "a"], np.array([1.0, 3.0, 5.0]), np.ones(3))


# The search.


def test_a_search_proposes_distinct_architectures_that_minimise_equation_7(bench: Bench) -> None:
    queries = search(bench.pool(), bench, queries=8, t=0.5)
    assert [q.query for q in queries] == list(range(1, 9))
    taken: set[str] = set()
    for q in queries:
        value = objective(bench.metric, bench.kappa, mu=q.mu, nu=q.nu, t=0.5)
        value[[arch in taken for arch in bench.archs]] = INF
        assert (q.arch, q.objective) == (bench.archs[int(np.argmin(value))], value.min())
        assert q.performance == bench.table[q.arch]
        assert q.seconds >= 0
        assert q.own_seconds >= 0
        taken.add(q.arch)
    assert len(taken) == 8


def test_the_oracle_is_called_once_per_query_in_order(bench: Bench) -> None:
    bench.asked.clear()
    queries = search(bench.pool(), bench, queries=6)
    assert bench.asked == [q.arch for q in queries]


def test_a_query_is_reported_before_the_next_is_proposed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Watched(HNAS):
        def ask(self) -> Proposal | None:
            events.append("propose")
            return super().ask()

    def oracle(arch: str) -> float:
        events.append("ask")
        return bench.table[arch]

    reported: list[Query] = []

    def report(q: Query) -> None:
        events.append("report")
        reported.append(q)

    monkeypatch.setattr("hnas.optim.methods.hnas.HNAS", Watched)
    queries = search(bench.pool(), oracle, queries=3, on_query=report)
    assert events == ["propose", "ask", "report"] * 3
    assert reported == queries


def test_networks_with_infinite_kappa_are_never_proposed() -> None:
    small = Bench(12, 3)
    small.kappa[:5] = INF
    queries = search(small.pool(), small, queries=50)
    assert sorted(q.arch for q in queries) == sorted(
        arch for arch, kappa in zip(small.archs, small.kappa, strict=True) if np.isfinite(kappa)
    )
    assert len(queries) <= 7


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_a_resumed_search_makes_the_queries_of_an_uninterrupted_one(bench: Bench, acquisition: str) -> None:
    settings = {"acquisition": acquisition, "seed": 4, "t": 0.5}
    whole = search(bench.pool(), bench, queries=9, **settings)
    for split in (2, 5, 6, 8):
        bench.asked.clear()
        reported: list[Query] = []
        queries = search(bench.pool(), bench, queries=9, history=whole[:split], on_query=reported.append, **settings)
        assert steps(queries) == steps(whole), f"split after {split}"
        assert queries[:split] == whole[:split]
        assert bench.asked == [q.arch for q in whole[split:]], "the oracle is called for new queries only"
        assert reported == queries[split:]


def test_a_finished_history_is_returned_without_calling_the_oracle(bench: Bench) -> None:
    whole = search(bench.pool(), bench, queries=4)
    bench.asked.clear()
    assert search(bench.pool(), bench, queries=4, history=whole) == whole
    assert bench.asked == []


@pytest.mark.parametrize("position", [0, 3, 6])
def test_a_history_of_another_search_is_refused_naming_the_query(bench: Bench, position: int) -> None:
    history = search(bench.pool(), bench, queries=7)
    stranger = next(arch for arch in bench.archs if arch not in {q.arch for q in history})
    lead = history[position].arch
    history[position] = dataclasses.replace(history[position], arch=stranger)
    bench.asked.clear()
    with pytest.raises(HnasError, match=f"query {position + 1} .*{stranger}.*{lead}"):
        search(bench.pool(), bench, queries=10, history=history)
    assert bench.asked == []


def test_a_history_of_another_seed_is_refused(bench: Bench) -> None:
    history = search(bench.pool(), bench, queries=5, seed=0)
    with pytest.raises(HnasError, match="start a new search"):
        search(bench.pool(), bench, queries=6, seed=1, history=history)


class Spending:
    """A method whose next architecture depends on the costs that it was told, and which takes three seconds itself."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def ask(self) -> Proposal:
        return Proposal(f"arch{int(sum(self.told)):02d}", seconds=3.0, final=len(self.told) == 4)

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        self.told.append(cost)


def test_a_resumed_method_is_told_the_costs_of_the_evaluations_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of([f"arch{k:02d}" for k in range(50)], np.arange(50.0), np.ones(50))
    made: list[Spending] = []
    monkeypatch.setattr("hnas.optim.algorithm.make_method", lambda *_, **__: made.append(Spending()) or made[-1])

    def oracle(arch: str) -> Evaluation:
        return Evaluation(float(arch[4:]), 2.0)

    whole = search(pool, oracle, queries=6)
    assert [query.cost for query in whole] == [5.0] * 4 + [3.0, 5.0]
    again = search(pool, oracle, queries=6, history=whole[:5])
    assert [query.arch for query in again] == [query.arch for query in whole]
    assert made[0].told == made[1].told == [2.0] * 4 + [0.0, 2.0]


@pytest.mark.parametrize("answer", [NAN, INF, -INF])
def test_an_answer_that_is_not_finite_stops_the_search(bench: Bench, answer: float) -> None:
    reported: list[Query] = []
    with pytest.raises(HnasError, match=f"{answer}.*arch"):
        search(bench.pool(), lambda _: answer if reported else 50.0, queries=5, on_query=reported.append)
    assert len(reported) == 1


def test_oracle_errors_propagate_after_earlier_queries_are_reported(bench: Bench) -> None:
    expected = search(bench.pool(), bench, queries=7)
    reported: list[Query] = []

    def oracle(arch: str) -> float:
        if len(reported) == 6:
            raise HnasError(f"the machine that trains {arch} is on fire")
        return bench.table[arch]

    with pytest.raises(HnasError, match=f"{expected[6].arch} is on fire"):
        search(bench.pool(), oracle, queries=7, on_query=reported.append)
    assert steps(reported) == steps(expected[:6])
    assert steps(search(bench.pool(), bench, queries=7, history=reported)) == steps(expected)


def test_searches_are_reproducible_and_depend_on_the_seed(bench: Bench) -> None:
    one, again, other = (search(bench.pool(), bench, queries=7, seed=seed) for seed in (5, 5, 6))
    assert steps(one) == steps(again)
    assert steps(one) != steps(other)
    assert (one[0].mu, one[0].nu) != (other[0].mu, other[0].nu)


def test_a_search_does_not_touch_the_global_random_state(bench: Bench) -> None:
    np.random.seed(1)
    expected = np.random.rand(3).tolist()
    np.random.seed(1)
    search(bench.pool(), bench, queries=6)
    assert np.random.rand(3).tolist() == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "queries must be between 1 and 10000, got 0"),
        ({"queries": -3}, "queries must be .* got -3"),
        ({"queries": 10**6}, "queries must be .* got 1000000"),
        ({"queries": None}, "queries or a budget"),
        ({"budget": 0.0}, "budget must be a positive number of seconds, got 0"),
        ({"budget": NAN}, "budget must be .* got nan"),
        ({"method": "thompson"}, "search method 'thompson' is unknown"),
        ({"method": "hnas:"}, "no argument after the colon"),
        ({"method": "hnas:speed"}, "no column 'speed'"),
        ({"method": "random:trace"}, "random takes no argument"),
        ({"draws": 3}, "hnas has no option draws"),
        ({"method": "best-of:trace", "draws": NAN}, "draws must be .* got nan"),
        ({"method": "best-of:trace", "draws": 10**30}, "at most 10,000,000"),
        ({"t": "wide"}, "t .* got 'wide'"),
        ({"t": 0.0}, "t .* got 0"),
        ({"t": -1.0}, "t .* got -1"),
        ({"acquisition": "thompson"}, "'thompson'.*ucb, ei, poi"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_settings_are_refused_before_any_evaluation(
    bench: Bench, settings: dict[str, int | float | str], message: str
) -> None:
    bench.asked.clear()
    with pytest.raises(UsageError, match=message):
        search(bench.pool(), bench, **settings)
    assert bench.asked == []


def test_a_pool_without_two_finite_condition_numbers_is_refused() -> None:
    with pytest.raises(UsageError, match=r"at least 2 architectures .* the pool has 1"):
        search(pool_of(["a", "b"], np.ones(2), np.array([3.0, INF])), lambda arch: 1.0)


def test_best_is_the_earliest_of_the_highest_performances() -> None:
    queries = [query(1, 5.0), query(2, 9.0), query(3, 9.0), query(4, 7.0)]
    assert best(queries) is queries[1]
    assert best(queries[::-1]) is queries[1]
    assert best([query(1, -2.0), query(2, -1.0)]).query == 2
    with pytest.raises(UsageError, match="no query"):
        best([])


def test_twenty_queries_beat_twenty_random_draws() -> None:
    bench = Bench(2000, 0)
    draws = np.random.default_rng(0).choice(bench.accuracy, size=(500, 20))
    winners = []
    for seed in range(3):
        winner = best(search(bench.pool(), bench, queries=20, seed=seed)).performance
        assert winner > np.median(draws[seed]) + 3
        winners.append(winner)
    assert np.mean(winners) > draws.max(1).mean() + 0.5


def test_the_search_adapts_to_the_performances() -> None:
    """With inverted accuracies, the points after the first five go elsewhere."""
    bench = Bench(300, 2)
    up = search(bench.pool(), bench, queries=9)
    down = search(bench.pool(), lambda arch: -bench.table[arch], queries=9)
    assert [(q.mu, q.nu) for q in up[:5]] == [(q.mu, q.nu) for q in down[:5]]
    assert [(q.mu, q.nu) for q in up[5:]] != [(q.mu, q.nu) for q in down[5:]]


# Budgets, costs, and the ask-and-tell interface.


def test_a_budget_ends_with_the_query_that_exceeds_it(bench: Bench) -> None:
    def oracle(arch: str) -> Evaluation:
        return Evaluation(bench.table[arch], 10.0)

    for method in ("hnas:trace", "random"):
        assert len(search(bench.pool(), oracle, method=method, queries=None, budget=35.0)) == 4
        assert len(search(bench.pool(), oracle, method=method, queries=3, budget=35.0)) == 3
        assert len(search(bench.pool(), oracle, method=method, queries=9, budget=5.0)) == 1
    whole = search(bench.pool(), oracle, queries=None, budget=55.0)
    assert [q.cost for q in whole] == [10.0] * 6
    continued = search(bench.pool(), oracle, queries=None, budget=55.0, history=whole[:4])
    assert steps(continued) == steps(whole)


def test_the_default_cost_is_the_time_of_the_oracle(bench: Bench) -> None:
    (query,) = search(bench.pool(), bench, queries=1)
    assert query.cost == query.seconds > 0


@pytest.mark.parametrize("cost", [NAN, INF, -1.0])
def test_an_impossible_cost_stops_the_search(bench: Bench, cost: float) -> None:
    with pytest.raises(HnasError, match="seconds for arch"):
        search(bench.pool(), lambda arch: Evaluation(50.0, cost), queries=1)


@pytest.mark.parametrize("seconds", [NAN, INF, -1.0])
def test_a_method_cannot_charge_an_impossible_time(
    bench: Bench, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HNAS, "ask", lambda method: Proposal(bench.archs[0], seconds=seconds))
    with pytest.raises(HnasError, match=f"at least 0, got {seconds} seconds for {bench.archs[0]}"):
        Search(bench.pool(), "hnas:trace").ask()


def test_ask_and_tell_make_the_queries_of_search(bench: Bench) -> None:
    running = Search(bench.pool(), "hnas:trace", seed=3)
    while len(running.queries) < 8 and (proposal := running.ask()):
        running.tell(proposal, bench.table[proposal.arch])
    assert steps(running.queries) == steps(search(bench.pool(), bench, queries=8, seed=3))
    assert running.best == best(running.queries)


def test_each_proposal_is_told_exactly_once(bench: Bench) -> None:
    running = Search(bench.pool())
    proposal = running.ask()
    assert proposal is not None
    with pytest.raises(UsageError, match="other is not pending"):
        running.tell(Proposal("other"), 50.0)
    running.tell(proposal, 50.0)
    with pytest.raises(UsageError, match=f"{proposal.arch} is not pending"):
        running.tell(proposal, 50.0)


def test_random_search_draws_uniformly_with_replacement() -> None:
    pool = pool_of(["a", "b", "c", "d"], np.ones(4), np.full(4, INF))
    asked = [q.arch for q in search(pool, lambda arch: 1.0, method="random", queries=4000, seed=1)]
    assert all(900 < asked.count(arch) < 1100 for arch in "abcd")


def test_the_winner_is_among_the_longest_trainings() -> None:
    short, long = (Query(k, "a", p, 0.0, 0.0, 0.0, epochs=e) for k, p, e in ((1, 95.0, 1), (2, 90.0, 12)))
    assert best([short, long]) is long


def test_any_column_can_be_the_metric(bench: Bench) -> None:
    pool = ArrayPool(bench.archs, {"flops": bench.metric, "kappa": bench.kappa})
    asked = [q.arch for q in search(pool, bench, method="hnas:flops", queries=4)]
    assert asked == [q.arch for q in search(bench.pool(), bench, method="hnas:trace", queries=4)]
    with pytest.raises(UsageError, match=r"no column 'flop'.*did you mean 'flops'"):
        search(pool, bench, method="hnas:flop")


# The optimiser.


def run(optimiser: Optimiser, n: int, value: Callable[[dict[str, float]], float]) -> list[dict[str, float]]:
    points = []
    for _ in range(n):
        points.append(optimiser.suggest())
        optimiser.register(points[-1], value(points[-1]))
    return points


def bump(point: dict[str, float]) -> float:
    return -((point["log10_mu"] / 1.5 - 0.3) ** 2) - (point["nu_quantile"] - 0.7) ** 2


def test_an_unknown_acquisition_error_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'random'.*ucb, ei, poi"):
        Optimiser(seed=0, acquisition_name="random")


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_points_lie_within_the_bounds_and_are_reproducible(acquisition: str) -> None:
    points = run(Optimiser(seed=2, acquisition_name=acquisition), 9, bump)
    for point in points:
        assert point.keys() == BOUNDS.keys()
        assert all(low <= point[name] <= high for name, (low, high) in BOUNDS.items())
        assert all(type(value) is float for value in point.values())
    assert run(Optimiser(seed=2, acquisition_name=acquisition), 9, bump) == points
    assert run(Optimiser(seed=3, acquisition_name=acquisition), 9, bump) != points


def test_the_first_five_points_are_a_latin_hypercube() -> None:
    points = run(Optimiser(seed=0), 5, bump)
    for name, (low, high) in BOUNDS.items():
        fifths = sorted(int(5 * (point[name] - low) / (high - low)) for point in points)
        assert fifths == [0, 1, 2, 3, 4]


def test_the_optimiser_converges_to_a_maximum() -> None:
    values = [bump(point) for point in run(Optimiser(seed=1, acquisition_name="ei"), 14, bump)]
    assert max(values[5:]) > max(values[:5])
    assert max(values) > -0.03


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_nothing_is_printed_for_duplicate_points(acquisition: str, capfd: pytest.CaptureFixture[str]) -> None:
    optimiser = Optimiser(seed=0, acquisition_name=acquisition)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        points = run(optimiser, 7, bump)
        for point in points + points:
            optimiser.register(point, bump(point))
        run(optimiser, 2, lambda _: 1.0)
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)] == []


def test_the_optimiser_works_with_equal_values() -> None:
    points = run(Optimiser(seed=0), 8, lambda _: 50.0)
    assert all(math.isfinite(value) for point in points for value in point.values())


@pytest.mark.parametrize(("n", "d", "seed"), [(5, 2, 0), (5, 2, 2**40), (1, 3, 1), (17, 4, 5)])
def test_the_first_points_match_scipy(n: int, d: int, seed: int) -> None:
    from scipy.stats import qmc

    expected = qmc.LatinHypercube(d=d, rng=np.random.default_rng(seed)).random(n)
    assert np.array_equal(latin_hypercube(n, d, np.random.default_rng(seed)), expected)


# The Pareto front of two objectives.


def test_with_minimise_each_query_solves_eq_7_within_a_limit(bench: Bench) -> None:
    size = np.random.default_rng(3).permutation(len(bench.archs)).astype(float)
    size[:3] = NAN  # missing values are never proposed
    pool = ArrayPool(bench.archs, {"trace": bench.metric, "kappa": bench.kappa, "size": size})
    queries = search(pool, bench, queries=12, minimise="size", seed=2)
    of = dict(zip(bench.archs, size.tolist(), strict=True))
    usable = np.sort(size[np.isfinite(size) & np.isfinite(bench.kappa)])
    place, taken = float(np.random.default_rng([2, 1]).random()), []
    for query in queries:
        place = (place + (5**0.5 - 1) / 2) % 1
        limit = usable[max(1, int(place * len(usable)))]
        value = objective(bench.metric, bench.kappa, mu=query.mu, nu=query.nu)
        value[[arch in taken or not of[arch] <= limit for arch in bench.archs]] = INF
        assert query.arch == bench.archs[int(np.argmin(value))]
        taken.append(query.arch)
    assert steps(search(pool, bench, queries=12, minimise="size", seed=2, history=queries[:5])) == steps(queries)


def test_when_all_within_a_limit_are_taken_others_follow() -> None:
    small = Bench(12, 5)
    pool = ArrayPool(small.archs, {"trace": small.metric, "kappa": small.kappa, "size": np.zeros(12)})
    found = search(pool, small, queries=50, minimise="size")
    assert len({query.arch for query in found}) == len(found) == np.isfinite(small.kappa).sum()
