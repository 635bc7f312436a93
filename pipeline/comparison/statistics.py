"""Uncertainty of a mean over seeds: its deviation, a confidence interval, and a test against a reference.

- deviation: that of the population, √(Σ (x − x̄)² / n), as in numpy's `std` and the published programs;
- interval: 95 %, the 2.5 and 97.5 percentiles of the means of 10,000 resamples of the seeds (percentile bootstrap);
- test: two-sided Mann–Whitney U test of two independent samples, p-values adjusted by Holm's method over all rivals on
  one data set: p₍ᵢ₎' = max_{j≤i} min(1, (k − j + 1) p₍ⱼ₎) for the k sorted p-values.

Efron, "Bootstrap methods: another look at the jackknife", 1979. Mann and Whitney, 1947. Holm, "A simple sequentially
rejective multiple test procedure", 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

Array = NDArray[np.float64]

#: Minimum number of seeds for an interval or a test.
FEWEST = 3
_RESAMPLES = 10_000


def bootstrap_interval(values: Array) -> tuple[float, float] | None:
    """Return the interval of the mean of `values` (n,), deterministically; None for fewer than three values."""
    n = len(values)
    if n < FEWEST:
        return None
    low, high = np.percentile(_weights(n) @ values / n, [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _weights(n: int) -> Array:
    """Return how often each of n values is drawn in each resample, (10,000, n); the same for equal n, so cached."""
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    return drawn.astype(np.float64)


def mann_whitney(reference: Array, rival: Array) -> float | None:
    """Return the two-sided p-value of `reference` (n,) against `rival` (m,); None if either has fewer than 3 values."""
    if min(len(reference), len(rival)) < FEWEST:
        return None
    if np.ptp(np.concatenate([reference, rival])) == 0:
        return 1.0  # scipy divides by the zero variance of the ranks
    return float(mannwhitneyu(reference, rival, alternative="two-sided").pvalue)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values in the order of `p`; None stands for a test not made, which does not count."""
    made = sorted((value, place) for place, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, place) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * value))
        adjusted[place] = largest
    return adjusted
