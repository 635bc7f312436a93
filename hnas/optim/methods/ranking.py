"""What methods share that rank the pool by a column: the values, the order, and the candidates that are still free."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hnas.errors import UsageError
from hnas.optim.methods.protocol import Proposal
from hnas.optim.objective import Array
from hnas.optim.pools import Pool

Positions = NDArray[np.int64]


def values(pool: Pool, expression: str, *, needs: int = 1) -> Array:
    """The column `expression` (n,) of the pool, NaN where there is none.

    Raises `UsageError` for an unknown column, and where fewer than `needs` candidates have a value.
    """
    column = np.asarray(pool.column(expression), dtype=float)
    known = int(np.count_nonzero(~np.isnan(column)))
    if known < needs:
        raise UsageError(f"{expression} is known of {known} of the {len(column)} candidates; {needs} is the least")
    return column


def ranking(scores: Array) -> Positions:
    """The positions (n,) of `scores` from the highest to the lowest, NaN last; among equals the last name first.

    That is `np.flip(np.argsort(scores))`, the order of RoBoT's program.
    """
    return np.flip(np.argsort(np.where(np.isnan(scores), -np.inf, scores), kind="stable"))


class Free:
    """The candidates of a pool that may still be proposed: those whose class was not evaluated."""

    def __init__(self, pool: Pool) -> None:
        self._classes = pool.classes
        #: Whether each candidate (n,) is free.
        self.mask = np.ones(len(pool.archs), dtype=bool)

    def take(self, position: int) -> None:
        """Leave the candidate at `position` out from now on, with all of its class."""
        self.mask[self._classes == self._classes[position]] = False


def proposal(pool: Pool, position: int, score: float) -> Proposal:
    """The candidate at `position`, chosen by its `score`."""
    return Proposal(pool.archs[position], objective=float(score) if math.isfinite(score) else None)
