"""The loop that all search methods share: ask for an architecture, evaluate it, tell its performance."""

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

#: The maximum number of queries of a search, and of concurrent evaluations.
MOST_QUERIES, MOST_PARALLEL = 10_000, 1024
# Maximum number of proposals that are held back because another architecture of their class is pending.
_MOST_HELD = 32


class Search:
    """A search with an ask-and-tell interface, for an evaluation loop of your own.

    >>> from hnas import ArrayPool, Search
    >>> pool = ArrayPool(["a", "b", "c"], {"trace": [1.0, 2.0, 3.0], "kappa": [10.0, 20.0, 40.0]})
    >>> search = Search(pool, "hnas:trace", seed=0)
    >>> for _ in range(3):
    ...     proposal = search.ask()
    ...     query = search.tell(proposal, {"a": 90.1, "b": 92.5, "c": 91.3}[proposal.arch])
    >>> search.best.arch, search.best.performance
    ('b', 92.5)

    For concurrent evaluations, ask for several architectures before telling the first.
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
        """Start `method`, such as `hnas:trace` or `rea`, over `pool`. `epochs` is the maximum that it may ask for.

        `known` are performances of architectures on any scale, for a warm start (`hnas.optim.methods.warm`). Raises
        `UsageError` for an unknown method, and for one that does not suit the pool or the warm start.
        """
        check_seed(seed)
        self._pool, self._method = pool, make_method(method, pool, seed=seed, epochs=epochs, **options)
        if known is not None:
            warm_up(self._method, method.partition(":")[0], pool, known)
        self._sequential = parallel_of(method.partition(":")[0]) == "sequential"
        self.queries: list[Query] = []
        #: Proposals asked for and not told yet, in this order.
        self.pending: list[Asked] = []
        #: Simulated seconds since the start of the search, by the costs of its evaluations.
        self.clock = 0.0
        self._held: list[Proposal] = []
        self._asks = 0
        self._waiting = False

    def ask(self) -> Proposal | None:
        """Return the next architecture to evaluate, of another class than all pending ones.

        None where the method must be told a pending performance first, or, if none is pending, where nothing is left.
        """
        if self._waiting:
            return None
        begun = time.perf_counter()
        self._asks += 1
        proposal = self._next()
        self._waiting = proposal is None
        if proposal is not None:
            if not 0 <= proposal.seconds < math.inf:
                raise HnasError(
                    f"the method must charge a finite time of at least 0, got {proposal.seconds} seconds for "
                    f"{proposal.arch}"
                )
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
        """Record the `performance` of a proposal in percent, its `cost`, and the wall time of its evaluation.

        After a `failure` the performance is NaN and never wins; the method learns the worst performance so far, or 0.
        Raises `UsageError` for a proposal that is not pending, `HnasError` for a performance or cost that is not
        finite.
        """
        asked = next((asked for asked in self.pending if asked.proposal is proposal), None)
        if asked is None:
            raise UsageError(f"{proposal.arch} is not pending; tell each proposal exactly once, the very object of ask")
        if failure is not None:
            performance = math.nan
        elif not math.isfinite(performance):
            raise HnasError(f"the oracle must return a finite performance, got {performance} for {proposal.arch}")
        if not 0 <= cost < math.inf:
            raise HnasError(
                f"the oracle must return a finite cost of at least 0, got {cost} seconds for {proposal.arch}"
            )
        begun = time.perf_counter()
        # Methods compare values, so one far below all others would hide every other difference.
        worst = min((query.performance for query in self.queries if query.failure is None), default=0.0)
        cost = 0.0 if proposal.final else cost
        self._method.tell(proposal, performance if failure is None else worst, cost)
        own = asked.own_seconds + time.perf_counter() - begun
        self.pending.remove(asked)
        self._waiting = False
        self.clock = max(self.clock, asked.end(cost))
        query = Query(
            len(self.queries) + 1, proposal.arch, performance, proposal.seconds + cost, seconds, own, proposal.epochs,
            proposal.mu, proposal.nu, proposal.objective, failure, output, exit_status, asked.number, self._asks,
            self.clock,
        )  # fmt: skip
        self.queries.append(query)
        return query

    def replay(self, query: Query) -> None:
        """Repeat `query` of an earlier search without evaluating it, after the same calls of `ask`.

        Raises `HnasError` where the method now proposes another architecture.
        """
        asks, number = (query.query if n is None else n for n in (query.asks, query.asked))  # None in older files
        while self._asks < asks and not self._waiting:
            self.ask()
        asked = next((asked.proposal for asked in self.pending if asked.number == number), None)
        if asked is None or (asked.arch, asked.epochs) != (query.arch, query.epochs):
            raise HnasError(
                f"query {query.query} of the saved search evaluated {query.arch}, but these settings and this pool "
                f"propose {asked.arch if asked else 'none'}; the run or the settings have changed, so start a new "
                "search"
            )
        # A method that measures its own seconds may take longer now.
        cost = max(0.0, query.cost - asked.seconds)
        self.tell(asked, query.performance, cost=cost, failure=query.failure)
        self.queries[-1] = query
        self.clock = self.clock if query.elapsed is None else query.elapsed

    @property
    def best(self) -> Query:
        """The winner so far. Raises `UsageError` before the first query."""
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
    """Run `method` for `queries`, or up to the query that exceeds the `budget` in seconds, and return all queries.

    `on_query` is called after each query, before the next one starts, for example to save it. With the `history` of an
    earlier call (same pool, method, seed, options), the search continues as if it had never stopped: the earlier
    queries are replayed without calling the oracle. The search ends early if no candidate is left. `best` picks the
    winner. `known` performances, on any scale, are a warm start.

    With `parallel` concurrent evaluations, the next architecture is proposed as soon as one evaluation ends;
    evaluations that are running when the budget is exceeded still count. An `executor` runs the evaluations; it must be
    able to pickle the oracle. Without one they run here, one after another, and end in the order in which they would
    have ended concurrently, by their costs.

    Raises `UsageError` for impossible settings and pools, `HnasError` where the history belongs to another search, and
    whatever the oracle raises.

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
        for asked in running.pending:  # left over from an earlier search
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
                query = running.tell(asked.proposal, **evaluation)
                spent += query.cost
                on_query(query)
    return running.queries


