"""Intervals and tests of a comparison, compared with scipy and hand calculations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hnas.pipeline.comparison.statistics import bootstrap_interval, holm, mann_whitney


def test_the_interval_is_the_percentile_bootstrap_of_the_mean():
    values = np.random.default_rng(1).normal(94, 0.4, size=40)
    found = bootstrap_interval(values)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.01)
    assert found == bootstrap_interval(values), "the same seeds give the same interval"


def test_the_interval_has_nearly_its_nominal_coverage():
    rng = np.random.default_rng(3)
    intervals = [bootstrap_interval(rng.normal(0, 1, size=20)) for _ in range(300)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.98


def test_two_seeds_have_no_interval_and_no_test():
    assert bootstrap_interval(np.array([94.0, 94.1])) is None
    assert mann_whitney(np.array([94.0, 94.1]), np.array([94.0, 94.1, 94.2])) is None


def test_the_test_is_two_sided_and_counts_ties():
    x, y = np.array([3.0, 1.0, 2.0, 2.0]), np.array([2.0, 5.0, 4.0, 6.0, 7.0])
    pairs = x[:, None] - y[None, :]
    u = (pairs > 0).sum() + 0.5 * (pairs == 0).sum()
    n, m = len(x), len(y)
    _, counts = np.unique(np.concatenate([x, y]), return_counts=True)
    variance = n * m / 12 * (n + m + 1 - (counts**3 - counts).sum() / ((n + m) * (n + m - 1)))
    z = (max(u, n * m - u) - n * m / 2 - 0.5) / np.sqrt(variance)
    assert mann_whitney(x, y) == pytest.approx(2 * stats.norm.sf(z))
    assert mann_whitney(x, y) == pytest.approx(mann_whitney(y, x))


def test_equal_constant_samples_do_not_differ():
    assert mann_whitney(np.full(5, 94.0), np.full(4, 94.0)) == 1.0


def test_holms_p_values_are_scaled_and_monotone():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_omitted_tests_do_not_count_for_holms_correction():
    assert holm([None, 0.01, None, 0.02]) == [None, 0.02, None, 0.02]
