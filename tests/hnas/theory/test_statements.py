"""All checks hold, and each fails once a constant of its formula is changed."""

import dataclasses
import math

import pytest

from hnas import theory
from hnas.theory import connections, statements, topology


@pytest.fixture(scope="module")
def found() -> dict[str, theory.Check]:
    return {check.name: check for check in theory.checks(seed=0)}


def test_every_statement_holds(found: dict[str, theory.Check]):
    assert [check.name for check in found.values() if not check.holds] == []
    assert {check.source for check in found.values()} == {"Theorem 1", "Theorem 3", "derived"}


def test_another_seed_measures_other_numbers_and_the_same_seed_the_same(found: dict[str, theory.Check]):
    again = {check.name: check for check in statements._theorem3(0)}
    other = {check.name: check for check in statements._theorem3(1)}
    assert all(found[name] == check for name, check in again.items())
    assert other["deep architecture"].measured != again["deep architecture"].measured
    assert all(check.holds for check in other.values())


def test_a_check_that_is_not_a_number_does_not_hold():
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


def test_the_spread_fails_without_what_layers_share(monkeypatch: pytest.MonkeyPatch):
    exact = topology.deep_spread
    monkeypatch.setattr(
        topology,
        "deep_spread",
        lambda n, depth: dataclasses.replace(exact(n, depth), off_diagonal=exact(n, depth).off_diagonal / math.sqrt(2)),
    )
    failed = [check.name for check in statements._theorem3(0) if not check.holds]
    assert failed == ["spread of the deep architecture", "κ of the deep architecture"]
