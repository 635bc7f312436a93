"""Rank correlations and partial rank correlations of arrays with ties, missing values and infinities.

Ties get their mean rank, infinities are ranked like other values, and rows with a missing value are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hnas.optim.objective import Array

#: The minimum number of rows for a correlation.
FEWEST = 3


def ranks(values: Array) -> Array:
    """Return the ranks (n,) of `values` (n,) from 1, with the mean rank for ties."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = np.diff(np.append(first, len(values)))
    result = np.empty(len(values))
    result[order] = np.repeat(first + (counts + 1) / 2, counts)
    return result


def spearman(x: Array, y: Array) -> float:
    """Spearman's ρ of x (n,) and y (n,); NaN where either is constant or fewer than three rows have both."""
    x, y = known(x, y)
    return pearson(ranks(x), ranks(y)) if len(x) >= FEWEST else float("nan")


def pearson(x: Array, y: Array) -> float:
    """Pearson's correlation of x (n,) and y (n,); NaN where either is constant."""
    a, b = x - x.mean(), y - y.mean()
    norm = np.sqrt(dot(a, a) * dot(b, b))
    return float(np.clip(dot(a, b) / norm, -1, 1)) if norm > 0 else float("nan")


def dot(a: Array, b: Array) -> float:
    """Return the inner product, computed in this thread: BLAS threads cost more than they save here."""
    return float((a * b).sum())


def kendall(x: Array, y: Array) -> float:
    """Kendall's τ-b of x (n,) and y (n,), NaN as in `spearman`.

    τ-b = (n₀ − n₁ − n₂ + n₃ − 2 Q) / √((n₀ − n₁)(n₀ − n₂)), where n₀ counts all pairs, n₁ and n₂ those tied in x and in
    y, n₃ those tied in both, and Q those in which x and y disagree: the inversions of y in the order of x.
    Cost: O(n log n). Source: Knight, "A computer method for calculating Kendall's tau with ungrouped data", JASA 61,
    1966.
    """
    x, y = known(x, y)
    n = len(x)
    if n < FEWEST:
        return float("nan")
    a, b = dense(x), dense(y)
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    # Equal values keep their order, so they do not count as inversions.
    places = np.empty(n, np.int64)
    places[np.argsort(b, kind="stable")] = np.arange(n)
    pairs = n * (n - 1) // 2
    tied_x, tied_y = _tied(a), _tied(b)
    concordance = pairs - tied_x - tied_y + _tied(a * n + b) - 2 * _inversions(places)
    norm = float(pairs - tied_x) * float(pairs - tied_y)
    return float(np.clip(concordance / np.sqrt(norm), -1, 1)) if norm > 0 else float("nan")


