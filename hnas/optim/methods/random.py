"""Random search: each query draws one candidate uniformly, with replacement.

Source: the benchmarks' own program (NATS-Bench, exps/NATS-algos/random_wo_share.py).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from hnas.optim.methods.candidates import uniform
from hnas.optim.methods.protocol import Parallel, Proposal, refuse_argument
from hnas.optim.pools import Pool


class Random:
    """Uniform draws."""

    kind: ClassVar[str] = "random"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None) -> None:
        refuse_argument("random", argument)
        self._pool, self._random = pool, np.random.default_rng(seed)

    def ask(self) -> Proposal:
        """See `Method`."""
        return Proposal(uniform(self._pool, self._random))

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `Method`."""
