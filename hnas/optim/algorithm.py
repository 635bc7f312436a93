"""The loop that every search method shares: ask for an architecture, evaluate it, tell its performance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from hnas.errors import HnasError, UsageError, check_seed
from hnas.optim.evaluations import Asked, Evaluation, EvaluationError, Oracle, Query, Simulated, Submitted
from hnas.optim.methods.protocol import Proposal
from hnas.optim.methods.registry import make_method, parallel_of
from hnas.optim.methods.warm import warm_up
from hnas.optim.pools import Pool

__all__ = ["Evaluation", "EvaluationError", "Oracle", "Query", "Search", "best", "search"]

#: The most queries that a search makes, and the most evaluations at a time.
MOST_QUERIES, MOST_PARALLEL = 10_000, 1024
# Proposals of the classes of pending ones, which wait for these to be told.
_MOST_HELD = 32


class Search:
    """A search whose evaluations are somebody else's loop.

    >>> from hnas import ArrayPool, Search
    >>> pool = ArrayPool(["a", "b", "c"], {"trace": [1.0, 2.0, 3.0], "kappa": [10.0, 20.0, 40.0]})
    >>> search = Search(pool, "hnas:trace", seed=0)
    >>> for _ in range(3):
    ...     proposal = search.ask()
    ...     query = search.tell(proposal, {"a": 90.1, "b": 92.5, "c": 91.3}[proposal.arch])
    >>> search.best.arch, search.best.performance
    ('b', 92.5)

    Several architectures are evaluated side by side by asking for more before the first is told.
    """

    def __init__(
        self,
        pool: Pool,
        method: str = "hnas:trace",
        *,
        seed: int = 0,
        epochs: int | None = None,
        known: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        """Start `method`, such as `hnas:trace` or `rea`, over `pool`. `epochs` are the most that it may ask for.

        `known` are performances of architectures on any scale, for a warm start (`hnas.optim.methods.warm`). Raises
        `UsageError` for an unknown method, and one that the pool or the warm start does not suit.
        """
        check_seed(seed)
        self._pool, self._method = pool, make_method(method, pool, seed=seed, epochs=epochs, **options)
        if known is not None:
            warm_up(self._method, method.partition(":")[0], pool, known)
        self._sequential = parallel_of(method.partition(":")[0]) == "sequential"
        self.queries: list[Query] = []
        #: What was asked for and is not told yet, in that order.
        self.pending: list[Asked] = []
        #: Seconds since the search began, by the costs of its evaluations.
        self.clock = 0.0
        self._held: list[Proposal] = []
        self._asks = 0
        self._waiting = False

    def ask(self) -> Proposal | None:
        """The next architecture to evaluate, also while others are pending: one of another class than theirs.

        None where nothing is to be asked before one of them is told; where none is pending, nothing is left.
        """
        if self._waiting:
            return None
        begun = time.perf_counter()
        self._asks += 1
        proposal = self._next()
        self._waiting = proposal is None
        if proposal is not None:
            self.clock += proposal.seconds
            self.pending.append(Asked(proposal, self._asks, self.clock, time.perf_counter() - begun))
        return proposal

    def _next(self) -> Proposal | None:
        busy = {self._class(asked.proposal.arch) for asked in self.pending}
        for held in self._held:
            if self._class(held.arch) not in busy:
                self._held.remove(held)
                return held
        if self.pending and self._sequential:
            return None
        while len(self._held) < _MOST_HELD:
            proposal = self._method.ask()
            if proposal is None or not busy or self._class(proposal.arch) not in busy:
                return proposal
            self._held.append(proposal)
        return None

    def _class(self, arch: str) -> int | str:
        position = self._pool.position(arch)
        return arch if position is None else int(self._pool.classes[position])

    def tell(
        self,
        proposal: Proposal,
        performance: float,
        *,
        cost: float = 0.0,
        seconds: float = 0.0,
        failure: str | None = None,
        output: str | None = None,
        exit_status: int | None = None,
    ) -> Query:
        """Take the `performance` of what `ask` gave, in percent, its `cost` and the wall time of its evaluation.

        Where there is a `failure`, the performance is NaN and never wins; the method is told the worst so far, or 0.
        Raises `UsageError` where it is not pending, `HnasError` where the performance or cost is not finite.
        """
        asked = next((asked for asked in self.pending if asked.proposal is proposal), None)
        if asked is None:
            raise UsageError(f"{proposal.arch} is not what was asked for and is pending; tell each proposal once")
        if failure is not None:
            performance = math.nan
        elif not math.isfinite(performance):
            raise HnasError(f"the oracle answered {performance} for {proposal.arch}; a finite number is needed")
        if not 0 <= cost < math.inf:
            raise HnasError(f"the oracle charged {cost} seconds for {proposal.arch}; a finite number is needed")
        begun = time.perf_counter()
        # A method learns from every query, and compares the numbers: one far below all others would be all it sees.
        worst = min((query.performance for query in self.queries if query.failure is None), default=0.0)
        self._method.tell(proposal, performance if failure is None else worst, cost)
        own = asked.own_seconds + time.perf_counter() - begun
        self.pending.remove(asked)
        self._waiting = False
        self.clock = max(self.clock, asked.end(cost))
        cost = proposal.seconds + (0.0 if proposal.final else cost)
        query = Query(
            len(self.queries) + 1, proposal.arch, performance, cost, seconds, own, proposal.epochs, proposal.mu,
            proposal.nu, proposal.objective, failure, output, exit_status, asked.number, self._asks, self.clock,
        )  # fmt: skip
        self.queries.append(query)
        return query

    def replay(self, query: Query) -> None:
        """Make `query` of an earlier search again without evaluating it, after the questions that came before it.

        Raises `HnasError` where the method asks for another architecture than it did.
        """
        asks, number = (query.query if n is None else n for n in (query.asks, query.asked))  # older: one at a time
        while self._asks < asks and not self._waiting:
            self.ask()
        asked = next((asked.proposal for asked in self.pending if asked.number == number), None)
        if asked is None or (asked.arch, asked.epochs) != (query.arch, query.epochs):
            raise HnasError(
                f"query {query.query} of the saved search evaluated {query.arch}, but these settings and this pool "
                f"lead to {asked.arch if asked else 'none'}; the run or the settings have changed, so start a "
                "new search"
            )
        self.tell(asked, query.performance, cost=query.cost, failure=query.failure)
        self.queries[-1] = query
        self.clock = self.clock if query.elapsed is None else query.elapsed

    @property
    def best(self) -> Query:
        """The winner so far. Raises `UsageError` where there is no query."""
        return best(self.queries)


def search(
    pool: Pool,
    oracle: Oracle,
    *,
    method: str = "hnas:trace",
    queries: int | None = 20,
    budget: float | None = None,
    seed: int = 0,
    epochs: int | None = None,
    history: Sequence[Query] = (),
    on_query: Callable[[Query], None] = lambda _: None,
    parallel: int = 1,
    executor: Executor | None = None,
    known: Mapping[str, float] | None = None,
    **options: Any,
) -> list[Query]:
    """Run `method` until it made `queries`, or the query that passes the `budget` in seconds, and return all of them.

    `on_query` is called after each query, before the next begins: the place to save it. With the `history` of an
    earlier call (same pool, method, seed, options) the search goes on as if it had never stopped: the old queries are
    replayed without asking the oracle. Ends early when nothing is left to ask. `best` picks the winner. `known`
    performances, on any scale, are a warm start.

    With `parallel` evaluations at a time the next architecture is asked for as soon as one of them is told; what is
    under way when the budget is passed is still told. An `executor` makes the evaluations, of an oracle that it can
    carry there. Without one they are made here, one after another, and told in the order in which they would have ended
    side by side, by their costs.

    Raises `UsageError` for impossible settings and pools, `HnasError` where the history is not of this search, and what
    the oracle raises.

    >>> from hnas import ArrayPool, best, search
    >>> pool = ArrayPool(["a", "b", "c"], {"trace": [1.0, 2.0, 3.0], "kappa": [10.0, 20.0, 40.0]})
    >>> queries = search(pool, {"a": 90.1, "b": 92.5, "c": 91.3}.__getitem__, queries=3, seed=0)
    >>> best(queries).arch, best(queries).performance
    ('b', 92.5)
    """
    check_limits(queries, budget, parallel)
    most = MOST_QUERIES if queries is None else queries
    running = Search(pool, method, seed=seed, epochs=epochs, known=known, **options)
    spent = 0.0
    for query in history[:most]:
        under_way = query.asked in [asked.number for asked in running.pending]
        if budget is not None and spent > budget and not under_way:
            break
        running.replay(query)
        spent += query.cost
    evaluations = Simulated(oracle) if executor is None else Submitted(oracle, executor)
    with evaluations:
        for asked in running.pending:  # when an earlier search was stopped
            evaluations.begin(asked)
        while len(running.queries) < most:
            while (
                len(running.pending) < parallel
                and len(running.queries) + len(running.pending) < most
                and (budget is None or spent <= budget)
                and running.ask() is not None
            ):
                evaluations.begin(running.pending[-1])
            if not running.pending:
                break
            for asked, evaluation in evaluations.ended():
                told = running.tell(asked.proposal, **evaluation)
                spent += told.cost
                on_query(told)
    return running.queries


def check_limits(queries: int | None, budget: float | None, parallel: int = 1) -> None:
    """Raise `UsageError` unless a search with these limits makes at least one query and ends."""
    for name, value in (("parallel", parallel), ("queries", queries)):
        if value is not None and not isinstance(value, int):
            raise UsageError(f"{name} is {value!r:.100}; give a whole number")
    if budget is not None and not isinstance(budget, int | float):
        raise UsageError(f"budget is {budget!r:.100}; give a number of seconds")
    if not 1 <= parallel <= MOST_PARALLEL:
        raise UsageError(f"{parallel} evaluations at a time cannot be; ask for 1 to {MOST_PARALLEL}")
    if queries is None and budget is None:
        raise UsageError("a search needs a number of queries or a budget in seconds")
    if queries is not None and not 1 <= queries <= MOST_QUERIES:
        raise UsageError(f"{queries} queries cannot be; ask for 1 to {MOST_QUERIES}")
    if budget is not None and not 0 < budget < math.inf:
        raise UsageError(f"a budget of {budget:g} seconds cannot be; give a positive number")


def best(queries: Sequence[Query]) -> Query:
    """The query with the highest performance of the longest trainings, the earliest among equals.

    One that failed never wins. Raises `UsageError` where there is none, `HnasError` where all failed.
    """
    if not queries:
        raise UsageError("the search made no query, so it has no winner")
    found = [q for q in queries if q.failure is None]
    if not found:
        which = "the only evaluation" if len(queries) == 1 else f"all {len(queries)} evaluations"
        raise HnasError(f"{which} failed, so the search has no winner; the last: {queries[-1].failure}")
    longest = max(math.inf if q.epochs is None else q.epochs for q in found)
    of_longest = [q for q in found if (math.inf if q.epochs is None else q.epochs) == longest]
    return max(of_longest, key=lambda q: (q.performance, -q.query))
