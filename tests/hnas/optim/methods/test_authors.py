"""The published HNAS program, written plainly, and bayesian-optimization's defaults."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from hnas import Search, UsageError
from hnas.optim.methods.bayesian import StockOptimiser
from tests.support.cells_bench import CELLS, accuracy, run_method
from tests.support.columns_bench import COLUMNS, columns_pool


def program(metric: str, seed: int, queries: int, scale: float) -> list[tuple[str, float, float]]:
    """`nasbench2_search.py` with the absolute value that it has commented out."""
    np_random = np.random.RandomState(seed)
    metrics = [abs(v) for v in COLUMNS[metric].tolist()]
    condnums = [v if math.isfinite(v) else 1e5 for v in COLUMNS["kappa"].tolist()]
    bounds = {"target_coeff": (-4.0, 0.0), "target_metric": (0.0, 1.0)}
    optimiser = StockOptimiser(bounds, seed=seed, acquisition_name="ei")
    sampled: list[int] = []
    evaluated: list[int] = []
    asked = []
    for k in range(queries):
        point = {"target_coeff": -2.0, "target_metric": k / 4} if k < 5 else optimiser.suggest()
        for i in np_random.choice(len(CELLS), 2000).tolist():
            if i not in sampled:
                sampled.append(i)
        sampled = [i for i in sampled if i not in evaluated]
        mu, target = 10 ** point["target_coeff"], point["target_metric"] * scale
        scores = [mu * abs(metrics[i] ** 2 - target**2) + condnums[i] / (metrics[i] + 1e-6) for i in sampled]
        best = sampled[int(np.argsort(scores, kind="stable")[0])]
        evaluated.append(best)
        asked.append((CELLS[best], mu, target**2))
        optimiser.register(point, accuracy(CELLS[best]))
    return asked


@pytest.mark.parametrize(("metric", "scale"), [("trace", 5e3), ("grasp", 2.0), ("snip", 300.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_queries_match_the_published_program(metric: str, scale: float, seed: int) -> None:
    queries = run_method(f"authors:{metric}", columns_pool(), 12, seed=seed, scale=scale)
    expected = program(metric, seed, 12, scale)
    assert [query.arch for query in queries] == [arch for arch, _, _ in expected]
    assert [(q.mu, q.nu) for q in queries] == [pytest.approx((mu, nu)) for _, mu, nu in expected]


def test_architectures_are_excluded_without_their_class() -> None:
    queries = run_method("authors", columns_pool(first=60), 99)
    assert sorted(query.arch for query in queries) == CELLS[:60]


def test_architectures_without_the_metric_are_never_proposed() -> None:
    pool = columns_pool({"trace": COLUMNS["spotty"], "kappa": COLUMNS["kappa"]}, first=60)
    queries = run_method("authors", pool, 99)
    known = {a for a, v in zip(CELLS, COLUMNS["spotty"].tolist(), strict=True) if not math.isnan(v)}
    assert {query.arch for query in queries} == known & set(CELLS[:60])


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, "abc"])
def test_a_scale_that_is_not_positive_is_refused(scale: object) -> None:
    with pytest.raises(UsageError, match=r"scale, .* must be positive"):
        Search(columns_pool(), "authors", scale=scale)


@pytest.mark.parametrize("acquisition_name", ["ei", "ucb"])
def test_the_stock_optimiser_proposes_the_maximum_of_release_1(acquisition_name: str) -> None:
    random = np.random.default_rng(0)
    seen, values = random.uniform((-4, 0), (0, 1), size=(8, 2)), random.normal(size=8)
    optimiser = StockOptimiser({"x": (-4.0, 0.0), "y": (0.0, 1.0)}, seed=1, acquisition_name=acquisition_name)
    for (x, y), value in zip(seen.tolist(), values.tolist(), strict=True):
        optimiser.register({"x": x, "y": y}, value)
    process = GaussianProcessRegressor(
        Matern(nu=2.5), alpha=1e-6, normalize_y=True, n_restarts_optimizer=5, random_state=0
    ).fit(seen, values)

    def utility(points: np.ndarray) -> np.ndarray:
        mean, std = process.predict(points, return_std=True)
        z = (mean - values.max()) / std
        return mean + 2.576 * std if acquisition_name == "ucb" else std * (z * norm.cdf(z) + norm.pdf(z))

    grid = np.stack(np.meshgrid(np.linspace(-4, 0, 201), np.linspace(0, 1, 201)), axis=-1).reshape(-1, 2)
    point = optimiser.suggest()
    found = utility(np.array([[point["x"], point["y"]]]))[0]
    assert found >= utility(grid).max() * (1 - 1e-3)
