"""Algorithm 1 of HNAS: Bayesian optimisation over (μ, ν) with one true evaluation per step.

    for k = 1 … K:
        propose (μ_k, ν_k)
        A_k = the pool's minimiser of (7) among the classes not yet evaluated
        observe the validation performance of A_k
    return the best A_k

`hnas:M` uses the metric M in (7), `hnas` the trace norm. Evaluated architectures are excluded together with all that
compute the same function (their canonical class), so every query yields new information. With concurrent evaluations,
pending points count as the mean of the known values (a constant liar; Ginsbourger, Le Riche and Carraro, 2010).

With `minimise`, the name of a column, the queries spread along the Pareto front of high performance and small values of
that column. Query k solves (7) among the candidates whose value is at most the quantile (u + k φ) mod 1 of all values,
with φ = 0.618… the golden ratio and u drawn from the seed; μ and ν are scaled to the candidates within that limit.
(The ε-constraint method; Haimes, Lasdon and Wismer, 1971.)

Source: Shu, Dai, Wu, Low, NeurIPS 2022, Algorithm 1.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.protocol import Parallel, Proposal
from hnas.optim.methods.ranking import Positions
from hnas.optim.methods.warm import best_point
from hnas.optim.objective import BOUNDS, Array, SearchRange, check_exponent, objective
from hnas.optim.pools import Pool
from hnas.optim.proposer import Optimiser

# Grid points per side of the rectangle at which a warm start solves (7).
_GRID = 16
_GOLDEN = (5**0.5 - 1) / 2


class HNAS:
    """HNAS with F(x) = |x|^(2t) and the acquisition function `ei`, `ucb` or `poi`."""

    kind: ClassVar[str] = "hybrid"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(
        self,
        pool: Pool,
        argument: str | None = None,
        *,
        seed: int,
        epochs: int | None = None,
        t: float = 1.0,
        acquisition: str = "ei",
        minimise: str | None = None,
    ) -> None:
        check_exponent(t)
        if not isinstance(minimise, str | None):
            raise UsageError(f"the option minimise must be a column, such as params, got {minimise!r}")
        self._t = t
        self._pool, self._metric = pool, argument or "trace"
        self._minimiser = pool.minimiser(self._metric, minimise)
        self._limits = None if minimise is None else np.sort(self._minimiser.limited())
        self._place = float(np.random.default_rng([seed, 1]).random())
        self._range = SearchRange.of(*self._minimiser.terms(), t)
        self._optimiser = Optimiser(seed=seed, acquisition_name=acquisition)
        self._points: dict[int, dict[str, float]] = {}  # of pending proposals

    def warm(self, positions: Positions, scores: Array) -> None:
        """Start at the point where the minimiser of (7) among the known architectures performs best; see `Warm`."""
        metric, kappa = (self._pool.column(name)[positions] for name in (self._metric, "kappa"))
        (low_mu, high_mu), (low_nu, high_nu) = BOUNDS["log10_mu"], BOUNDS["nu_quantile"]
        step = (np.arange(_GRID) + 0.5) / _GRID
        points = np.array(
            [(low_mu + x * (high_mu - low_mu), low_nu + y * (high_nu - low_nu)) for x in step for y in step]
        )
        performances = []
        for log10_mu, nu_quantile in points.tolist():
            mu, nu = self._range.point(log10_mu, nu_quantile)
            values = objective(metric, kappa, mu=mu, nu=nu, t=self._t)
            performances.append(scores[int(np.argmin(values))] if np.isfinite(values).any() else -np.inf)
        log10_mu, nu_quantile = best_point(points, np.array(performances)).tolist()
        self._optimiser.begin({"log10_mu": log10_mu, "nu_quantile": nu_quantile})

    def ask(self) -> Proposal | None:
        """See `Method`."""
        point = self._optimiser.suggest(self._points.values())
        proposal = self._at(point)
        if proposal is not None:
            self._points[id(proposal)] = point
            self._minimiser.take(proposal.arch)
        return proposal

    def _at(self, point: dict[str, float]) -> Proposal | None:
        """Return the minimiser of (7) at `point` within the current limit, else among all candidates."""
        if self._limits is not None:
            self._place = (self._place + _GOLDEN) % 1
            most = len(self._limits) - 1
            limit = float(self._limits[min(most, max(1, int(self._place * (most + 1))))])
            proposal = self._within(point, limit)
            if proposal is not None:
                return proposal
        return self._within(point, math.inf)

    def _within(self, point: dict[str, float], limit: float) -> Proposal | None:
        """Return the minimiser of (7) at `point` among the candidates within `limit`, None if all are taken."""
        if limit != self._minimiser.limit:
            self._minimiser.limit = limit
            self._range = SearchRange.of(*self._minimiser.terms(), self._t)
        mu, nu = self._range.point(**point)
        solution = self._minimiser.solve(mu=mu, nu=nu, t=self._t)
        return None if solution is None else Proposal(solution.arch, mu=mu, nu=nu, objective=solution.objective)

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        self._optimiser.register(self._points.pop(id(proposal)), performance)
