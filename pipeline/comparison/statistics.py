"""What a reader needs to believe a mean over seeds: its deviation, an interval, and a test against a rival.

- deviation: that of the population, √(Σ (x − x̄)² / n), as numpy's `std` and the published programs have it;
- interval: 95 %, the percentiles 2.5 and 97.5 of the means of 10,000 resamples of the seeds (percentile bootstrap);
- test: Mann and Whitney's U, two-sided, of two independent samples, p-values adjusted by Holm's method over all rivals
  of one data set: p₍ᵢ₎' = max_{j≤i} min(1, (k − j + 1) p₍ⱼ₎) of the k sorted p-values.

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

#: The fewest seeds of which an interval or a test is given.
FEWEST = 3
_RESAMPLES = 10_000


def bootstrap_interval(values: Array) -> tuple[float, float] | None:
    """The interval of the mean of `values` (n,), the same for the same values; None for fewer than three."""
    n = len(values)
    if n < FEWEST:
        return None
    low, high = np.percentile(_weights(n) @ values / n, [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _weights(n: int) -> Array:
    """How often each of n values is drawn in each resample, (10,000, n): for one n the same, so computed once."""
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    return drawn.astype(np.float64)


def mann_whitney(reference: Array, rival: Array) -> float | None:
    """The two-sided p-value of `reference` (n,) against `rival` (m,); None where either has fewer than three values."""
    if min(len(reference), len(rival)) < FEWEST:
        return None
    if np.ptp(np.concatenate([reference, rival])) == 0:
        return 1.0  # scipy divides by the zero variance of the ranks
    return float(mannwhitneyu(reference, rival, alternative="two-sided").pvalue)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values, in the order of `p`; a test that was not made counts for none and stays None."""
    made = sorted((value, place) for place, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, place) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * value))
        adjusted[place] = largest
    return adjusted
