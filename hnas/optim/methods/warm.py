"""Warm starts: performances known before the first query, of this data set or another, say where a search begins.

Known values may be on another scale than those that the search measures, so only their order is told, as normal scores
Φ⁻¹((rank − ½) / k). A search never compares the two, and no known value can win: what seems good is evaluated.
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
    """A method that begins where known performances say."""

    def warm(self, positions: Positions, scores: Array) -> None:
        """Take the normal `scores` (k,) of the candidates at `positions` (k,), before anything is asked; k ≥ 2."""
        ...


def warm_up(method: Method, name: str, pool: Pool, known: Mapping[str, float]) -> None:
    """Tell `method` the `known` performances of architectures, those that are candidates.

    Raises `UsageError` where it takes none, or fewer than two candidates are known or they do not differ.
    """
    if not isinstance(method, Warm):
        raise UsageError(f"the method {name} takes no warm start; bohb, hnas, local-search, rea and regressor do")
    found = sorted((place, value) for arch, value in known.items() if (place := pool.position(arch)) is not None)
    if len({value for _, value in found}) < 2:
        raise UsageError(
            f"the warm start has {len(known)} known architectures, of which {len(found)} are candidates; it needs two "
            "whose values differ"
        )
    method.warm(np.array([place for place, _ in found]), normal_scores([value for _, value in found]))


def best_first(positions: Positions, scores: Array) -> list[int]:
    """The `positions` (k,) by their `scores` (k,), the highest first."""
    order: list[int] = positions[np.argsort(-scores, kind="stable")].tolist()
    return order


def best_point(points: Array, found: Array) -> Array:
    """The one (d,) of the `points` (n, d) with the highest value in `found` (n,) that lies nearest to their middle."""
    best = points[found == found.max()]
    chosen: Array = best[np.argmin(np.sum((best - best.mean(axis=0)) ** 2, axis=1))]
    return chosen


def normal_scores(values: list[float]) -> Array:
    """Φ⁻¹((rank − ½) / k) of each of the `values` (k,), equal ones by their mean rank."""
    ordered = np.sort(values)
    ranks: NDArray[np.float64] = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right") + 1) / 2
    return np.array([NormalDist().inv_cdf((rank - 0.5) / len(values)) for rank in ranks.tolist()])
