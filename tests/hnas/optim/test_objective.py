"""Eq. (7) against a slow loop, where it is infinite, and the search range of (μ, ν)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnas import UsageError
from hnas.optim.objective import BOUNDS, SearchRange, objective

INF, NAN = math.inf, math.nan

anything = st.floats(allow_nan=True, allow_infinity=True)
moderate = st.floats(1e-6, 1e6)
exponents = st.floats(0.1, 4)


def pool(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A metric over several orders of magnitude, and condition numbers of which some are infinite."""
    rng = np.random.default_rng(seed)
    kappa = 10 ** rng.uniform(0.5, 4, n)
    kappa[rng.random(n) < 0.1] = INF
    return rng.lognormal(2, 1.5, n), kappa


def slowly(metric: float, kappa: float, mu: float, nu: float, t: float) -> float:
    m = abs(metric)
    if not math.isfinite(kappa) or not m > 0:
        return INF
    return kappa / m + mu * abs(m**2 - nu) ** (2 * t)


@pytest.mark.parametrize("t", [0.5, 1.0, 1.7])
def test_the_objective_matches_equation_7(t: float) -> None:
    metric, kappa = pool(300, 0)
    metric[::3] *= -1
    metric[5], metric[6] = 0.0, NAN
    value = objective(metric, kappa, mu=0.3, nu=40.0, t=t)
    expected = [slowly(m, k, 0.3, 40.0, t) for m, k in zip(metric.tolist(), kappa.tolist(), strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert np.isinf(value).sum() == np.isinf(kappa).sum() + 2


def test_a_worked_example() -> None:
    # kappa / M + mu (M^2 - nu)^2 = 12/3 + 0.5 (9 - 5)^2
    assert objective(np.array([3.0]), np.array([12.0]), mu=0.5, nu=5.0).tolist() == [12.0]
    # the authors' exponent: 12/3 + 0.5 |4 - 9| at M = 2
    assert objective(np.array([2.0]), np.array([12.0]), mu=0.5, nu=9.0, t=0.5).tolist() == [8.5]


@pytest.mark.parametrize(
    ("metric", "kappa"),
    [(2.0, INF), (2.0, NAN), (0.0, 5.0), (-0.0, 5.0), (NAN, 5.0), (0.0, INF), (2.0, -INF), (INF, 5.0)],
)
@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_singular_or_unknown_networks_are_never_the_minimum(metric: float, kappa: float, mu: float) -> None:
    value = objective(np.array([metric, 1e-3]), np.array([kappa, 1e6]), mu=mu, nu=1e3)
    assert value[0] == INF
    assert math.isfinite(value[1])


def test_a_negative_metric_counts_by_its_absolute_value() -> None:
    metric, kappa = pool(50, 1)
    np.testing.assert_array_equal(objective(-metric, kappa, mu=0.1, nu=3.0), objective(metric, kappa, mu=0.1, nu=3.0))


@pytest.mark.parametrize("t", [0.0, -1.0, NAN, INF])
def test_an_exponent_that_is_not_positive_and_finite_is_refused(t: float) -> None:
    one = np.ones(3)
    with pytest.raises(UsageError, match="t of F"):
        objective(one, one, mu=1.0, nu=1.0, t=t)
    with pytest.raises(UsageError, match="t of F"):
        SearchRange.of(np.arange(3.0), one, t)


@given(
    rows=st.lists(st.tuples(anything, anything), min_size=1, max_size=20),
    mu=st.floats(0, 1e300),
    nu=st.floats(0, 1e300),
    t=st.floats(1e-3, 8),
)
def test_the_objective_is_never_nan(rows: list[tuple[float, float]], mu: float, nu: float, t: float) -> None:
    metric, kappa = np.array(rows).T
    value = objective(metric, kappa, mu=mu, nu=nu, t=t)
    assert not np.isnan(value).any()
    assert np.isposinf(value[~np.isfinite(kappa) | (metric == 0) | np.isnan(metric)]).all()


@given(metric=moderate, kappa=st.floats(1, 1e12), mu=st.floats(0, 1e6), nu=st.floats(0, 1e12), t=exponents)
def test_the_objective_is_finite_and_positive_where_kappa_is_finite(
    metric: float, kappa: float, mu: float, nu: float, t: float
) -> None:
    (value,) = objective(np.array([metric]), np.array([kappa]), mu=mu, nu=nu, t=t)
    assert 0 < value < INF
    assert value == pytest.approx(slowly(metric, kappa, mu, nu, t), rel=1e-9)


# The search range.


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.83, 1.0])
def test_nu_is_a_quantile_of_the_squared_metric_of_usable_rows(q: float) -> None:
    metric, kappa = pool(400, 2)
    metric[:4] = 0.0, NAN, INF, -30.0
    usable = np.isfinite(metric) & (metric != 0) & np.isfinite(kappa)
    _, nu = SearchRange.of(metric, kappa).point(log10_mu=0.0, nu_quantile=q)
    assert nu == pytest.approx(np.quantile(metric[usable] ** 2, q), rel=1e-12)


