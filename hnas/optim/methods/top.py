"""The pool in the order of one column: a baseline without search.

    A_1, A_2, … = the candidates by column, highest first

`top:flops` and `top:params` query the largest networks, `top:-kappa` the best conditioned. Architectures without a
value come last, and each class is queried once. Ties go to the last name, as in RoBoT's program. This matters: 25 cells
of NAS-Bench-201 share ranks 8 to 25 by FLOPs, so the order of ties decides which 20 cells have the most.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

from hnas.errors import UsageError
from hnas.optim.methods.candidates import Program
from hnas.optim.methods.protocol import Parallel, Proposal
from hnas.optim.methods.ranking import Free, proposal, ranking, values
from hnas.optim.pools import Pool


class Top(Program):
    """The candidates in the order of a column."""

    kind: ClassVar[str] = "training-free"
    applicable: ClassVar[str] = "C+D"
    varies: ClassVar[bool] = False
    parallel: ClassVar[Parallel] = "asynchronous"

    def __init__(self, pool: Pool, argument: str | None = None, *, seed: int, epochs: int | None = None) -> None:
        if argument is None:
            raise UsageError("the method top needs a column to rank by; write top:flops or top:-kappa")
        self._pool, self._column = pool, values(pool, argument)
        super().__init__()

    def steps(self) -> Generator[Proposal, float, None]:
        """See `Program`."""
        free = Free(self._pool)
        for position in ranking(self._column).tolist():
            if free.mask[position]:
                yield proposal(self._pool, position, self._column[position])
                free.take(position)
