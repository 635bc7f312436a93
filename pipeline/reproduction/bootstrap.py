"""Bootstrap intervals of correlations over architectures, which resample classes rather than strings.

The architectures of a class are the same network under several names, with several accuracies, so they are not
independent draws. A resample draws as many classes as there are, with replacement, each with all of its members; class
c gets as its weight w_c the number of times it was drawn. The correlations use these weights, scaled to a sum of n over
rows:

    ρ = Σ w R(x) R(y) / √(Σ w R(x)² Σ w R(y)²),                R weighted mid-ranks, centred
    τ = N / √(N_x N_y),  N = Σ_{i<j} w_i w_j sgn(x_i − x_j) sgn(y_i − y_j),  N_x the weighted pairs that differ in x

ρ, N_x and N_y are exact in each resample. N is linearised, N(w) = N(1) + Σ_c g_c (w_c − 1), where g_c is the
concordance of the rows of c, so that one pass of O(n log n) serves all resamples. The relative error is O(1/classes).

The interval runs from the 2.5th to the 97.5th percentile. Sources: Efron, "Bootstrap methods: another look at the
jackknife", 1979; for resampling clusters, Davison and Hinkley, "Bootstrap Methods and their Application", 1997,
section 3.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hnas.optim.objective import Array
from hnas.pipeline.analysis.ranks import concordance, dense

RESAMPLES = 1000
# The most numbers in an array of rows of one block of resamples: 4 MB, small enough for the cache.
_BLOCK = 500_000

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Resampled:
    """The correlations of k columns with the target in each resample: `spearman` and `kendall`, (resamples, k)."""

    spearman: Array
    kendall: Array


def interval(values: Array) -> tuple[float, float] | None:
    """The 95 % interval of a statistic from its resamples `values` (resamples,), or None if all of them are NaN."""
    if np.isnan(values).all():
        return None
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def resample(
    classes: Indices, target: Array, columns: Sequence[Array], *, resamples: int = RESAMPLES, seed: int = 0
) -> Resampled:
    """Resample the classes (n,) of rows with a `target` (n,) and `columns`, each (n,), which may have ±inf but not NaN.

    Deterministic: the same classes and seed give the same draws, so that columns can be compared draw by draw.
    """
    rows = _Rows(dense(classes), target)
    prepared = [_Column(rows, np.asarray(column)) for column in columns]
    rng = np.random.default_rng(seed)
    count = len(rows.counts)
    coefficients = np.empty((2, len(columns), resamples))
    block = max(1, _BLOCK // len(target))
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size).T.astype(float)
        weights *= len(target) / (rows.counts @ weights)
        drawn = _Drawn(rows, weights)
        for k, column in enumerate(prepared):
            coefficients[:, k, begin : begin + size] = column.correlations(drawn)
    return Resampled(coefficients[0].T, coefficients[1].T)


class _Rows:
    """Rows by class: `classes` (n,), the classes' sizes `counts` (C,), and the `groups` (n,) of equal targets."""

    def __init__(self, classes: Indices, target: Array) -> None:
        self.classes, self.target = classes, target
        self.counts = np.bincount(classes).astype(float)
        self.groups = dense(target)
        self.by_target = _sums(self.groups, classes)
        self.by_class = _sums(classes, np.arange(len(classes)))


class _Drawn:
    """A block of b resamples: the `weights` (C, b), and the parts of ρ and τ that depend on the target alone.

    `ranks` (n, b) are the target's centred weighted ranks, `square` (b,) the sum of their squares, `distinct` (b,) the
    weighted pairs that differ in the target, `sums` (C, b) the weighted sum of each class's ranks.
    """

    def __init__(self, rows: _Rows, weights: Array) -> None:
        self.weights = np.ascontiguousarray(weights)
        middle, self.square, self.distinct = _ranked(rows.by_target @ self.weights, len(rows.target))
        self.ranks = middle[rows.groups]
        self.sums = (rows.by_class @ self.ranks) * self.weights
        self._classes = rows.classes

    @cached_property
    def weighted(self) -> Array:
        """The weighted ranks (n, b) of the target."""
        return self.ranks * self.weights[self._classes]


class _Column:
    """A column over `rows`."""

    def __init__(self, rows: _Rows, values: Array) -> None:
        self._n = len(values)
        concordant = concordance(values, rows.target)
        self._total = concordant.sum() / 2
        self._gradient = np.bincount(rows.classes, concordant)
        places = dense(values)
        self._by_value = _sums(places, rows.classes)
        self._one_value_each = self._by_value.nnz == len(rows.counts)  # as metrics have, which are of classes
        if self._one_value_each:
            self._ranks_by_value = self._by_value.copy()
            self._ranks_by_value.data[:] = 1.0
        else:
            self._ranks_by_value = _sums(places, np.arange(self._n))

    def correlations(self, drawn: _Drawn) -> tuple[Array, Array]:
        """ρ and τ (b,) in each resample of a block, NaN where the drawn rows have a constant column or target."""
        n = self._n
        middle, square, distinct = _ranked(self._by_value @ drawn.weights, n)
        ranks = self._ranks_by_value @ (drawn.sums if self._one_value_each else drawn.weighted)
        product = np.einsum("ij,ij->j", middle, ranks)
        agreement = self._total + self._gradient @ (drawn.weights - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rho = product / np.sqrt(square * drawn.square)
            tau = agreement / np.sqrt(distinct * drawn.distinct)
        varied = np.minimum(distinct, drawn.distinct) > 1e-9 * n * n
        return np.where(varied, np.clip(rho, -1, 1), np.nan), np.where(varied, np.clip(tau, -1, 1), np.nan)


def _ranked(totals: Array, n: int) -> tuple[Array, Array, Array]:
    """Centred ranks, Σ w R² and the weighted pairs that differ (b,), given the weights (values, b) of sorted values."""
    middle = np.cumsum(totals, axis=0)
    middle -= totals / 2
    middle -= n / 2
    square = np.einsum("ij,ij,ij->j", totals, middle, middle)
    return middle, square, (n * n - np.einsum("ij,ij->j", totals, totals)) / 2


def _sums(groups: Indices, members: Indices) -> csr_array:
    """The sparse matrix (groups, members) that sums over the members of each group, as often as they occur."""
    return csr_array((np.ones(len(groups)), (groups, members)))
