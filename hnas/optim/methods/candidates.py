"""Shared by the methods: uniform candidates, mutants and decisions within the pool, and methods written as generators.

If the pool is a sample of its space, or a condition excludes part of it, a mutant may not be a candidate. Then the same
parent is mutated again, up to 100 times; after that a uniformly drawn candidate replaces the mutant. The same holds for
decisions that do not make a candidate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import ClassVar

import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.protocol import Parallel, Proposal
from hnas.optim.pools import Pool
from hnas.spaces.protocols import Categorical, Encoded, Mutable

TRIES = 100


class Program(ABC):
    """A method written as one generator, `steps`.

    A sequential method receives the performance of each proposal as the value of its `yield`. Another one overrides
    `tell`, which gets all performances, and yields None to wait. A failed evaluation counts as the worst one so far.
    """

    parallel: ClassVar[Parallel] = "sequential"

    def __init__(self) -> None:
        self._steps = self.steps()
        self._last: float | None = None

    @abstractmethod
    def steps(self) -> Generator[Proposal | None, float, None]:
        """Run the whole search."""

    def ask(self) -> Proposal | None:
        """See `Method`."""
        try:
            return next(self._steps) if self._last is None else self._steps.send(self._last)
        except StopIteration:
            return None

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        self._last = performance


def uniform(pool: Pool, random: np.random.Generator) -> str:
    """Return a candidate, drawn uniformly."""
    return pool.archs[int(random.integers(len(pool.archs)))]


def mutable(pool: Pool, method: str) -> Mutable:
    """Return the space of the pool. Raises `UsageError`, naming the `method`, where it cannot mutate."""
    space: object = pool.space
    if not isinstance(space, Mutable):
        raise UsageError(f"{_lacking(pool, method)} `mutate` and `neighbours` (hnas.spaces.Mutable)")
    return space


def categorical(pool: Pool, method: str) -> Categorical:
    """Return the space of the pool. Raises `UsageError`, naming the `method`, where it has no decisions."""
    space: object = pool.space
    if not isinstance(space, Categorical):
        raise UsageError(f"{_lacking(pool, method)} `choices` and `decode` (hnas.spaces.Categorical)")
    return space


def _lacking(pool: Pool, method: str) -> str:
    if pool.space is None:
        return f"the method {method} needs a pool that names its space, one with"
    return f"the method {method} cannot search the space {pool.space.name}, which lacks"


def mutant(pool: Pool, space: Mutable, parent: str, random: np.random.Generator) -> str:
    """Return a mutation of `parent` that is a candidate."""
    for _ in range(TRIES):
        child = space.mutate(parent, random)
        if pool.position(child) is not None:
            return child
    return uniform(pool, random)


def decided(
    pool: Pool, space: Categorical, draw: Callable[[], Sequence[int]], random: np.random.Generator
) -> tuple[str, Sequence[int] | None]:
    """Return a candidate made from decisions of `draw`, with the decisions, None if a uniform candidate has none."""
    for _ in range(TRIES):
        decisions = draw()
        arch = space.decode(decisions)
        if arch is not None and pool.position(arch) is not None:
            return arch, decisions
    arch = uniform(pool, random)
    return arch, space.encode(arch) if isinstance(space, Encoded) else None