def check_limits(queries: int | None, budget: float | None, parallel: int = 1) -> None:
    """Raise `UsageError` unless a search with these limits makes at least one query and ends."""
    for name, value in (("parallel", parallel), ("queries", queries)):
        if value is not None and not isinstance(value, int):
            raise UsageError(f"{name} must be a whole number, got {value!r:.100}")
    if budget is not None and not isinstance(budget, int | float):
        raise UsageError(f"budget must be a number of seconds, got {budget!r:.100}")
    if not 1 <= parallel <= MOST_PARALLEL:
        raise UsageError(f"parallel evaluations must be between 1 and {MOST_PARALLEL}, got {parallel}")
    if queries is None and budget is None:
        raise UsageError("a search needs a limit: a number of queries or a budget in seconds")
    if queries is not None and not 1 <= queries <= MOST_QUERIES:
        raise UsageError(f"queries must be between 1 and {MOST_QUERIES}, got {queries}")
    if budget is not None and not 0 < budget < math.inf:
        raise UsageError(f"budget must be a positive number of seconds, got {budget:g}")


def best(queries: Sequence[Query]) -> Query:
    """Return the query with the highest performance among the longest trainings, the earliest of equals.

    Failed queries never win. Raises `UsageError` where there is no query, `HnasError` where all failed.
    """
    if not queries:
        raise UsageError("the search has no query, so it has no winner")
    succeeded = [q for q in queries if q.failure is None]
    if not succeeded:
        which = "the only evaluation" if len(queries) == 1 else f"all {len(queries)} evaluations"
        raise HnasError(f"{which} failed, so the search has no winner; the last: {queries[-1].failure}")
    longest = max(math.inf if q.epochs is None else q.epochs for q in succeeded)
    of_longest = [q for q in succeeded if (math.inf if q.epochs is None else q.epochs) == longest]
    return max(of_longest, key=lambda q: (q.performance, -q.query))
