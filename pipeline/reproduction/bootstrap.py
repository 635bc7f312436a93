"""Intervals of correlations over architectures: classes are resampled, not strings.

Architectures of one class are one network with several names and several accuracies, so that they are no independent
draws. A resample draws as many classes as there are, with replacement, each with all of its members: class c has the
weight w_c, how often it was drawn. Correlations are computed with these weights, scaled to a sum of n over rows:

    ρ = Σ w R(x) R(y) / √(Σ w R(x)² Σ w R(y)²),                R weighted mid-ranks, centred
    τ = N / √(N_x N_y),  N = Σ_{i<j} w_i w_j sgn(x_i − x_j) sgn(y_i − y_j),  N_x those pairs that x tells apart

ρ, N_x and N_y are exact in each resample. N is taken to first order, N(w) = N(1) + Σ_c g_c (w_c − 1), with g_c the
concordance of the rows of c: one pass of O(n log n) serves all resamples. What that leaves out is O(1/classes) of N.

The interval is that of the percentiles 2.5 and 97.5. Efron, "Bootstrap methods: another look at the jackknife", 1979;
the resampling of clusters: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hnas.optim.objective import Array
from hnas.pipeline.analysis.ranks import concordance

RESAMPLES = 1000
# Numbers that a block of resamples holds in each of its arrays of rows: 4 MB, which caches hold.
_BLOCK = 500_000

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Resampled:
    """The correlations of k columns with the target in each resample: `spearman` and `kendall`, (resamples, k)."""

    spearman: Array
    kendall: Array


def interval(values: Array) -> tuple[float, float] | None:
    """The 95 % interval of a statistic whose resamples are `values` (resamples,), None where it has none."""
    if np.isnan(values).all():
        return None
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def resample(
    classes: Indices, target: Array, columns: Sequence[Array], *, resamples: int = RESAMPLES, seed: int = 0
) -> Resampled:
    """Resample the classes (n,) of rows with a `target` (n,) and `columns`, each (n,); none has NaN, all may have ±inf.

    Deterministic: the same classes and seed are drawn alike, so that differences of columns may be formed.
    """
    order = np.argsort(classes, kind="stable")
    classes = np.unique(classes[order], return_inverse=True)[1].reshape(-1)
    rows = _Rows(classes, target[order])
    prepared = [_Column(rows, np.asarray(column)[order]) for column in columns]
    rng = np.random.default_rng(seed)
    count = rows.classes[-1] + 1
    found = np.empty((2, len(columns), resamples))
    block = max(1, _BLOCK // len(target))
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size).T.astype(float)
        weights *= len(target) / (rows.counts @ weights)
        drawn = _Drawn(rows, weights)
        for k, column in enumerate(prepared):
            found[:, k, begin : begin + size] = column.correlations(drawn)
    return Resampled(found[0].T, found[1].T)


class _Rows:
    """Rows in the order of their classes: `classes` (n,), `counts` (C,), and the groups of equal targets."""

    def __init__(self, classes: Indices, target: Array) -> None:
        self.classes, self.target = classes, target
        self.counts = np.bincount(classes).astype(float)
        self.starts = _starts(classes)
        self.order = np.argsort(target, kind="stable")
        self.group_starts = _starts(target[self.order])
        self.groups = np.empty(len(target), np.int64)
        self.groups[self.order] = np.repeat(
            np.arange(len(self.group_starts)), np.diff(np.append(self.group_starts, len(target)))
        )


class _Drawn:
    """A block of b resamples: `weights` (C, b), and what the target makes of them.

    `ranks` (n, b) are the target's centred weighted ranks, `square` (b,) the sum of their squares, `told` (b,) the
    pairs that the target tells apart, `sums` (C, b) the ranks of each class, weighted and summed.
    """

    def __init__(self, rows: _Rows, weights: Array) -> None:
        self.weights = np.ascontiguousarray(weights)
        totals = _sums(self.weights[rows.classes[rows.order]], rows.group_starts)
        middle, self.square, self.told = _ranked(totals, len(rows.target))
        self.ranks = middle[rows.groups]
        self.sums = _sums(self.ranks, rows.starts) * weights


class _Column:
    """A column over `rows`. Rows of one class and one value are a unit: for a metric, the classes themselves."""

    def __init__(self, rows: _Rows, values: Array) -> None:
        self._n = len(values)
        concordant = concordance(values, rows.target)
        self._total = concordant.sum() / 2
        self._gradient = np.add.reduceat(concordant, rows.starts)
        dense = np.unique(values, return_inverse=True)[1].reshape(-1)
        self._order: Indices | None = None
        starts = rows.starts
        if (np.diff(dense)[np.diff(rows.classes) == 0] != 0).any():  # a class has several values
            self._order = np.lexsort((dense, rows.classes))
            starts = _starts(rows.classes[self._order] * (dense.max() + 1) + dense[self._order])
        first = starts if self._order is None else self._order[starts]
        self._unit_starts = starts
        self._sorted = np.argsort(dense[first], kind="stable")
        self._value_starts = _starts(dense[first][self._sorted])
        self._unit_classes = rows.classes[first][self._sorted]
        self._unit_counts = np.diff(np.append(starts, self._n)).astype(float)[self._sorted, None]

    def correlations(self, drawn: _Drawn) -> tuple[Array, Array]:
        """ρ and τ (b,) in each resample of a block, NaN where all that was drawn has one value."""
        n = self._n
        totals = _sums(drawn.weights[self._unit_classes] * self._unit_counts, self._value_starts)
        middle, square, told = _ranked(totals, n)
        if self._order is None:
            sums = drawn.sums[self._unit_classes]
        else:
            of_units = _sums(drawn.ranks[self._order], self._unit_starts)[self._sorted]
            sums = of_units * drawn.weights[self._unit_classes]
        product = np.einsum("ij,ij->j", middle, _sums(sums, self._value_starts))
        agreement = self._total + self._gradient @ (drawn.weights - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rho = product / np.sqrt(square * drawn.square)
            tau = agreement / np.sqrt(told * drawn.told)
        some = np.minimum(told, drawn.told) > 1e-9 * n * n
        return np.where(some, np.clip(rho, -1, 1), np.nan), np.where(some, np.clip(tau, -1, 1), np.nan)


def _ranked(totals: Array, n: int) -> tuple[Array, Array, Array]:
    """Of the weights (values, b) of ascending values: centred ranks, Σ w R² and the weighted pairs that differ (b,)."""
    middle = np.cumsum(totals, axis=0)
    middle -= totals / 2
    middle -= n / 2
    square = np.einsum("ij,ij,ij->j", totals, middle, middle)
    return middle, square, (n * n - np.einsum("ij,ij->j", totals, totals)) / 2


def _sums(rows: Array, starts: Indices) -> Array:
    """The sums (groups, b) of consecutive rows (n, b)."""
    return rows if len(starts) == len(rows) else np.add.reduceat(rows, starts, axis=0)


def _starts(ordered: NDArray[np.generic]) -> Indices:
    """Where each group of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
