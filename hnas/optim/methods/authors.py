"""The published HNAS program on NAS-Bench-201, for comparison: its protocol, which is not quite Algorithm 1's.

    for k = 1 … K:
        propose (c_k, τ_k) in [−4, 0] × [0, 1]; the first five are (−2, 0), (−2, ¼), … (−2, 1)
        draw 2,000 candidates with replacement and add them to those drawn before, without repeats
        A_k = argmin μ |M² − ν| + κ / (M + 10⁻⁶) over those not yet evaluated, μ = 10^c_k, ν = (5000 τ_k)²
        observe the validation performance of A_k

`authors:M` takes M for the metric, `authors` the trace norm. F is |x| (t = 1/2), the one `scale` of 5,000 serves all
metrics, expected improvement (ξ = 0) proposes, and what was evaluated is left out alone, without its class. κ is 10⁵
where it is infinite. M = |M|: the program has the sign commented out, by which a negative GraSP wins every minimum.
Among equals the first drawn is taken. With several evaluations at a time, pending points count as the mean of the rest.

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
    """HNAS as published, with the target range [0, `scale`] of M."""

    kind: ClassVar[str] = "hybrid"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(
        self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None, scale: float = 5e3
    ) -> None:
        if not 0 < scale < np.inf:
            raise UsageError(f"a scale of {scale:g} cannot be; give the largest target of the metric, 5000 by default")
        self._pool, self._seed, self._scale = pool, seed, scale
        metric = argument or "trace"
        self._metric = np.abs(values(pool, metric))
        if not np.any(np.isfinite(self._metric)):
            raise UsageError(f"no candidate has a finite {metric}, so that the objective is infinite for all")
        kappa = pool.column("kappa")
        self._kappa = np.where(np.isfinite(kappa), kappa, _SINGULAR)
        self._points: dict[int, dict[str, float]] = {}  # those of pending proposals
        self._optimiser: StockOptimiser | None = None
        self._before: list[tuple[dict[str, float], float]] = []  # told before there was an optimiser
        super().__init__()

    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        # The generator of the program, so that a pool in its order gives its draws.
        random = np.random.RandomState(self._seed % 2**32)
        drawn: dict[int, None] = {}  # positions, the first drawn first
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
        from hnas.optim.methods.bayesian import StockOptimiser  # which takes a second

        self._optimiser = StockOptimiser(
            {"target_coeff": (-4.0, 0.0), "target_metric": (0.0, 1.0)}, seed=self._seed, acquisition_name="ei"
        )
        for point, performance in self._before:
            self._optimiser.register(point, performance)
        while True:
            yield self._optimiser.suggest(self._points.values())
