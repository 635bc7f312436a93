"""Successive halving of the top candidates of (7) within a budget in seconds.

    A_1, …, A_n = the minimisers of (7), from n different classes, at n points (μ, ν) spread over the range
    for e = e_0 < e_1 < … < E:     each η times the previous, e_0 at least `min_budget`
        train all to epoch e of a training of E, continuing from where they stopped
        keep the best 1 / η of them, at least one

`halving:M` uses the metric M in (7), `halving` the trace norm. The points are a Kronecker sequence based on powers of
the plastic number, with a random start, which is evenly spread for any number of points. An evaluation is charged only
the epochs that it adds, unless the oracle must train from scratch.

With `seconds`, the budget of the search, n is the largest number whose trainings fit, estimated from the mean cost of
an epoch so far for the first rung and from the largest for later rungs. As many candidates are then kept as fit, at the
largest cost of an epoch among them. Without a budget, n is `candidates`, 9; η is 3. With concurrent evaluations a rung
is a generation.

Sources: Karnin, Koren, Somekh, "Almost Optimal Exploration in Multi-Armed Bandits", ICML 2013; Jamieson and Talwalkar,
AISTATS 2016; for refining what training-free metrics have filtered: Cai et al., "TRAILS", VLDB 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from itertools import accumulate
from typing import ClassVar

import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.bohb import rungs
from hnas.optim.methods.candidates import Program
from hnas.optim.methods.protocol import Parallel, Proposal, between, whole
from hnas.optim.objective import BOUNDS, SearchRange
from hnas.optim.pools import Pool

# The positive root of x³ = x + 1 gives the most evenly spread two-dimensional Kronecker sequence (Roberts, 2018).
_PLASTIC = 1.3247179572447460
_FEW, _MANY = 9, 729


class Halving(Program):
    """Successive halving with `eta`; `candidates` is the maximum n."""

    kind: ClassVar[str] = "hybrid+bandit"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "generations"

    def __init__(
        self,
        pool: Pool,
        argument: str | None = None,
        *,
        seed: int,
        epochs: int | None = None,
        candidates: int | None = None,
        seconds: float | None = None,
        eta: int = 3,
        min_budget: int = 1,
        t: float = 1.0,
    ) -> None:
        if epochs is None:
            raise UsageError("the method halving starts with short trainings and needs epochs, those of the longest")
        if whole("min_budget", min_budget) > epochs:
            raise UsageError(
                f"the option min_budget must be at most the {epochs} epochs of a training, got {min_budget}"
            )
        self._eta = whole("eta", eta, least=2)
        self._rungs = rungs(min_budget, epochs, eta)
        usual = _FEW if seconds is None else _MANY
        self._most = usual if candidates is None else whole("candidates", candidates)
        self._seconds = math.inf if seconds is None else between("seconds", seconds, 0, math.inf)
        self._minimiser = pool.minimiser(argument or "trace")
        self._range, self._t = SearchRange.of(*self._minimiser.terms(), t), t
        self._begin = np.random.default_rng(seed).random(2)
        self._spent = 0.0
        self._running: dict[int, Proposal] = {}
        self._performances: dict[str, float] = {}
        self._costs: dict[str, float] = {}  # seconds per epoch of each candidate
        super().__init__()

    def steps(self) -> Generator[Proposal | None, float, None]:
        """See `Program`."""
        members: list[Proposal] = []
        while len(members) < self._size() and (member := self._candidate(len(members))) is not None:
            members.append(member)
            yield self._started(member)
        yield from self._wait()
        for rung in range(1, len(self._rungs)):
            order = sorted(members, key=lambda member: -self._performances[member.arch])
            members = order[: self._kept(order, rung)]
            for member in members:
                yield self._started(
                    Proposal(
                        member.arch, self._rungs[rung], member.mu, member.nu, member.objective,
                        since=self._rungs[rung - 1],
                    )
                )  # fmt: skip
            yield from self._wait()

    def _candidate(self, k: int) -> Proposal | None:
        """Return the minimiser of (7) at point `k` of the sequence, None if all classes are taken."""
        u, v = (self._begin + k / np.array([_PLASTIC, _PLASTIC**2])) % 1
        low, high = BOUNDS["log10_mu"]
        mu, nu = self._range.point(low + (high - low) * float(u), float(v))
        solution = self._minimiser.solve(mu=mu, nu=nu, t=self._t)
        if solution is None:
            return None
        self._minimiser.take(solution.arch)
        return Proposal(solution.arch, self._rungs[0], mu, nu, solution.objective, since=0)

    def _started(self, proposal: Proposal) -> Proposal:
        self._running[id(proposal)] = proposal
        return proposal

    def _wait(self) -> Generator[None, float, None]:
        while self._running:
            yield None

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        del self._running[id(proposal)]
        self._performances[proposal.arch] = performance
        self._spent += cost
        assert proposal.epochs is not None  # all proposals of this method have both
        assert proposal.since is not None
        self._costs[proposal.arch] = cost / (proposal.epochs - proposal.since)

    def _size(self) -> int:
        """Return the number n of candidates, according to the costs so far."""
        if not self._costs:
            return self._most
        costs = list(self._costs.values())
        mean, largest = sum(costs) / len(costs), max(costs)
        first = self._rungs[0]
        return _most(
            self._most, lambda n: n * first * mean + self._epochs(n // self._eta, 1) * largest <= self._seconds
        )

    def _kept(self, order: Sequence[Proposal], rung: int) -> int:
        """Return how many of the members in `order` advance to `rung`."""
        largest = list(accumulate((self._costs[member.arch] for member in order), max))
        left = self._seconds - self._spent
        return _most(len(order) // self._eta, lambda n: self._epochs(n, rung) * largest[n - 1] <= left)

    def _epochs(self, n: int, rung: int) -> int:
        """Return the epochs of `n` members, halved down to at least one, from `rung` to the end."""
        steps = zip(self._rungs[rung - 1 :], self._rungs[rung:], strict=False)
        return sum(max(1, n // self._eta**k) * (after - before) for k, (before, after) in enumerate(steps))


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number from 1 to `limit` that `fits`, or 1."""
    return next((n for n in range(limit, 1, -1) if fits(n)), 1)
