"""The non-realizable column of Table 1: the (μ, ν) of eq. (7) for which −(7) ranks architectures most like a target.

Searches a grid over (log₁₀ μ, quantile of ν), then finer grids around its best points, each half as wide as the last.
The target is ranked once, and rows with the same M and κ are merged, so each point costs one sort of the distinct rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from hnas.errors import UsageError
from hnas.optim.objective import Array, SearchRange, objective
from hnas.pipeline.analysis.ranks import MEASURES, dot, known, ranks

# μ in units of the ratio of the medians of the two terms of (7). A correlation counts all ranks, not only the first, so
# its best μ may be 10⁻⁴ times the one at which the terms balance; then only the largest distances from ν matter.
_LOG10_MU = np.linspace(-6.0, 3.0, 19)
_QUANTILES = np.linspace(0.0, 1.0, 21)
# Number of best points to refine, and of refinements.
_STARTS, _ROUNDS = 2, 6
# Refinements for τ, which is slower, starting at the best point for ρ.
_TAU_ROUNDS = 3


@dataclass(frozen=True)
class Boosted:
    """The correlations of one metric with a target by one `method`: a cell in each half of Table 1.

    `realizable` is the correlation of M itself, `non_realizable` that of −(7) at its best (μ, ν). NaN where undefined:
    constant values, or fewer than two architectures with a finite κ.
    """

    metric: str
    method: str
    realizable: float
    non_realizable: float
    mu: float
    nu: float


def boosted(metric: str, m: Array, kappa: Array, target: Array, t: float) -> list[Boosted]:
    """Return the row of `metric`, with values m (n,), for both methods.

    τ is maximised near the best point for ρ. Deterministic.
    """
    plain = {method: measure(m, target) for method, measure in MEASURES.items()}
    try:
        search_range = SearchRange.of(m, kappa, t)
    except UsageError:  # too few architectures with finite values of (7)
        return [Boosted(metric, method, value, *[np.nan] * 3) for method, value in plain.items()]
    fast = _Ranked(m, kappa, target, t)
    tried: dict[tuple[float, float], float] = {}

    @cache
    def unit(quantile: float) -> tuple[float, float]:
        return search_range.point(0.0, quantile)

    def point(place: tuple[float, float]) -> tuple[float, float]:
        scale, nu = unit(place[1])
        return 10.0 ** place[0] * scale, nu

    def value_at(place: tuple[float, float]) -> float:
        if place not in tried:
            tried[place] = fast.spearman(*point(place))
        return tried[place]

    def exact(method: str, place: tuple[float, float]) -> float:
        mu, nu = point(place)
        return MEASURES[method](-objective(m, kappa, mu=mu, nu=nu, t=t), target)

    for place in product(_LOG10_MU.tolist(), _QUANTILES.tolist()):
        value_at(place)
    for start in sorted(tried, key=lambda place: -tried[place])[:_STARTS]:
        best, width = start, 0.5
        for _ in range(_ROUNDS):
            best = max([best, *_around(best, width)], key=value_at)
            width /= 2
    best = max(tried, key=lambda place: tried[place])
    rows = [_row(metric, "spearman", plain, exact("spearman", best), point(best))]
    taus = {best: exact("kendall", best)}
    width = 0.5
    for _ in range(_TAU_ROUNDS):
        for place in _across(best, width):
            if place not in taus:
                taus[place] = exact("kendall", place)
        best = max(taus, key=lambda place: -2.0 if np.isnan(taus[place]) else taus[place])
        width /= 2
    return [*rows, _row(metric, "kendall", plain, taus[best], point(best))]


def _row(metric: str, method: str, plain: dict[str, float], value: float, point: tuple[float, float]) -> Boosted:
    mu, nu = (np.nan, np.nan) if np.isnan(value) else point
    return Boosted(metric, method, plain[method], value, mu, nu)


def _around(place: tuple[float, float], width: float) -> Iterator[tuple[float, float]]:
    """Yield the eight neighbours of a point at a distance of `width` grid steps."""
    for right, up in product((-1, 0, 1), repeat=2):
        if (right, up) != (0, 0):
            yield _moved(place, right * width, up * width)


def _across(place: tuple[float, float], width: float) -> Iterator[tuple[float, float]]:
    """Yield the four axis-aligned neighbours."""
    for right, up in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        yield _moved(place, right * width, up * width)


def _moved(place: tuple[float, float], right: float, up: float) -> tuple[float, float]:
    mu = place[0] + right * (_LOG10_MU[1] - _LOG10_MU[0])
    quantile = place[1] + up * (_QUANTILES[1] - _QUANTILES[0])
    return float(np.clip(mu, _LOG10_MU[0], _LOG10_MU[-1])), float(np.clip(quantile, 0.0, 1.0))


class _Ranked:
    """Fast Spearman's ρ of −(7) with a target. Rows with equal M and κ share a rank; other ties are ignored.

    For groups of w rows with rank r whose target ranks b sum to s, ρ = −Σ r s / √(Σ w r² Σ b²), all ranks centred.
    """

    def __init__(self, m: Array, kappa: Array, target: Array, t: float) -> None:
        m, kappa, target = known(m, kappa, target)
        b = ranks(target) if len(target) else target
        b = b - b.mean() if len(b) else b
        dead = ~np.isfinite(objective(m, kappa, mu=0.0, nu=0.0, t=t))
        pairs = np.column_stack([np.where(dead, np.inf, np.abs(m)), np.where(dead, np.inf, kappa)])
        unique, inverse, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
        sums = np.bincount(inverse.reshape(-1), weights=b, minlength=len(unique))
        alive = np.isfinite(unique[:, 1])
        self._squares, self._ratios = unique[alive, 0] ** 2, unique[alive, 1] / unique[alive, 0]
        self._counts, self._sums = counts[alive], sums[alive]
        n, last = len(b), int(counts[~alive].sum())
        self._middle = (n + 1) / 2
        place = n - (last - 1) / 2 - self._middle  # the common rank of all dead rows
        self._dead = (place * float(sums[~alive].sum()), last * place * place)
        self._norm = dot(b, b)
        self._t = t

    def spearman(self, mu: float, nu: float) -> float:
        """Return ρ at (μ, ν), or −2 where undefined."""
        distance = np.abs(self._squares - nu)
        with np.errstate(over="ignore"):
            values = self._ratios + mu * (distance * distance if self._t == 1 else distance ** (2 * self._t))
        order = np.argsort(values)
        counts = self._counts[order]
        placed = np.cumsum(counts) - (counts - 1) / 2 - self._middle
        product = dot(placed, self._sums[order]) + self._dead[0]
        norm = (dot(counts, placed * placed) + self._dead[1]) * self._norm
        return -product / np.sqrt(norm) if norm > 0 else -2.0
