"""Bounds with a fitted constant: how it is fitted, which networks test it, and how tight the bound is."""

import pytest
import torch
from scipy.stats import spearmanr

from hnas.theory import generalisation
from hnas.theory.generalisation import Trained


@pytest.fixture(scope="module")
def trained() -> Trained:
    return generalisation.train(seed=0, noise=0.25)


def test_the_constant_is_the_least_that_holds_for_its_fitting_networks(trained: Trained):
    fitting, testing = generalisation.random_halves(len(trained.kappa), 0)
    constant = generalisation.theorem2(trained, fitting, testing).constant
    unit = (trained.kappa / trained.trace)[:, None]
    for factor, holds in ((1 + 1e-9, True), (1 - 1e-9, False)):
        right = trained.training + factor * constant * unit
        assert bool((trained.generalisation <= right)[fitting].all()) is holds


def test_halves_share_no_network_and_depend_on_the_seed():
    fitting, testing = generalisation.random_halves(48, 0)
    assert sorted(torch.cat([fitting, testing]).tolist()) == list(range(48))
    assert len(fitting) == len(testing)
    assert fitting.tolist() != generalisation.random_halves(48, 1)[0].tolist()


def test_the_gap_increases_with_kappa_over_m_but_far_more_slowly(trained: Trained):
    assert spearmanr(trained.kappa / trained.trace, trained.gap).statistic > 0.5
    assert 0 < generalisation.exponent(trained) < 0.6


def test_a_constant_fitted_where_kappa_over_m_is_large_fails_where_it_is_small(trained: Trained):
    order = (trained.kappa / trained.trace).argsort()
    small, large = order[:24], order[24:]
    assert generalisation.theorem2(trained, large, small).broken > 0.5
    held = generalisation.theorem2(trained, small, large)
    assert held.broken < 0.1
    assert held.informative < 0.1


def test_printed_corollary_2_is_vacuous_for_every_network_and_the_rate_bound_for_some(trained: Trained):
    halves = generalisation.random_halves(len(trained.kappa), 0)
    constant = generalisation.theorem2(trained, *halves).constant
    printed = generalisation.corollary2(trained, constant, trained.printed, halves[1])
    rate = generalisation.corollary2(trained, constant, trained.rate, halves[1])
    assert (trained.printed[:, 1:] > 0.5).all()
    assert (printed.broken, printed.informative) == (0, 0)
    assert rate.broken < 0.1
    assert 0 < rate.informative < 1


def test_the_exponent_of_a_power_law_is_recovered():
    kappa = torch.tensor([10.0, 100, 1000], dtype=torch.float64)
    curve = torch.zeros(3, 1, dtype=torch.float64)
    gap = 0.01 * kappa[:, None] ** 0.4
    power = Trained(kappa, torch.ones_like(kappa), curve, gap, curve, curve)
    assert generalisation.exponent(power) == pytest.approx(0.4)


def test_noise_mirrors_a_quarter_of_the_labels_and_leaves_the_inputs():
    clean, noisy = (generalisation.sphere_task(0, noise=noise, tests=4000) for noise in (0.0, 0.25))
    torch.testing.assert_close(clean.test_x, noisy.test_x)
    changed = clean.test_y != noisy.test_y
    torch.testing.assert_close(noisy.test_y[changed], 1 - clean.test_y[changed])
    assert float(changed.double().mean()) == pytest.approx(0.25, abs=0.03)
    assert ((clean.test_y >= 0) & (clean.test_y <= 1)).all()
