"""The published HNAS program for NAS-Bench-201, for comparison: its protocol differs slightly from Algorithm 1.

    for k = 1 … K:
        propose (c_k, τ_k) in [−4, 0] × [0, 1]; the first five are (−2, 0), (−2, ¼), … (−2, 1)
        draw 2,000 candidates with replacement and add the new ones to those drawn before
        A_k = argmin μ |M² − ν| + κ / (M + 10⁻⁶) over those not yet evaluated, μ = 10^c_k, ν = (5000 τ_k)²
        observe the validation performance of A_k

`authors:M` uses the metric M, `authors` the trace norm. F is |x| (t = 1/2), a single `scale` of 5,000 serves all
metrics, the acquisition function is expected improvement (ξ = 0), and an evaluated architecture is excluded without the
rest of its class. κ is set to 10⁵ where it is infinite. M = |M|: the program has the signed version, with which a
negative GraSP would win every minimum, commented out. Ties go to the candidate drawn first. With concurrent
evaluations, pending points count as the mean of the known values.

Source: Shu et al., NeurIPS 2022; program `nasbench/nasbench2_search.py` (shuyao95/HNAS, commit 970789c).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.candidates import Program
from hnas.optim.methods.protocol import Parallel, Proposal
from hnas.optim.methods.ranking import values
from hnas.optim.pools import Pool

if TYPE_CHECKING:
    from hnas.optim.methods.bayesian import StockOptimiser

_DRAWS = 2000
_PROBES = 5
_SINGULAR = 1e5


class Authors(Program):
    """HNAS as published, with targets for M in [0, `scale`]."""

    kind: ClassVar[str] = "hybrid"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(
        self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None, scale: float = 5e3
    ) -> None:
        if not isinstance(scale, int | float) or not 0 < scale < np.inf:
            raise UsageError(
                f"scale, the largest target of the metric, must be positive, got {scale!r:.100}; 5000 is usual"
            )
        self._pool, self._seed, self._scale = pool, seed, scale
        metric = argument or "trace"
        self._metric = np.abs(values(pool, metric))
        if not np.any(np.isfinite(self._metric)):
            raise UsageError(f"no candidate has a finite {metric}, so the objective is infinite for all")
        kappa = pool.column("kappa")
        self._kappa = np.where(np.isfinite(kappa), kappa, _SINGULAR)
        self._points: dict[int, dict[str, float]] = {}  # of pending proposals
        self._optimiser: StockOptimiser | None = None
        self._before: list[tuple[dict[str, float], float]] = []  # observed before the optimiser existed
        super().__init__()

    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        # The program's generator, so that a pool in the program's order gives the same draws.
        random = np.random.RandomState(self._seed % 2**32)
        drawn: dict[int, None] = {}  # positions in the order of the draws
        evaluated: set[int] = set()
        for point in self._suggested():
            drawn |= dict.fromkeys(random.choice(len(self._metric), _DRAWS).tolist())
            free = np.array([position for position in drawn if position not in evaluated], dtype=int)
            m = self._metric[free]
            mu, nu = 10 ** point["target_coeff"], (point["target_metric"] * self._scale) ** 2
            with np.errstate(over="ignore"):
                score = mu * np.abs(m**2 - nu) + self._kappa[free] / (m + 1e-6)
            if not np.any(np.isfinite(score)):
                return
            best = int(np.nanargmin(score))
            evaluated.add(int(free[best]))
            proposal = Proposal(self._pool.archs[free[best]], None, mu, nu, float(score[best]))
            self._points[id(proposal)] = point
            yield proposal

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        point = self._points.pop(id(proposal))
        if self._optimiser is None:
            self._before.append((point, performance))
        else:
            self._optimiser.register(point, performance)

    def _suggested(self) -> Generator[dict[str, float], None, None]:
        for target in np.linspace(0, 1, _PROBES).tolist():
            yield {"target_coeff": -2.0, "target_metric": target}
        from hnas.optim.methods.bayesian import StockOptimiser  # takes a second to import

        self._optimiser = StockOptimiser(
            {"target_coeff": (-4.0, 0.0), "target_metric": (0.0, 1.0)}, seed=self._seed, acquisition_name="ei"
        )
        for point, performance in self._before:
            self._optimiser.register(point, performance)
        while True:
            yield self._optimiser.suggest(self._points.values())
