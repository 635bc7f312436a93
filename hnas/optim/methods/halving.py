"""Successive halving of the top candidates of (7), within the seconds of a budget.

    A_1, …, A_n = the minimisers of (7) at n points (μ, ν) spread over the range, of n classes
    for e = e_0 < e_1 < … < E:     each η times the one before, e_0 at least `min_budget`
        train all for e epochs of a training of E, those that were trained before from where they stopped
        keep the best 1 / η of them, one at least

`halving:M` takes M for the metric of (7), `halving` the trace norm. The points are a Kronecker sequence with the powers
of the plastic number, begun at random: evenly spread however many of them there are. An evaluation is charged the
epochs that it adds, unless the oracle can only train anew.

With `seconds`, the budget of the search, n is the largest number whose trainings fit: the first rung at the mean cost
of an epoch so far, the later ones at the largest; and as many are kept as fit then, at the largest cost of an epoch of
theirs. Without, n is the number of `candidates`, 9; η is 3. With several evaluations at a time a rung is a generation.

Sources: Karnin, Koren, Somekh, "Almost Optimal Exploration in Multi-Armed Bandits", ICML 2013; Jamieson and Talwalkar,
AISTATS 2016; as the refinement of what training-free metrics filtered: Cai et al., "TRAILS", VLDB 2024.
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
from hnas.optim.methods.protocol import Parallel, Proposal, whole
from hnas.optim.objective import BOUNDS, SearchRange
from hnas.optim.pools import Pool

# The positive root of x³ = x + 1: no sequence of two numbers spreads more evenly (Roberts, 2018).
_PLASTIC = 1.3247179572447460
_FEW, _MANY = 9, 729


class Halving(Program):
    """Successive halving with `eta`; `candidates` are n at most."""

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
            raise UsageError("the method halving begins with short trainings, and must know the epochs of the longest")
        if whole("min_budget", min_budget) > epochs:
            raise UsageError(f"the option min_budget is {min_budget} epochs, but the longest training has {epochs}")
        self._eta = whole("eta", eta, least=2)
        self._rungs = rungs(min_budget, epochs, eta)
        usual = _FEW if seconds is None else _MANY
        self._most = usual if candidates is None else whole("candidates", candidates)
        self._seconds = math.inf if seconds is None else seconds
        self._minimiser = pool.minimiser(argument or "trace")
        self._range, self._t = SearchRange.of(*self._minimiser.terms(), t), t
        self._begin = np.random.default_rng(seed).random(2)
        self._spent = 0.0
        self._running: dict[int, Proposal] = {}
        self._performances: dict[str, float] = {}
        self._costs: dict[str, float] = {}  # seconds of an epoch of each candidate
        super().__init__()

    def steps(self) -> Generator[Proposal | None, float, None]:
        """See `Program`."""
        members: list[Proposal] = []
        while len(members) < self._size() and (member := self._candidate(len(members))) is not None:
            members.append(member)
            yield self._asked(member)
        yield from self._all_told()
        for rung in range(1, len(self._rungs)):
            order = sorted(members, key=lambda member: -self._performances[member.arch])
            members = order[: self._kept(order, rung)]
            for member in members:
                yield self._asked(
                    Proposal(
                        member.arch, self._rungs[rung], member.mu, member.nu, member.objective,
                        since=self._rungs[rung - 1],
                    )
                )  # fmt: skip
            yield from self._all_told()

    def _candidate(self, k: int) -> Proposal | None:
        """The minimiser of (7) at the point `k` of the sequence, or None where all classes are taken."""
        u, v = (self._begin + k / np.array([_PLASTIC, _PLASTIC**2])) % 1
        low, high = BOUNDS["log10_mu"]
        mu, nu = self._range.point(low + (high - low) * float(u), float(v))
        found = self._minimiser.solve(mu=mu, nu=nu, t=self._t)
        if found is None:
            return None
        self._minimiser.take(found.arch)
        return Proposal(found.arch, self._rungs[0], mu, nu, found.objective, since=0)

    def _asked(self, proposal: Proposal) -> Proposal:
        self._running[id(proposal)] = proposal
        return proposal

    def _all_told(self) -> Generator[None, float, None]:
        while self._running:
            yield None

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        del self._running[id(proposal)]
        self._performances[proposal.arch] = performance
        self._spent += cost
        assert proposal.epochs is not None  # all its proposals have them
        assert proposal.since is not None
        self._costs[proposal.arch] = cost / (proposal.epochs - proposal.since)

    def _size(self) -> int:
        """The number n of candidates, as far as costs are known."""
        if not self._costs:
            return self._most
        costs = list(self._costs.values())
        mean, largest = sum(costs) / len(costs), max(costs)
        first = self._rungs[0]
        return _most(
            self._most, lambda n: n * first * mean + self._epochs(n // self._eta, 1) * largest <= self._seconds
        )

    def _kept(self, order: Sequence[Proposal], rung: int) -> int:
        """How many of the members in `order` go on to `rung`."""
        largest = list(accumulate((self._costs[member.arch] for member in order), max))
        left = self._seconds - self._spent
        return _most(len(order) // self._eta, lambda n: self._epochs(n, rung) * largest[n - 1] <= left)

    def _epochs(self, n: int, rung: int) -> int:
        """The epochs of `n` members, one at least, from `rung` to the end."""
        steps = zip(self._rungs[rung - 1 :], self._rungs[rung:], strict=False)
        return sum(max(1, n // self._eta**k) * (after - before) for k, (before, after) in enumerate(steps))


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to `limit` that `fits`, or 1."""
    return next((n for n in range(limit, 1, -1) if fits(n)), 1)
