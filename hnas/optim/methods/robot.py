"""RoBoT: Bayesian optimisation of the weights of several metrics, then queries in the order of the best weights.

    for k = 1 … K:
        propose w_k in [−1, 1]^m, the first at random
        A_k = argmax Σ_i w_ki M_i; observe its validation performance, unless already known
    w* = the weights of the best A_k, the last among equals
    query the other candidates by Σ_i w*_i M_i, the highest first

K is the number of `rounds`, 20, as published for a budget of 20 queries (100 for one of 100). A round that leads to a
class evaluated before costs no query, so T₀ ≤ K queries are made by rounds and the others follow the ranking. Each M_i
is scaled to [0, 1] by its minimum and maximum; an infinite κ counts as the largest finite one, and a missing metric
adds nothing. The acquisition function is the upper confidence bound (2.576 standard deviations). Ties go to the last
name. With concurrent evaluations, pending rounds count as the mean of the others, and the ranking starts after all
rounds.

`robot:M_1+M_2+…` uses these columns, `robot` the four metrics of HNAS's paper and κ. (Published with grad_norm, snip,
grasp, fisher, synflow and jacob_cov, of which a store holds the last three only where they were imported.)

Source: He, Shu, Dai, Low, "Robustifying and Boosting Training-Free Neural Architecture Search", ICLR 2024, Algorithm 1;
program `search_nb201.py` (hzf1174/RoBoT).
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import chain
from typing import ClassVar

import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.candidates import Program
from hnas.optim.methods.protocol import Parallel, Proposal, whole
from hnas.optim.methods.ranking import Free, proposal, ranking, values
from hnas.optim.objective import Array
from hnas.optim.pools import Pool

_COLUMNS = "grad_norm+snip+grasp+trace+kappa"


class RoBoT(Program):
    """RoBoT with `rounds` of Bayesian optimisation."""

    kind: ClassVar[str] = "hybrid"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(
        self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None, rounds: int = 20
    ) -> None:
        names = [name.strip() for name in (argument or _COLUMNS).split("+")]
        if len(set(names)) < len(names) or "" in names:
            raise UsageError(
                f"the argument of robot must be distinct columns, such as robot:trace+kappa, got robot:{argument}"
            )
        self._pool, self._seed, self._rounds = pool, seed, whole("rounds", rounds)
        self._metrics = np.stack([scaled(values(pool, name)) for name in names], axis=1)
        self._names = [f"w{i:03d}" for i in range(len(names))]
        self._known: dict[int, float] = {}  # performance by class
        self._waiting: dict[int, list[dict[str, float]]] = {}  # by pending class, the points that led to it
        self._best, self._performance = np.zeros(len(names)), -np.inf
        super().__init__()

    def steps(self) -> Generator[Proposal | None, float, None]:
        """See `Program`."""
        from hnas.optim.methods.bayesian import StockOptimiser  # takes a second to import

        bounds = dict.fromkeys(self._names, (-1.0, 1.0))
        self._optimiser = StockOptimiser(bounds, seed=self._seed, acquisition_name="ucb")
        free = Free(self._pool)
        for _ in range(self._rounds):
            point = self._optimiser.suggest(chain.from_iterable(self._waiting.values()))
            score = self._metrics @ self._weights(point)
            position = len(score) - 1 - int(np.argmax(score[::-1]))
            number = int(self._pool.classes[position])
            if number in self._known:
                self._register(point, self._known[number])
            elif number in self._waiting:
                self._waiting[number].append(point)
            else:
                self._waiting[number] = [point]
                free.take(position)
                yield proposal(self._pool, position, score[position])
        while self._waiting:
            yield None
        score = self._metrics @ self._best
        for position in ranking(score).tolist():
            if free.mask[position]:
                yield proposal(self._pool, position, score[position])
                free.take(position)

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        position = self._pool.position(proposal.arch)
        number = int(self._pool.classes[position])
        self._known[number] = performance
        for point in self._waiting.pop(number, ()):
            self._register(point, performance)

    def _register(self, point: dict[str, float], performance: float) -> None:
        self._optimiser.register(point, performance)
        if performance >= self._performance:
            self._best, self._performance = self._weights(point), performance

    def _weights(self, point: dict[str, float]) -> Array:
        return np.array([point[name] for name in self._names])


def scaled(metric: Array) -> Array:
    """Return `metric` (n,) scaled to [0, 1] by its finite minimum and maximum; 0 where missing or constant.

    Infinite values count as the largest or smallest finite value.
    """
    finite = metric[np.isfinite(metric)]
    if not finite.size:
        return np.zeros(len(metric))
    low, high = finite.min(), finite.max()
    inside = (np.clip(metric, low, high) - low) / (high - low or 1.0)
    return np.where(np.isnan(inside), 0.0, inside)
