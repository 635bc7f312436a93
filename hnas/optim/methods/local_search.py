"""Local search.

    repeat:
        current = a uniform candidate not yet evaluated
        repeat:
            evaluate all neighbours of current not yet evaluated, in random order
            stop unless the best of them is better than current
            current = that one

It has no parameters. Neighbours are those of the space that are candidates. Nothing is evaluated twice, so the search
ends when all candidates are evaluated. With concurrent evaluations the neighbours of one architecture are a generation.

Source: White, Nolen, Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021, and its program,
`local_search` of naszilla with `query_full_nbhd`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import numpy as np

from hnas.optim.methods.candidates import Program, mutable
from hnas.optim.methods.protocol import Parallel, Proposal, refuse_argument
from hnas.optim.methods.ranking import Positions
from hnas.optim.methods.warm import best_first
from hnas.optim.objective import Array
from hnas.optim.pools import Pool


class LocalSearch(Program):
    """Steepest ascent with restarts."""

    kind: ClassVar[str] = "local search"
    applicable: ClassVar[str] = "D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "generations"

    def __init__(self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None) -> None:
        refuse_argument("local-search", argument)
        self._pool, self._space, self._random = pool, mutable(pool, "local-search"), np.random.default_rng(seed)
        self._pending: set[str] = set()
        self._performances: dict[str, float] = {}
        self._first: list[int] = []
        super().__init__()

    def warm(self, positions: Positions, scores: Array) -> None:
        """Start at the best known architecture; see `Warm`."""
        self._first = best_first(positions, scores)[:1]

    def steps(self) -> Generator[Proposal | None, float, None]:
        """See `Program`."""
        new = np.ones(len(self._pool.archs), dtype=bool)
        while new.any():
            place = self._first.pop() if self._first else int(self._random.choice(np.flatnonzero(new)))
            new[place] = False
            best = self._pool.archs[place]
            yield from self._evaluated([best])
            current = None
            while current != best:
                current = best
                around = self._space.neighbours(current)
                fresh = []
                for i in self._random.permutation(len(around)).tolist():
                    position = self._pool.position(around[i])
                    if position is not None and new[position]:
                        new[position] = False
                        fresh.append(around[i])
                yield from self._evaluated(fresh)
                best = max([current, *fresh], key=self._performances.__getitem__)

    def _evaluated(self, archs: list[str]) -> Generator[Proposal | None, float, None]:
        """Propose all `archs` and wait for their performances."""
        for arch in archs:
            self._pending.add(arch)
            yield Proposal(arch)
        while self._pending:
            yield None

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        self._pending.remove(proposal.arch)
        self._performances[proposal.arch] = performance
