"""BOHB against Hyperband and the density model written plainly, and against random search where it should win."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.random import Generator

from hnas import ArrayPool, Search, UsageError
from hnas.optim.algorithm import search
from hnas.optim.evaluations import Evaluation
from hnas.optim.methods.bohb import Density, rungs
from tests.support.cells_bench import CELLS, SPACE, accuracy, pool_of, run_method


def after(arch: str, epochs: int) -> float:
    """A learning curve that ends at `accuracy` after 12 epochs and ranks architectures well before that."""
    wobble = 3 * math.sin(1000 * accuracy(arch))
    return accuracy(arch) * (1 - 0.5 * math.exp(-epochs / 3)) + wobble / (1 + epochs)


def kernel(data: list[list[int]], bandwidth: list[float], x: list[int]) -> float:
    total = 0.0
    for row in data:
        product = 1.0
        for value, centre, h in zip(x, row, bandwidth, strict=True):
            product *= 1 - h if value == centre else h / 4
        total += product
    return total / len(data)


def bandwidths(data: list[list[int]]) -> list[float]:
    found = []
    for column in zip(*data, strict=True):
        mean = sum(column) / len(column)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in column) / len(column))
        found.append(min(max(1.06 * deviation * len(data) ** (-1 / (4 + 6)), 0.3), 4 / 5))
    return found


def sampled(good: list[list[int]], bandwidth: list[float], samples: int, random: Generator) -> list[list[int]]:
    rows = [good[i] for i in random.integers(len(good), size=samples)]
    keep = random.random((samples, 6))
    others = random.integers(5, size=(samples, 6))
    return [
        [int(o) if u < h else c for u, h, o, c in zip(keep[i], bandwidth, others[i], rows[i], strict=True)]
        for i in range(samples)
    ]


def bohb(archs: list[str], seed: int, queries: int, random_fraction: float, samples: int) -> list[tuple[str, int]]:
    """hpbandster's loop for six decisions of five options and 1 to 12 epochs, with rungs of 1, 4 and 12 epochs."""
    random = np.random.default_rng(seed)
    results: dict[int, list[tuple[float, list[int]]]] = {1: [], 4: [], 12: []}
    modelled: dict[int, tuple[list[list[int]], list[list[int]]]] = {}
    asked: list[tuple[str, int]] = []

    def configuration() -> list[int]:
        for _ in range(100):
            if not modelled or random.random() < random_fraction:
                drawn = [int(k) for k in random.integers([5] * 6)]
            else:
                good, bad = modelled[max(modelled)]
                h, g = bandwidths(good), bandwidths(bad)
                best = None
                for candidate in sampled(good, h, samples, random):
                    ratio = max(kernel(good, h, candidate), 1e-32) / max(kernel(bad, g, candidate), 1e-32)
                    if best is None or math.log(ratio) > best[0] + 1e-9:
                        best = math.log(ratio), candidate
                assert best is not None
                drawn = best[1]
            if SPACE.decode(drawn) in archs:
                return drawn
        return list(SPACE.encode(archs[random.integers(len(archs))]))

    def evaluate(config: list[int], epochs: int) -> float:
        arch = SPACE.decode(config)
        asked.append((arch, epochs))
        loss = 100 - after(arch, epochs)
        results[epochs].append((loss, config))
        n = len(results[epochs])
        if max(modelled, default=0) <= epochs and n >= 14:
            ranked = [c for _, c in sorted(results[epochs], key=lambda found: found[0])]
            n_good = max(7, 15 * n // 100)
            modelled[epochs] = ranked[:n_good], ranked[n_good:]
        return loss

    while len(asked) < queries:
        for budgets, sizes in (((1, 4, 12), (9, 3, 1)), ((4, 12), (3, 1)), ((12,), (3,))):
            survivors: list[list[int]] = []
            for k, (epochs, size) in enumerate(zip(budgets, sizes, strict=True)):
                losses = []
                for i in range(size):
                    if k == 0:
                        survivors.append(configuration())
                    losses.append(evaluate(survivors[i], epochs))
                advancing = sorted(range(size), key=losses.__getitem__)[: sizes[k + 1] if k + 1 < len(sizes) else 0]
                survivors = [survivors[i] for i in sorted(advancing)]
    return asked[:queries]


def run(pool: ArrayPool, queries: int, **options: float) -> list[tuple[str, int]]:
    searching = Search(pool, "bohb", **options)
    for _ in range(queries):
        proposal = searching.ask()
        assert proposal is not None
        searching.tell(proposal, after(proposal.arch, proposal.epochs))
    return [(query.arch, query.epochs) for query in searching.queries]


@pytest.mark.parametrize("options", [{"random_fraction": 0.0, "samples": 4}, {"random_fraction": 0.3, "samples": 9}])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_queries_match_the_plain_program(seed: int, options: dict[str, float]) -> None:
    assert run(pool_of(CELLS), 150, seed=seed, epochs=12, **options) == bohb(CELLS, seed, 150, **options)


def test_rungs_are_the_epochs_divided_by_powers_of_eta() -> None:
    assert rungs(1, 12, 3) == [1, 4, 12]
    assert rungs(1, 200, 3) == [2, 7, 22, 66, 200]
    assert rungs(1, 243, 3) == [1, 3, 9, 27, 81, 243]
    assert rungs(4, 12, 3) == [4, 12]
    assert rungs(5, 12, 3) == rungs(12, 12, 3) == [12]
    assert rungs(1, 16, 2) == [1, 2, 4, 8, 16]


def test_with_a_single_rung_only_the_density_guides_the_search() -> None:
    assert {epochs for _, epochs in run(pool_of(CELLS), 40, seed=0, epochs=12, min_budget=12)} == {12}


def test_densities_sum_to_one() -> None:
    random = np.random.default_rng(0)
    choices = np.array([2, 3, 4])
    data = random.integers(choices, size=(6, 3))
    density = Density(data, choices, 0.05)
    grid = np.stack(np.meshgrid(*map(np.arange, choices), indexing="ij"), -1).reshape(-1, 3)
    values = density(grid)
    assert values.min() >= 0
    assert math.isclose(values.sum(), 1)


def test_samples_redraw_decisions_with_the_probability_of_the_bandwidth() -> None:
    random = np.random.default_rng(0)
    density = Density(np.array([[1, 2, 3]] * 6), np.array([2, 3, 4]), 0.3)
    kept = (density.sample(5000, random) == [1, 2, 3]).mean(0)
    np.testing.assert_allclose(kept, [0.7 + 0.3 / 2, 0.7 + 0.3 / 3, 0.7 + 0.3 / 4], atol=0.02)


def test_bohb_beats_random_search_where_short_trainings_rank_well() -> None:
    pool = pool_of(list(SPACE.enumerate()))
    good = np.quantile([accuracy(arch) for arch in pool.archs], 0.998)
    spent = {}
    for method in ("bohb", "random"):
        costs = []
        for seed in range(10):
            queries = search(
                pool,
                lambda arch, epochs=12: Evaluation(after(arch, epochs), float(epochs)),
                method=method, queries=None, budget=12 * 300.0, seed=seed, epochs=12,
            )  # fmt: skip
            costs.append(0.0)
            for query in queries:
                costs[-1] += query.cost
                if query.epochs in (None, 12) and accuracy(query.arch) >= good:
                    break
        spent[method] = np.mean(costs)
    assert spent["bohb"] < 0.7 * spent["random"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs epochs"),
        ({"epochs": 12, "eta": 1}, "eta must be a whole number of at least 2, got 1"),
        ({"epochs": 12, "min_budget": 13}, "min_budget must be at most the 12 epochs of a training, got 13"),
        ({"epochs": 12, "min_budget": 0}, "min_budget must be .* got 0"),
        ({"epochs": 12, "min_budget": "few"}, "min_budget must be .* got 'few'"),
        ({"epochs": 12, "samples": 0}, "samples must be .* got 0"),
        ({"epochs": 12, "random_fraction": 1.5}, "random_fraction must be a number from 0 to 1, got 1.5"),
        ({"epochs": 12, "min_bandwidth": 0.0}, "min_bandwidth must be .* got 0"),
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run_method("bohb", pool_of(CELLS), 1, **options)
