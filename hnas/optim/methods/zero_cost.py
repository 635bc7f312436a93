"""Zero-cost proxies as search methods: a ranking, and the warm-up and the moves of regularised evolution.

    zero-cost         draw 2,000 candidates with replacement, drop repeats, query them by |M|, largest first
    zero-cost-warmup  draw 3,000 candidates with replacement; the 64 with the largest M are the first population
    zero-cost-move    each child is the neighbour of its parent with the largest M, with probability 1/4 any neighbour

`zero-cost:M` uses the proxy M, `zero-cost` the trace norm. The ranking is called ZERO-COST in the paper's Figure 2; the
program sorts by 1 / (|M| + 10⁻⁶). Each class is queried once.

The other two are the regularised evolution of the published notebook: a population of 64, tournaments of 10 drawn
without replacement, whose best is the parent (of ties the last member), and children that replace the oldest member. M
is signed. Children in the warm-up variant are mutations of the space. Repeated draws are evaluated again. With fewer
than 64 queries, the warm-up variant is just the ranking of 3,000 draws, and the moves never start.

Sources: Shu et al., NeurIPS 2022, Figure 2 (program `nasbench/zero-cost.py`); Abdelfattah, Mehrotra, Dudziak, Lane,
"Zero-Cost Proxies for Lightweight NAS", ICLR 2021 (notebook `nas_examples.ipynb`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Generator
from typing import ClassVar

import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.candidates import Program, mutable, mutant, uniform
from hnas.optim.methods.protocol import Parallel, Proposal
from hnas.optim.methods.ranking import Free, proposal, values
from hnas.optim.pools import Pool

_DRAWS = 2000
_WARM_UP = 3000
_POPULATION = 64
_TOURNAMENT = 10
_GREEDY = 0.75


class ZeroCost(Program):
    """The draws in the order of |M|."""

    kind: ClassVar[str] = "training-free"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None) -> None:
        metric = argument or "trace"
        column = values(pool, metric)
        if not np.any(column > 0):
            raise UsageError(
                f"zero-cost ranks by absolute values, but {metric} is never positive; use top:{metric} for signed ones"
            )
        self._pool, self._size, self._random = pool, np.abs(column), np.random.default_rng(seed)
        super().__init__()

    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        drawn = np.array(list(dict.fromkeys(self._random.integers(len(self._size), size=_DRAWS).tolist())))
        free = Free(self._pool)
        for position in drawn[np.argsort(1 / (self._size[drawn] + 1e-6), kind="stable")].tolist():
            if free.mask[position]:
                yield proposal(self._pool, position, self._size[position])
                free.take(position)


class _Evolution(Program):
    kind: ClassVar[str] = "evolution"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"
    name: ClassVar[str]

    def __init__(self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None) -> None:
        self._pool, self._space, self._random = pool, mutable(pool, self.name), np.random.default_rng(seed)
        column = values(pool, argument or "trace")
        self._score = np.where(np.isnan(column), -np.inf, column)
        self._members: deque[tuple[float, str]] = deque(maxlen=_POPULATION)  # (performance, architecture), oldest first
        super().__init__()

    @abstractmethod
    def first(self) -> list[str]:
        """Return the first population."""

    @abstractmethod
    def child(self, parent: str) -> str:
        """Return a candidate made from `parent`."""

    def steps(self) -> Generator[Proposal | None, float, None]:
        """See `Program`."""
        members = self._members
        for arch in self.first():
            yield Proposal(arch)
        while True:
            while not members:
                yield None
            drawn = sorted(self._random.choice(len(members), min(_TOURNAMENT, len(members)), replace=False).tolist())
            _, parent = max((members[i] for i in reversed(drawn)), key=lambda member: member[0])
            yield Proposal(self.child(parent))

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        self._members.append((performance, proposal.arch))


class WarmUp(_Evolution):
    """Regularised evolution that starts from the best of 3,000 draws."""

    name = "zero-cost-warmup"

    def first(self) -> list[str]:
        """See `_Evolution`."""
        drawn = self._random.integers(len(self._score), size=_WARM_UP)
        order = np.argsort(-self._score[drawn], kind="stable")[:_POPULATION]
        return [self._pool.archs[i] for i in drawn[order]]

    def child(self, parent: str) -> str:
        """See `_Evolution`."""
        return mutant(self._pool, self._space, parent, self._random)


class Move(_Evolution):
    """Regularised evolution with the best neighbours as children."""

    name = "zero-cost-move"

    def first(self) -> list[str]:
        """See `_Evolution`."""
        return [uniform(self._pool, self._random) for _ in range(_POPULATION)]

    def child(self, parent: str) -> str:
        """See `_Evolution`. If no neighbour is a candidate, a uniform candidate replaces it."""
        near = [i for i in map(self._pool.position, self._space.neighbours(parent)) if i is not None]
        if not near:
            return uniform(self._pool, self._random)
        if self._random.random() > _GREEDY:
            return self._pool.archs[near[int(self._random.integers(len(near)))]]
        return self._pool.archs[max(reversed(near), key=self._score.__getitem__)]
