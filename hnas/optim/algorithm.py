"""Algorithm 1 of HNAS: Bayesian optimisation over (μ, ν), one true evaluation for each step.

    for k = 1 … K:
        propose (μ_k, ν_k)
        A_k = the pool's minimiser of (7) among the classes not yet evaluated
        observe the validation performance of A_k
    return the best A_k

An architecture already evaluated is left out of the next minimum with all that compute the same function (those of its
canonical class), so every query buys new information.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from hnas.errors import HnasError, UsageError
from hnas.optim.objective import Array, SearchRange, check_exponent, objective
from hnas.optim.proposer import Optimiser


class Solution(NamedTuple):
    """A minimiser of (7): the architecture and the objective's value."""

    arch: str
    objective: float


class Pool(Protocol):
    """The architectures to choose from, with what (7) needs of them."""

    def terms(self) -> tuple[Array, Array]:
        """The metric (n,) and κ (n,) of every architecture that may be proposed."""
        ...

    def solve(self, *, mu: float, nu: float, t: float) -> Solution | None:
        """The minimiser of (7) among the architectures not taken, ties by name; None where all are taken."""
        ...

    def take(self, arch: str) -> None:
        """Leave `arch` and the members of its class out from now on."""
        ...


class Oracle(Protocol):
    """The true performance of an architecture, higher is better: a table, or a training."""

    def __call__(self, arch: str) -> float:
        """The validation performance of `arch` in percent. Raises `HnasError` where it cannot be told."""
        ...


@dataclass(frozen=True)
class Query:
    """One step of the search. `query` counts from 1; `seconds` is the oracle's time, `own_seconds` the search's."""

    query: int
    mu: float
    nu: float
    arch: str
    objective: float
    performance: float
    seconds: float
    own_seconds: float


class ArrayPool:
    """A pool in memory: names (n), metric (n,), κ (n,), and the names' canonical classes (n) unless each is its own."""

    def __init__(self, archs: Sequence[str], metric: Array, kappa: Array, classes: Sequence[str] | None = None) -> None:
        classes = archs if classes is None else classes
        if not len(archs) == len(metric) == len(kappa) == len(classes):
            raise UsageError(
                f"the pool has {len(archs)} names, {len(metric)} metrics, {len(kappa)} condition numbers and "
                f"{len(classes)} classes"
            )
        twice = [arch for arch, n in Counter(archs).items() if n > 1]
        if twice:
            raise UsageError(f"the pool has {twice[0]!r} more than once; each architecture needs one row")
        order = np.argsort(np.asarray(archs, dtype=str), kind="stable")
        self._archs = [archs[i] for i in order]
        self._classes = np.asarray(classes, dtype=str)[order]
        self._metric, self._kappa = np.asarray(metric, float)[order], np.asarray(kappa, float)[order]
        self._free = np.ones(len(archs), dtype=bool)

    def terms(self) -> tuple[Array, Array]:
        """See `Pool`."""
        return self._metric, self._kappa

    def solve(self, *, mu: float, nu: float, t: float) -> Solution | None:
        """See `Pool`."""
        value = np.where(self._free, objective(self._metric, self._kappa, mu=mu, nu=nu, t=t), np.inf)
        best = int(np.argmin(value)) if len(value) else 0
        return Solution(self._archs[best], float(value[best])) if len(value) and np.isfinite(value[best]) else None

    def take(self, arch: str) -> None:
        """See `Pool`."""
        self._free[self._classes == self._classes[self._archs.index(arch)]] = False


def search(
    pool: Pool,
    oracle: Oracle,
    *,
    queries: int = 20,
    t: float = 1.0,
    acquisition: str = "ei",
    seed: int = 0,
    history: Sequence[Query] = (),
    on_query: Callable[[Query], None] = lambda _: None,
) -> list[Query]:
    """Run Algorithm 1 and return all its queries; `best` picks the winner.

    `on_query` is called after each query, before the next begins: the place to save it. With the `history` of an
    earlier call (same pool, t, acquisition, seed) the search goes on as if it had never stopped: the old queries are
    replayed without asking the oracle. Ends early when the pool is exhausted. Raises `UsageError` for impossible
    settings and pools, `HnasError` where the history is not of this search, and what the oracle raises.

    >>> from hnas import ArrayPool, search
    >>> pool = ArrayPool(["a", "b", "c"], metric=np.array([1.0, 2.0, 3.0]), kappa=np.array([10.0, 20.0, 40.0]))
    >>> queries = search(pool, {"a": 90.1, "b": 92.5, "c": 91.3}.__getitem__, queries=3, seed=0)
    >>> best(queries).arch, best(queries).performance
    ('b', 92.5)
    """
    check_exponent(t)
    if not 1 <= queries <= 10_000:
        raise UsageError(f"{queries} queries cannot be; ask for 1 to 10000")
    search_range = SearchRange.of(*pool.terms(), t)
    optimiser = Optimiser(seed=seed, acquisition_name=acquisition)
    done: list[Query] = []
    while len(done) < queries:
        begun = time.perf_counter()
        point = optimiser.suggest()
        mu, nu = search_range.point(**point)
        solution = pool.solve(mu=mu, nu=nu, t=t)
        if solution is None:
            break
        pool.take(solution.arch)
        if len(done) < len(history):
            query = history[len(done)]
            if query.arch != solution.arch:
                raise HnasError(
                    f"query {query.query} of the saved search evaluated {query.arch}, but these settings and this pool "
                    f"lead to {solution.arch}; the run or the settings have changed, so start a new search"
                )
            optimiser.register(point, query.performance)
            done.append(query)
            continue
        own = time.perf_counter() - begun
        asked = time.perf_counter()
        performance = float(oracle(solution.arch))
        seconds = time.perf_counter() - asked
        begun = time.perf_counter()
        if not np.isfinite(performance):
            raise HnasError(f"the oracle answered {performance} for {solution.arch}; a finite number is needed")
        optimiser.register(point, performance)
        own += time.perf_counter() - begun
        query = Query(len(done) + 1, mu, nu, solution.arch, solution.objective, performance, seconds, own)
        done.append(query)
        on_query(query)
    return done


def best(queries: Sequence[Query]) -> Query:
    """The query with the highest performance, the earliest among equals. Raises `UsageError` where there is none."""
    if not queries:
        raise UsageError("the search made no query, so it has no winner")
    return max(queries, key=lambda q: (q.performance, -q.query))
