"""Shared by methods that rank the pool by a column: values, order, and remaining candidates."""

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
    """Return the column `expression` (n,) of the pool, NaN where missing.

    Raises `UsageError` for an unknown column, and where fewer than `needs` candidates have a value.
    """
    column = np.asarray(pool.column(expression), dtype=float)
    known = int(np.count_nonzero(~np.isnan(column)))
    if known < needs:
        raise UsageError(
            f"the method needs {expression} for at least {needs} candidates, but only {known} of {len(column)} have it"
        )
    return column


def ranking(scores: Array) -> Positions:
    """Return the positions (n,) of `scores` from highest to lowest, NaN last; ties go to the last name.

    This is `np.flip(np.argsort(scores))`, the order in RoBoT's program.
    """
    return np.flip(np.argsort(np.where(np.isnan(scores), -np.inf, scores), kind="stable"))


class Free:
    """The candidates of a pool that may still be proposed: those of classes not yet evaluated."""

    def __init__(self, pool: Pool) -> None:
        self._classes = pool.classes
        #: Whether each candidate (n,) is free.
        self.mask = np.ones(len(pool.archs), dtype=bool)

    def take(self, position: int) -> None:
        """Exclude the candidate at `position` and all of its class."""
        self.mask[self._classes == self._classes[position]] = False


def proposal(pool: Pool, position: int, score: float) -> Proposal:
    """Return a proposal of the candidate at `position`, chosen by its `score`."""
    return Proposal(pool.archs[position], objective=float(score) if math.isfinite(score) else None)
