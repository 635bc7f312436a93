"""REINFORCE against the published program on torch in float64, including autograd and torch's Adam."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hnas import ArrayPool, Search, UsageError, search_spaces
from hnas.optim.methods.reinforce import Adam
from tests.support.cells_bench import CELLS, SPACE, accuracy, pool_of, run_method


def reinforce(archs: list[str], seed: int, queries: int, learning_rate: float, momentum: float) -> list[str]:
    """The loop of the benchmark's program: a policy, `Categorical` by inversion of the shared stream, Adam."""
    random = np.random.default_rng(seed)
    theta = torch.tensor(1e-3 * random.standard_normal((6, 5)), requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=learning_rate)
    numerator = denominator = 0.0
    asked: list[str] = []
    while len(asked) < queries:
        p = torch.softmax(theta, dim=-1)
        for _ in range(100):
            action = []
            for row, u in zip(p.detach().numpy(), random.random((6, 1))[:, 0], strict=True):
                option, total = 0, row[0]
                while total < u and option < 4:
                    option += 1
                    total += row[option]
                action.append(option)
            arch = SPACE.decode(action)
            if arch in archs:
                break
        else:
            arch = archs[random.integers(len(archs))]
            action = list(SPACE.encode(arch))
        asked.append(arch)
        reward = accuracy(arch)
        numerator = momentum * numerator + (1 - momentum) * reward
        denominator = momentum * denominator + (1 - momentum)
        log_p = torch.distributions.Categorical(p).log_prob(torch.tensor(action))
        loss = (-log_p * (reward - numerator / denominator)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return asked


@pytest.mark.parametrize(("learning_rate", "momentum"), [(0.01, 0.9), (0.3, 0.5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_queries_match_the_published_program(seed: int, learning_rate: float, momentum: float) -> None:
    options = {"learning_rate": learning_rate, "momentum": momentum}
    queries = run_method("reinforce", pool_of(CELLS), 80, seed=seed, **options)
    assert [query.arch for query in queries] == reinforce(CELLS, seed, 80, **options)


def test_queries_on_the_whole_space_match_the_published_program() -> None:
    everything = list(SPACE.enumerate())
    queries = run_method("reinforce", pool_of(everything), 120, seed=4)
    assert [query.arch for query in queries] == reinforce(everything, 4, 120, 0.01, 0.9)


def test_adam_matches_torch() -> None:
    random = np.random.default_rng(0)
    theta = random.normal(size=(3, 4))
    parameter = torch.tensor(theta, requires_grad=True)
    adam, theirs = Adam((3, 4), 0.02), torch.optim.Adam([parameter], lr=0.02)
    for _ in range(50):
        gradient = random.normal(size=(3, 4)) * 10.0 ** random.integers(-6, 6)
        theta -= adam.step(gradient)
        parameter.grad = torch.tensor(gradient)
        theirs.step()
    np.testing.assert_allclose(theta, parameter.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_the_policy_learns_which_operations_perform_well() -> None:
    queries = run_method("reinforce", pool_of(list(SPACE.enumerate())), 400, learning_rate=0.05)
    assert np.mean([q.performance for q in queries[-50:]]) > np.mean([q.performance for q in queries[:50]]) + 3


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_decisions_stay_within_their_numbers_of_options(name: str) -> None:
    space = search_spaces[name]

    class Open(ArrayPool):
        def position(self, arch: str) -> int | None:
            return 0  # everything is a candidate

    search = Search(Open(space.sample(3, seed=0), {}, space=space), "reinforce", seed=0, learning_rate=5.0)
    for k in range(60):
        proposal = search.ask()
        assert proposal is not None
        decisions = space.encode(proposal.arch)
        assert space.decode(decisions) == proposal.arch
        search.tell(proposal, float(90 + k % 3 + decisions[0]))


@pytest.mark.parametrize("options", [{"learning_rate": -1.0}, {"learning_rate": float("nan")}, {"momentum": 1.0}])
def test_impossible_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"the option (learning_rate|momentum) must be a number from 0 to"):
        run_method("reinforce", pool_of(CELLS), 1, **options)
