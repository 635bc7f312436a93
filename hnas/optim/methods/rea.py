"""Regularised (ageing) evolution.

    population ← P uniform candidates
    repeat:
        parent = the best of S members of the population, drawn uniformly with replacement
        append a mutation of the parent, drop the oldest member

P = 10, S = 3, as NATS-Bench runs it (exps/NATS-algos/regularized_ea.py of AutoDL-Projects); 500 runs of 12,000 s on
NAS-Bench-201 are published as 93.92 ± 0.30 / 71.84 ± 0.99 / 45.15 ± 0.89. The mutation is that of the space. A child
that was evaluated before is evaluated, and charged, again. Ties go to the member drawn first. With concurrent
evaluations, tournaments draw from members with known performances, and start after P candidates have been proposed.

Source: Real, Aggarwal, Huang, Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019,
Algorithm 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from itertools import count
from typing import ClassVar

import numpy as np

from hnas.optim.methods.candidates import Program, mutable, mutant, uniform
from hnas.optim.methods.protocol import Parallel, Proposal, refuse_argument, whole
from hnas.optim.methods.ranking import Positions
from hnas.optim.methods.warm import best_first
from hnas.optim.objective import Array
from hnas.optim.pools import Pool


class REA(Program):
    """Regularised evolution with `population` P and `tournament` S."""

    kind: ClassVar[str] = "evolution"
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
        population: int = 10,
        tournament: int = 3,
    ) -> None:
        refuse_argument("rea", argument)
        self._pool, self._space, self._random = pool, mutable(pool, "rea"), np.random.default_rng(seed)
        self._population, self._tournament = whole("population", population), whole("tournament", tournament)
        self._members: deque[tuple[float, str]] = deque(maxlen=population)  # (performance, architecture), oldest first
        self._first: list[int] = []
        super().__init__()

    def warm(self, positions: Positions, scores: Array) -> None:
        """Take the best known architectures as the first population; see `Warm`."""
        self._first = best_first(positions, scores)[: self._population]

    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        members = self._members
        for asked in count():
            if asked < len(self._first):
                child = self._pool.archs[self._first[asked]]
            elif asked < self._population or not members:
                child = uniform(self._pool, self._random)
            else:
                drawn = self._random.integers(len(members), size=self._tournament).tolist()
                _, parent = max((members[i] for i in drawn), key=lambda member: member[0])
                child = mutant(self._pool, self._space, parent, self._random)
            yield Proposal(child)

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        self._members.append((performance, proposal.arch))
