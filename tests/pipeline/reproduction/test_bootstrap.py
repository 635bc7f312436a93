"""Bootstrap intervals of correlations: every resample against a recomputation, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from hnas.pipeline.analysis.ranks import concordance
from hnas.pipeline.reproduction.bootstrap import interval, resample


def population(rng: np.random.Generator, classes: int, correlation: float, *, digits: int = 9):
    """Classes of 1 to 6 strings that share an x, and targets whose Pearson correlation with x is `correlation`."""
    size = rng.integers(1, 7, classes)
    owner = np.repeat(np.arange(classes), size)
    x = rng.normal(size=classes)[owner]
    # The residual is partly shared by the strings of a class, partly their own.
    noise = math.sqrt(0.7) * rng.normal(size=classes)[owner] + math.sqrt(0.3) * rng.normal(size=len(owner))
    y = correlation * x + math.sqrt(1 - correlation**2) * noise
    return owner, np.round(x, digits), np.round(y, digits)


@pytest.mark.parametrize("distinct", [2, 5, 10**6])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 130])
def test_concordance_counts_the_pairs_of_each_row(n: int, distinct: int):
    rng = np.random.default_rng(n)
    x, y = rng.integers(0, distinct, (2, n)).astype(float)
    slow = (np.sign(x[:, None] - x) * np.sign(y[:, None] - y)).sum(axis=1)
    assert concordance(x, y) == pytest.approx(slow)


def test_each_resample_draws_whole_classes():
    rng = np.random.default_rng(0)
    owner, x, y = population(rng, 200, 0.6, digits=1)
    varying = np.where(rng.random(len(x)) < 0.2, np.inf, x)  # also within a class
    shuffled = rng.permutation(len(owner))
    found = resample(owner[shuffled], y[shuffled], [x[shuffled], varying[shuffled]], resamples=60, seed=3)
    drawn = np.random.default_rng(3).multinomial(200, np.full(200, 1 / 200), size=60)
    exact = np.empty((60, 2))
    for number, counts in enumerate(drawn):
        rows = np.repeat(np.arange(len(owner)), counts[owner])
        for k, column in enumerate((x, varying)):
            finite = np.where(np.isinf(column), 1e9, column)[rows]
            assert found.spearman[number, k] == pytest.approx(spearmanr(finite, y[rows]).statistic, abs=1e-10)
            exact[number, k] = kendalltau(finite, y[rows]).statistic
    # τ is linearised in the weights; the error is small compared with its deviation.
    left_out = np.sqrt(((found.kendall - exact) ** 2).mean(axis=0))
    assert (left_out < 0.25 * exact.std(axis=0)).all()
    assert found.kendall.mean(axis=0) == pytest.approx(exact.mean(axis=0), abs=0.01)
    assert found.kendall.std(axis=0) == pytest.approx(exact.std(axis=0), rel=0.1)


def test_intervals_over_classes_have_their_coverage_and_those_over_strings_do_not():
    """Normal x and y with Pearson's r have Spearman's ρ = 6/π asin(r/2) and Kendall's τ = 2/π asin(r)."""
    rng = np.random.default_rng(1)
    r, simulations = 0.6, 1000
    truths = 6 / math.pi * math.asin(r / 2), 2 / math.pi * math.asin(r)
    held = np.zeros(3, int)
    for number in range(simulations):
        owner, x, y = population(rng, 120, r)
        found = resample(owner, y, [x], resamples=400, seed=number)
        strings = resample(np.arange(len(owner)), y, [x], resamples=100, seed=number) if number < 200 else None
        for k, (values, truth) in enumerate(
            ((found.spearman, truths[0]), (found.kendall, truths[1]), (strings and strings.spearman, truths[0]))
        ):
            if values is not None:
                low, high = interval(values[:, 0]) or (math.nan, math.nan)
                held[k] += low <= truth <= high
    assert 930 <= held[0] <= 970
    assert 930 <= held[1] <= 970
    assert held[2] < 0.9 * 200, "strings of a class are not independent draws"


def test_a_constant_column_has_no_interval():
    found = resample(np.arange(20), np.arange(20.0), [np.ones(20)], resamples=50)
    assert interval(found.spearman[:, 0]) is None
    assert interval(found.kendall[:, 0]) is None
