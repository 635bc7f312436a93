"""Warm starts: performances known in advance, on this data set or another, decide where a search starts.

Known values may be on another scale than those that the search measures. Therefore only their order is used, as normal
scores Φ⁻¹((rank − ½) / k). A search never compares the two kinds, and a known value cannot win: promising architectures
are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hnas.errors import UsageError
from hnas.optim.methods.protocol import Method
from hnas.optim.methods.ranking import Positions
from hnas.optim.objective import Array
from hnas.optim.pools import Pool


@runtime_checkable
class Warm(Protocol):
    """A method that supports warm starts."""

    def warm(self, positions: Positions, scores: Array) -> None:
        """Take the normal `scores` (k,) of the candidates at `positions` (k,) before the first `ask`; k ≥ 2."""
        ...


def warm_up(method: Method, name: str, pool: Pool, known: Mapping[str, float]) -> None:
    """Pass the `known` performances to `method`, as far as the architectures are candidates.

    Raises `UsageError` where the method has no warm start, or fewer than two candidates with different values are
    known.
    """
    if not isinstance(method, Warm):
        raise UsageError(f"the method {name} has no warm start; bohb, hnas, local-search, rea and regressor have one")
    candidates = sorted((place, value) for arch, value in known.items() if (place := pool.position(arch)) is not None)
    if len({value for _, value in candidates}) < 2:
        raise UsageError(
            f"a warm start needs two known candidates with different values, but of {len(known)} known architectures "
            f"{len(candidates)} are candidates"
        )
    method.warm(np.array([place for place, _ in candidates]), normal_scores([value for _, value in candidates]))


def best_first(positions: Positions, scores: Array) -> list[int]:
    """Return the `positions` (k,) in the order of their `scores` (k,), highest first."""
    order: list[int] = positions[np.argsort(-scores, kind="stable")].tolist()
    return order


def best_point(points: Array, performances: Array) -> Array:
    """Return the one (d,) of the `points` (n, d) with the highest `performances` (n,), of ties the most central."""
    best = points[performances == performances.max()]
    chosen: Array = best[np.argmin(np.sum((best - best.mean(axis=0)) ** 2, axis=1))]
    return chosen


def normal_scores(values: list[float]) -> Array:
    """Return Φ⁻¹((rank − ½) / k) for each of the `values` (k,), with mean ranks for ties."""
    ordered = np.sort(values)
    ranks: NDArray[np.float64] = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right") + 1) / 2
    return np.array([NormalDist().inv_cdf((rank - 0.5) / len(values)) for rank in ranks.tolist()])