def dense(values: Array | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index (n,) of each value among the distinct ones, in ascending order."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _tied(values: NDArray[np.int64]) -> int:
    """Return the number of pairs of equal values."""
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(places: NDArray[np.int64]) -> int:
    """Count the pairs of a permutation (n,) of 0 … n − 1 in which the larger value comes first."""
    return len(places) * (len(places) - 1) // 2 - int(_smaller_before(places).sum())


def _smaller_before(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count for each entry of a permutation (n,) of 0 … n − 1 the smaller entries before it, (n,).

    Goes through the bits from the highest. Entries that agree in all higher bits form a group that keeps their order;
    each entry with the bit set has those without it, and before it, as smaller ones. Then each group is split by the
    bit.
    """
    places = places.astype(np.int32)
    index = np.arange(len(places), dtype=np.int32)
    owners, found = index, np.zeros(len(places), np.int64)
    for bit in range(max(len(places) - 1, 1).bit_length() - 1, -1, -1):
        high = places >> bit & 1
        start = places >> (bit + 1) << (bit + 1)
        before = np.cumsum(high, dtype=np.int32) - high  # number of earlier entries with the bit, in all groups
        before -= before[start]
        risen = np.flatnonzero(high)
        smaller = index[risen] - start[risen] - before[risen]
        found[owners[risen]] += smaller
        parted = index - before
        parted[risen] = start[risen] + (1 << bit) + before[risen]
        moved_places, moved_owners = np.empty_like(places), np.empty_like(owners)
        moved_places[parted], moved_owners[parted] = places, owners
        places, owners = moved_places, moved_owners
    return found


def concordance(x: Array, y: Array) -> Array:
    """Return for each row of x (n,) and y (n,) the number of concordant minus discordant rows, (n,); no NaN.

    s_i = Σ_j sgn(x_i − x_j) sgn(y_i − y_j), so Σ s_i / 2 is the numerator of `kendall`. With h the number of rows
    below plus half of the equal ones, and b that of rows below in both, where equality counts half in each,
    s_i = 4 b_i − 2 h_i(x) − 2 h_i(y) + n. Cost: O(n log n).
    """
    n = len(x)
    a, b = dense(x), dense(y)
    order = np.lexsort((-b, a))  # for equal x the larger y first, so none of them counts as below
    places = np.empty(n, np.int64)
    places[np.lexsort((-np.arange(n), b[order]))] = np.arange(n)  # and for equal y the earlier
    both = np.empty(n)
    both[order] = _smaller_before(places)
    below_x, equal_x = _below(a)
    below_y, equal_y = _below(b)
    below_pair, equal_pair = _below(a * n + b)  # in x, or in y if x is equal
    within_x = below_pair - below_x
    within_y = _below(b * n + a)[0] - below_y
    both += 0.5 * (within_x + within_y) + 0.25 * equal_pair
    return 4 * both - 2 * (below_x + equal_x / 2) - 2 * (below_y + equal_y / 2) + n


def _below(values: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return for each value the numbers of smaller and of equal values, including itself; both (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    return first[inverse].astype(float), counts[inverse].astype(float)


def known(*columns: Array) -> list[Array]:
    """Return the columns (n,) restricted to the rows where none is missing."""
    present = ~np.any([np.isnan(column) for column in columns], axis=0)
    return [column[present] for column in columns]


def partial_spearman(x: Array, y: Array, given: Sequence[Array]) -> float:
    """Spearman's partial ρ of x (n,) and y (n,) given k columns (n,).

    Pearson's correlation of the residuals of the ranks of x and y after a linear regression, with a constant, on the
    ranks of the given columns. NaN if either residual vanishes.
    """
    x, y, *others = known(x, y, *given)
    if len(x) < FEWEST + len(others):
        return float("nan")
    design = np.column_stack([np.ones(len(x)), *(_standard(ranks(column)) for column in others)])
    left = []
    for ranked in (_standard(ranks(x)), _standard(ranks(y))):
        residual = ranked - design @ np.linalg.lstsq(design, ranked, rcond=None)[0]
        if dot(residual, residual) <= 1e-12 * len(x):  # determined by the given columns
            return float("nan")
        left.append(residual)
    return pearson(*left)


def partial_kendall(x: Array, y: Array, given: Array) -> float:
    """Kendall's partial τ of x (n,) and y (n,) given one column z (n,).

    (τ_xy − τ_xz τ_yz) / √((1 − τ_xz²)(1 − τ_yz²)). NaN if x or y is a monotone function of z.
    Source: Kendall, "Partial rank correlation", Biometrika 32, 1942.
    """
    x, y, z = known(x, y, given)
    xy, xz, yz = kendall(x, y), kendall(x, z), kendall(y, z)
    norm = (1 - xz * xz) * (1 - yz * yz)
    return float(np.clip((xy - xz * yz) / np.sqrt(norm), -1, 1)) if norm > 1e-12 else float("nan")


def _standard(values: Array) -> Array:
    deviation = values.std()
    scaled: Array = (values - values.mean()) / (deviation if deviation > 0 else 1.0)
    return scaled


#: The measures by method name.
MEASURES: dict[str, Callable[[Array, Array], float]] = {"spearman": spearman, "kendall": kendall}
