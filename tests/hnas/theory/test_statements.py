"""All checks hold, and fail when a constant of their formula is changed."""

import dataclasses
import math

import pytest

from hnas import theory
from hnas.theory import connections, descent, generalisation, statements, topology


@pytest.fixture(scope="module")
def by_name() -> dict[str, theory.Check]:
    return {check.name: check for check in theory.checks(seed=0)}


def test_every_statement_holds(by_name: dict[str, theory.Check]):
    assert [check.name for check in by_name.values() if not check.holds] == []
    assert {check.source for check in by_name.values()} == {
        "Theorem 1",
        "Theorem 2",
        "Corollary 1",
        "Corollary 2",
        "Theorem 3",
        "derived",
    }


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(by_name: dict[str, theory.Check]):
    again = {check.name: check for check in statements._theorem3(0)}
    other = {check.name: check for check in statements._theorem3(1)}
    assert all(by_name[name] == check for name, check in again.items())
    assert other["deep architecture"].measured != again["deep architecture"].measured
    assert all(check.holds for check in other.values())


def test_a_check_with_nan_does_not_hold():
    check = theory.Check("a", "derived", "b", "c", 1.0, 1.0)
    assert check.holds
    assert not dataclasses.replace(check, measured=math.nan).holds
    assert not dataclasses.replace(check, measured=1.1).holds


def test_theorem_1_fails_with_smaller_constants(monkeypatch: pytest.MonkeyPatch):
    smaller = [dataclasses.replace(loss, beta=loss.beta / 20) for loss in connections.LOSSES]
    monkeypatch.setattr(connections, "LOSSES", smaller)
    assert not any(check.holds for check in statements._theorem1(0))


def test_theorem_3_fails_with_a_mean_six_per_cent_larger(monkeypatch: pytest.MonkeyPatch):
    kernel = topology.deep_kernel
    monkeypatch.setattr(topology, "deep_kernel", lambda weights, x: 1.06 * kernel(weights, x))
    failed = [check.name for check in statements._theorem3(0) if not check.holds]
    assert "deep architecture" in failed


def test_theorem_3_fails_with_a_smaller_spread_off_the_diagonal(monkeypatch: pytest.MonkeyPatch):
    exact = topology.deep_spread
    monkeypatch.setattr(
        topology,
        "deep_spread",
        lambda n, depth: dataclasses.replace(exact(n, depth), off_diagonal=exact(n, depth).off_diagonal / math.sqrt(2)),
    )
    failed = [check.name for check in statements._theorem3(0) if not check.holds]
    assert failed == ["spread of the deep architecture", "κ of the deep architecture"]


def test_theorem_2_fails_with_a_fifth_of_the_constant(monkeypatch: pytest.MonkeyPatch):
    fit = generalisation.fit

    def smaller(left, base, unit, fitting, testing):
        whole = fit(left, base, unit, fitting, testing)
        return generalisation.Fitted(
            whole.constant / 5, left[testing], (base + whole.constant / 5 * unit[:, None])[testing]
        )

    monkeypatch.setattr(generalisation, "fit", smaller)
    failed = {check.name for check in statements._theorem2(0) if not check.holds}
    assert {"generalisation", "realizable"} <= failed


def test_the_training_error_fails_with_another_step_size(monkeypatch: pytest.MonkeyPatch):
    exact = descent.descend
    monkeypatch.setattr(
        generalisation, "descend", lambda *arguments, **settings: exact(*arguments, **settings, step=0.4)
    )
    run = generalisation.width_deviation(256, 0)
    assert run < 0.01
    monkeypatch.setattr(
        generalisation,
        "descend",
        lambda *arguments, **settings: dataclasses.replace(
            exact(*arguments, **settings), eta=1.1 * exact(*arguments).eta
        ),
    )
    assert generalisation.width_deviation(256, 0) > 0.01
