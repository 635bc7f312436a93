"""What rivals share: uniform candidates, mutants and decisions that are candidates, methods written as programs.

Where the pool is a sample of its space, or a condition leaves some of it out, a mutant may be no candidate. Then the
same parent is mutated again, 100 times at most; after that a uniformly drawn candidate takes its place. The same holds
for decisions that make no candidate.
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

    It yields each proposal, and is sent its performance. One that is not `sequential` is sent the performance that was
    told last, takes the others in `tell`, and yields None where it waits.
    """

    parallel: ClassVar[Parallel] = "sequential"

    def __init__(self) -> None:
        self._steps = self.steps()
        self._told: float | None = None

    @abstractmethod
    def steps(self) -> Generator[Proposal | None, float, None]:
        """The whole search."""

    def ask(self) -> Proposal | None:
        """See `Method`."""
        try:
            return next(self._steps) if self._told is None else self._steps.send(self._told)
        except StopIteration:
            return None

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
        self._told = performance


def uniform(pool: Pool, random: np.random.Generator) -> str:
    """A candidate, each as likely as any other."""
    return pool.archs[int(random.integers(len(pool.archs)))]


def mutable(pool: Pool, method: str) -> Mutable:
    """The space of the pool. Raises `UsageError`, which names the `method`, where it cannot mutate."""
    space: object = pool.space
    if not isinstance(space, Mutable):
        raise UsageError(f"{_lacking(pool, method)} `mutate` and `neighbours` (hnas.spaces.Mutable)")
    return space


def categorical(pool: Pool, method: str) -> Categorical:
    """The space of the pool. Raises `UsageError`, which names the `method`, where no decisions make its members."""
    space: object = pool.space
    if not isinstance(space, Categorical):
        raise UsageError(f"{_lacking(pool, method)} `choices` and `decode` (hnas.spaces.Categorical)")
    return space


def _lacking(pool: Pool, method: str) -> str:
    if pool.space is None:
        return f"the method {method} needs a pool that names its space, one with"
    return f"the method {method} cannot search the space {pool.space.name}, which lacks"


def mutant(pool: Pool, space: Mutable, parent: str, random: np.random.Generator) -> str:
    """A mutation of `parent` that is a candidate."""
    for _ in range(TRIES):
        child = space.mutate(parent, random)
        if pool.position(child) is not None:
            return child
    return uniform(pool, random)


def decided(
    pool: Pool, space: Categorical, draw: Callable[[], Sequence[int]], random: np.random.Generator
) -> tuple[str, Sequence[int] | None]:
    """A candidate that decisions of `draw` make, and those decisions; None where it was drawn without and has none."""
    for _ in range(TRIES):
        decisions = draw()
        arch = space.decode(decisions)
        if arch is not None and pool.position(arch) is not None:
            return arch, decisions
    arch = uniform(pool, random)
    return arch, space.encode(arch) if isinstance(space, Encoded) else None
