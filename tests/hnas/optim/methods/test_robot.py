"""RoBoT against its program written plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hnas import Search, UsageError
from hnas.optim.methods.bayesian import StockOptimiser
from hnas.optim.methods.robot import scaled
from tests.support.cells_bench import CELLS, accuracy, run_method
from tests.support.columns_bench import CLASSES, COLUMNS, columns_pool


def program(names: list[str], seed: int, queries: int, rounds: int) -> list[str]:
    """`search_nb201.py` as loops, with classes instead of architectures."""
    metrics = []
    for name in names:
        values = COLUMNS[name].tolist()
        finite = [v for v in values if math.isfinite(v)]
        values = [max(finite) if v == math.inf else v for v in values]
        metrics.append([(v - min(finite)) / (max(finite) - min(finite)) for v in values])
    keys = [f"w{i:03d}" for i in range(len(names))]
    optimiser = StockOptimiser(dict.fromkeys(keys, (-1.0, 1.0)), seed=seed, acquisition_name="ucb")

    def scores(weights: dict[str, float]) -> list[float]:
        total = []
        for i in range(len(CELLS)):
            score = 0.0
            for key, metric in zip(keys, metrics, strict=True):
                if not math.isnan(metric[i]):
                    score += weights[key] * metric[i]
            total.append(score)
        return total

    asked: list[int] = []
    values_of: dict[str, float] = {}
    target, best = -1.0, dict.fromkeys(keys, 0.0)
    for _ in range(rounds):
        weights = optimiser.suggest()
        score = scores(weights)
        i = max(range(len(CELLS)), key=lambda j: (score[j], j))
        if CLASSES[i] not in values_of:
            values_of[CLASSES[i]] = accuracy(CELLS[i])
            asked.append(i)
        optimiser.register(weights, values_of[CLASSES[i]])
        if values_of[CLASSES[i]] >= target:
            target, best = values_of[CLASSES[i]], weights
    score = scores(best)
    for i in sorted(range(len(CELLS)), key=lambda j: (score[j], j), reverse=True):
        if CLASSES[i] not in values_of:
            values_of[CLASSES[i]] = 0
            asked.append(i)
    return [CELLS[i] for i in asked[:queries]]


@pytest.mark.parametrize("columns", ["trace+kappa", "grad_norm+snip+grasp+trace+kappa", "spotty+params"])
@pytest.mark.parametrize("seed", [0, 1])
def test_queries_match_the_published_program(columns: str, seed: int) -> None:
    queries = run_method(f"robot:{columns}", columns_pool(), 25, seed=seed, rounds=12)
    assert [query.arch for query in queries] == program(columns.split("+"), seed, 25, 12)


def test_rounds_that_lead_to_a_known_class_cost_no_query() -> None:
    """One column has two possible maxima, so two queries come from rounds and the others from the ranking."""
    queries = run_method("robot:params", columns_pool(), 10, seed=0, rounds=9)
    order = sorted(range(len(CELLS)), key=lambda i: (COLUMNS["params"][i], i), reverse=True)
    ends = {CELLS[order[0]], CELLS[max(range(len(CELLS)), key=lambda i: (-COLUMNS["params"][i], i))]}
    assert {query.arch for query in queries[:2]} == ends
    assert len({CLASSES[CELLS.index(query.arch)] for query in queries}) == 10


def test_metrics_are_scaled_by_their_finite_range() -> None:
    metric = np.array([2.0, math.inf, 4.0, math.nan, 3.0, -math.inf])
    assert scaled(metric).tolist() == [0.0, 1.0, 1.0, 0.0, 0.5, 0.0]
    assert scaled(np.full(3, 7.0)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("columns", ["trace+trace", "trace+", "+"])
def test_a_malformed_list_of_columns_is_refused(columns: str) -> None:
    with pytest.raises(UsageError, match="must be distinct columns"):
        Search(columns_pool(), f"robot:{columns}")


@pytest.mark.parametrize("rounds", [0, 1.5, "abc"])
def test_rounds_must_be_a_number_of_rounds(rounds: object) -> None:
    with pytest.raises(UsageError, match="rounds must be a whole number of at least 1, got"):
        Search(columns_pool(), "robot", rounds=rounds)
