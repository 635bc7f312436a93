"""The best of N random draws by one column; only that one is evaluated. NASWOT and GradSign search like this.

    draw N candidates uniformly, with replacement
    evaluate the one with the highest value of the column

N = 1,000 as for NASWOT; GradSign uses 100. The search ends after one query. Draws without a value in the column come
last; ties go to the first draw.

Source: Mellor, Turner, Storkey, Crowley, "Neural Architecture Search without Training", ICML 2021.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.candidates import Program
from hnas.optim.methods.protocol import Parallel, Proposal, whole
from hnas.optim.methods.ranking import proposal, values
from hnas.optim.pools import Pool


class BestOf(Program):
    """The best of `draws` by a column."""

    kind: ClassVar[str] = "training-free"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = True
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(
        self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None, draws: int = 1000
    ) -> None:
        if argument is None:
            raise UsageError("the method best-of needs a column to rank by; write best-of:trace or best-of:-kappa")
        self._pool, self._column = pool, values(pool, argument)
        self._random, self._draws = np.random.default_rng(seed), whole("draws", draws)
        super().__init__()

    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        drawn = self._random.integers(len(self._column), size=self._draws)
        scores = self._column[drawn]
        best = int(drawn[np.argmax(np.where(np.isnan(scores), -np.inf, scores))])
        yield proposal(self._pool, best, self._column[best])
