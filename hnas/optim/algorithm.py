"""The loop that every search method shares: ask for an architecture, evaluate it, tell its performance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hnas.errors import HnasError, UsageError, check_seed
from hnas.optim.methods.protocol import Proposal
from hnas.optim.methods.registry import make_method
from hnas.optim.pools import Pool

#: The most queries that a search makes.
MOST_QUERIES = 10_000


class Evaluation(NamedTuple):
    """The performance of an architecture in percent, and the seconds that a budget is charged for it.

    `output` and `exit_status` are how a program ended that evaluated it, to be kept beside the query.
    """

    performance: float
    cost: float
    output: str | None = None
    exit_status: int | None = None


class EvaluationError(HnasError):
    """An evaluation that failed, which costs the query and not the search; see `Evaluation` for what it carries."""

    def __init__(
        self, sentence: str, cost: float | None = None, output: str | None = None, exit_status: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.cost, self.output, self.exit_status = cost, output, exit_status


class Oracle(Protocol):
    """The true performance of an architecture, higher is better: a table, or a training."""

    def __call__(self, arch: str, epochs: int | None = None, /) -> float | Evaluation:
        """The validation performance of `arch` in percent, after `epochs` where a method asks for another number.

        Without a cost the time of the call is charged. Raises `EvaluationError` where this evaluation failed, which
        costs the query; any other error ends the search.
        """
        ...


@dataclass(frozen=True)
class Query:
    """One step of a search. `query` counts from 1.

    `cost` is what the budget is charged: for the evaluation, and what the `Proposal` says of the method's own work.
    `seconds` is the oracle's wall time, `own_seconds` the method's. `epochs`, `mu`, `nu` and `objective` are those of
    the `Proposal`. `failure` says why an evaluation failed, whose performance is NaN; `output` and `exit_status` are
    those of the `Evaluation`.
    """

    query: int
    arch: str
    performance: float
    cost: float
    seconds: float
    own_seconds: float
    epochs: int | None = None
    mu: float | None = None
    nu: float | None = None
    objective: float | None = None
    failure: str | None = None
    output: str | None = None
    exit_status: int | None = None


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
    """

    def __init__(
        self, pool: Pool, method: str = "hnas:trace", *, seed: int = 0, epochs: int | None = None, **options: Any
    ) -> None:
        """Start `method`, such as `hnas:trace` or `rea`, over `pool`. `epochs` are the most that it may ask for.

        Raises `UsageError` for an unknown method, and one that the pool cannot serve.
        """
        check_seed(seed)
        self._method = make_method(method, pool, seed=seed, epochs=epochs, **options)
        self.queries: list[Query] = []
        self._own_seconds = 0.0
        self._asked: Proposal | None = None

    def ask(self) -> Proposal | None:
        """The next architecture to evaluate, or None where nothing is left. Raises `UsageError` when asked twice."""
        if self._asked is not None:
            raise UsageError(f"tell the performance of {self._asked.arch} before you ask for the next architecture")
        begun = time.perf_counter()
        self._asked = self._method.ask()
        self._own_seconds = time.perf_counter() - begun
        return self._asked

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
        Raises `UsageError` where it is another proposal, `HnasError` where the performance or cost is not finite.
        """
        if proposal is not self._asked:
            raise UsageError(f"{proposal.arch} is not what was asked for last; tell each proposal once, in order")
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
        own = self._own_seconds + time.perf_counter() - begun
        cost = proposal.seconds + (0.0 if proposal.final else cost)
        self._asked = None
        query = Query(
            len(self.queries) + 1, proposal.arch, performance, cost, seconds, own,
            proposal.epochs, proposal.mu, proposal.nu, proposal.objective, failure, output, exit_status,
        )  # fmt: skip
        self.queries.append(query)
        return query

    def replay(self, query: Query) -> None:
        """Make `query` of an earlier search again without evaluating it.

        Raises `HnasError` where the method asks for another architecture than it did.
        """
        proposal = self.ask()
        if proposal is None or (proposal.arch, proposal.epochs) != (query.arch, query.epochs):
            raise HnasError(
                f"query {query.query} of the saved search evaluated {query.arch}, but these settings and this pool "
                f"lead to {proposal.arch if proposal else 'none'}; the run or the settings have changed, so start a "
                "new search"
            )
        self.tell(proposal, query.performance, cost=query.cost, failure=query.failure)
        self.queries[-1] = query

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
    **options: Any,
) -> list[Query]:
    """Run `method` until it made `queries`, or the query that passes the `budget` in seconds, and return all of them.

    `on_query` is called after each query, before the next begins: the place to save it. With the `history` of an
    earlier call (same pool, method, seed, options) the search goes on as if it had never stopped: the old queries are
    replayed without asking the oracle. Ends early when nothing is left to ask. `best` picks the winner. Raises
    `UsageError` for impossible settings and pools, `HnasError` where the history is not of this search, and what the
    oracle raises.

    >>> from hnas import ArrayPool, search
    >>> pool = ArrayPool(["a", "b", "c"], {"trace": [1.0, 2.0, 3.0], "kappa": [10.0, 20.0, 40.0]})
    >>> queries = search(pool, {"a": 90.1, "b": 92.5, "c": 91.3}.__getitem__, queries=3, seed=0)
    >>> best(queries).arch, best(queries).performance
    ('b', 92.5)
    """
    check_limits(queries, budget)
    running = Search(pool, method, seed=seed, epochs=epochs, **options)
    spent = 0.0
    while (queries is None or len(running.queries) < queries) and (budget is None or spent <= budget):
        if len(running.queries) < len(history):
            running.replay(history[len(running.queries)])
            spent += running.queries[-1].cost
            continue
        proposal = running.ask()
        if proposal is None or len(running.queries) >= MOST_QUERIES:
            break
        query = running.tell(proposal, **evaluate(oracle, proposal))
        spent += query.cost
        on_query(query)
    return running.queries


def evaluate(oracle: Oracle, proposal: Proposal) -> dict[str, Any]:
    """The evaluation of `proposal`, failed or not, as `Search.tell` takes it."""
    asked = time.perf_counter()
    found: dict[str, Any]
    try:
        answer = oracle(proposal.arch) if proposal.epochs is None else oracle(proposal.arch, proposal.epochs)
        found = answer._asdict() if isinstance(answer, Evaluation) else {"performance": answer, "cost": None}
    except EvaluationError as error:
        found = {"performance": math.nan, "failure": str(error), "cost": error.cost, "output": error.output}
        found["exit_status"] = error.exit_status
    seconds = time.perf_counter() - asked
    cost = seconds if found["cost"] is None else float(found["cost"])
    return {**found, "performance": float(found["performance"]), "cost": cost, "seconds": seconds}


def check_limits(queries: int | None, budget: float | None) -> None:
    """Raise `UsageError` unless a search with these limits makes at least one query and ends."""
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
        raise HnasError(f"all {len(queries)} evaluations failed, so the search has no winner; {queries[-1].failure}")
    longest = max(math.inf if q.epochs is None else q.epochs for q in found)
    of_longest = [q for q in found if (math.inf if q.epochs is None else q.epochs) == longest]
    return max(of_longest, key=lambda q: (q.performance, -q.query))