@pytest.mark.parametrize("t", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("q", [0.0, 0.4, 1.0])
def test_at_zero_the_medians_of_both_terms_are_equal(q: float, t: float) -> None:
    metric, kappa = pool(401, 3)
    mu, nu = SearchRange.of(metric, kappa, t).point(log10_mu=0.0, nu_quantile=q)
    usable = np.isfinite(kappa)
    m = metric[usable]
    assert np.median(kappa[usable] / m) == pytest.approx(mu * np.median(np.abs(m**2 - nu) ** (2 * t)), rel=1e-9)


def test_mu_is_searched_on_a_log_scale() -> None:
    search_range = SearchRange.of(*pool(100, 4))
    (low, nu), (middle, _), (high, _) = (search_range.point(log10_mu=p, nu_quantile=0.3) for p in (-3.0, 0.0, 3.0))
    assert middle / low == pytest.approx(1e3)
    assert high / middle == pytest.approx(1e3)
    assert search_range.point(log10_mu=2.0, nu_quantile=0.3)[1] == nu
    assert BOUNDS == {"log10_mu": (-1.5, 1.5), "nu_quantile": (0.0, 1.0)}


def test_a_quantile_just_outside_its_range_is_clipped() -> None:
    search_range = SearchRange.of(*pool(100, 4))
    assert search_range.point(0.0, 1.0 + 1e-12) == search_range.point(0.0, 1.0)
    assert search_range.point(0.0, -1e-12) == search_range.point(0.0, 0.0)


@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([2.0**-40, 2.0**-7, 2.0, 2.0**30]),
    log10_mu=st.floats(-3, 3),
    q=st.floats(0, 1),
    t=st.sampled_from([0.5, 1.0]),
)
def test_the_unit_of_the_metric_does_not_change_the_order_of_the_pool(
    seed: int, scale: float, log10_mu: float, q: float, t: float
) -> None:
    """If M is scaled by c, ν scales by c² and μ by c^(−1−4t), and every objective is divided by c."""
    metric, kappa = pool(200, seed)
    values = []
    for m in (metric, scale * metric):
        mu, nu = SearchRange.of(m, kappa, t).point(log10_mu, q)
        values.append(objective(m, kappa, mu=mu, nu=nu, t=t))
    plain, scaled = values
    np.testing.assert_allclose(scaled * scale, plain, rtol=1e-9)
    assert np.argmin(scaled) == np.argmin(plain)


@given(seed=st.integers(0, 1000), log10_mu=st.floats(-3, 3), q=st.floats(0, 1), t=st.sampled_from([0.5, 1.0, 2.0]))
def test_every_point_maps_to_a_positive_mu_and_a_nu_of_the_pool(seed: int, log10_mu: float, q: float, t: float) -> None:
    metric, kappa = pool(30, seed)
    mu, nu = SearchRange.of(metric, kappa, t).point(log10_mu, q)
    usable = metric[np.isfinite(kappa)] ** 2
    assert 0 < mu < INF
    assert usable.min() <= nu <= usable.max()


@pytest.mark.parametrize(
    ("metric", "kappa", "usable"),
    [
        ([], [], 0),
        ([1.0], [2.0], 1),
        ([1.0, 2.0], [INF, INF], 0),
        ([1.0, 2.0], [3.0, INF], 1),
        ([1.0, 0.0, NAN, INF], [3.0, 3.0, 3.0, 3.0], 1),
    ],
)
def test_a_pool_with_fewer_than_two_usable_rows_is_refused(
    metric: list[float], kappa: list[float], usable: int
) -> None:
    with pytest.raises(UsageError, match=f"at least 2 architectures .* the pool has {usable}"):
        SearchRange.of(np.array(metric), np.array(kappa))


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_a_constant_metric_leaves_the_choice_to_kappa(q: float) -> None:
    metric, kappa = np.full(5, 3.0), np.array([5.0, 2.0, 9.0, INF, 4.0])
    mu, nu = SearchRange.of(metric, kappa).point(0.0, q)
    assert (0 < mu < INF, nu) == (True, 9.0)
    assert int(np.argmin(objective(metric, kappa, mu=mu, nu=nu))) == 1


@given(
    squares=st.lists(st.one_of(moderate, st.sampled_from([1.0, 2.0, 3.0])), min_size=2, max_size=30),
    quantile=st.floats(0, 1),
    t=exponents,
)
def test_points_match_numpys_quantile_and_median_bit_for_bit(squares: list[float], quantile: float, t: float) -> None:
    """A saved search can only be resumed if its points are reproduced exactly."""
    metric = np.sqrt(np.array(squares))
    kappa = np.linspace(1, 2, len(squares))
    mu, nu = SearchRange.of(metric, kappa, t).point(0.0, quantile)
    found = np.sort(metric**2)
    assert nu == np.quantile(found, quantile)
    penalty = np.median(np.abs(found - nu) ** (2 * t))
    assert mu == (np.median(kappa / metric) / penalty if penalty > 0 else 1.0)


@given(seed=st.integers(0, 1000), log10_mu=st.floats(-1.5, 1.5), q=st.floats(0, 1), t=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_place_of_a_proposal_is_the_point_that_gave_it(seed: int, log10_mu: float, q: float, t: float) -> None:
    search_range = SearchRange.of(*pool(30, seed), t)
    assert search_range.place(*search_range.point(log10_mu, q)) == pytest.approx((log10_mu, q), abs=1e-6)


def test_where_squares_are_equal_their_middle_is_the_place_of_nu() -> None:
    search_range = SearchRange.of(np.array([1.0, 2.0, 2.0, 2.0, 3.0]), np.full(5, 10.0))
    for q in (0.25, 0.4, 0.75):
        assert search_range.place(*search_range.point(0.3, q)) == pytest.approx((0.3, 0.5))
