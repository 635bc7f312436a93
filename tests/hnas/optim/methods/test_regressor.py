"""The regressor against a plain program, and its models against scikit-learn's and scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal, norm, rankdata
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, Sum

from hnas import ArrayPool, Search, UsageError
from hnas.optim.methods.regressor import features, improvement, normal_scores
from hnas.optim.surrogates import Forest, GaussianProcess
from tests.support.cells_bench import CELLS, accuracy, run_method
from tests.support.columns_bench import CLASSES, COLUMNS, columns_pool


def plain_features(names: tuple[str, ...]) -> np.ndarray:
    found = []
    for name in names:
        logs = [math.log(v) if 0 < v < math.inf else v for v in COLUMNS[name].tolist()]
        finite = [v for v in logs if v < math.inf]
        logs = [min(max(v, min(finite)), max(finite)) for v in logs]
        mean = sum(logs) / len(logs)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in logs) / len(logs))
        found.append([min(max((v - mean) / deviation, -4.0), 4.0) for v in logs])
    return np.array(found).T


def process(x: np.ndarray, rows: list[int], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's process with the kernel and noise of maximum likelihood."""
    d = x.shape[1]
    best = (-math.inf, 0.0, 0.0, 0.0)
    for length in GaussianProcess.lengths:
        for noise in GaussianProcess.noises:
            k = kernel(length, d)(x[rows]) + noise * np.eye(len(rows))
            scale = values @ np.linalg.solve(k, values) / len(rows)
            likelihood = multivariate_normal(np.zeros(len(rows)), scale * k).logpdf(values)
            best = max(best, (likelihood, length, noise, scale))
    _, length, noise, scale = best
    fitted = GaussianProcessRegressor(kernel(length, d), alpha=noise, optimizer=None).fit(x[rows], values)
    mean, deviation = fitted.predict(x, return_std=True)
    return mean, deviation * math.sqrt(scale)


def kernel(length: float, d: int) -> Sum:
    w = GaussianProcess.slope
    smooth = Matern(length * math.sqrt(d), nu=2.5)
    return ConstantKernel(w / d / (1 + w)) * DotProduct(sigma_0=1e-12) + ConstantKernel(1 / (1 + w)) * smooth


@pytest.mark.parametrize("argument", ["gp", "forest"])
@pytest.mark.parametrize("seed", [0, 1])
def test_queries_match_the_plain_program(argument: str, seed: int) -> None:
    x, prior = features(columns_pool())
    distances = cdist(x, x)
    free = set(range(len(CELLS)))
    rows = [int(np.argmax(np.random.default_rng(seed).random(len(CELLS))))]
    for _ in range(11):
        free -= {i for i in free if CLASSES[i] == CLASSES[rows[-1]]}
        if len(rows) < 5:
            score = distances[rows].min(axis=0)
        else:
            seen = normal_scores([accuracy(CELLS[i]) for i in rows])
            offset = prior - sum(prior[i] for i in rows) / len(rows)
            if argument == "gp":
                mean, deviation = process(x, rows, seen - offset[rows])
            else:
                mean, deviation = Forest(x, seed=seed).predict(np.array(rows), seen - offset[rows])
            score = improvement(mean + offset, deviation, seen.max())
        rows.append(max(sorted(free), key=lambda i: score[i]))
    queries = run_method(f"regressor:{argument}", columns_pool(), 12, seed=seed)
    assert [query.arch for query in queries] == [CELLS[i] for i in rows]


def test_features_are_standardised_and_favour_large_well_conditioned_networks() -> None:
    columns = COLUMNS | {"params": COLUMNS["snip"], "flops": COLUMNS["grad_norm"]}
    x, expected = features(columns_pool(columns))
    np.testing.assert_allclose(x, plain_features(("kappa", "trace", "snip", "grad_norm")), atol=1e-12)
    np.testing.assert_allclose(expected, (x[:, 2] + x[:, 3]) / 4 - x[:, 0] / 2, atol=1e-12)


def test_columns_that_the_pool_lacks_are_ignored() -> None:
    x, expected = features(columns_pool({"trace": COLUMNS["trace"], "flops": COLUMNS["grad_norm"]}))
    np.testing.assert_allclose(x, plain_features(("trace", "grad_norm")), atol=1e-12)
    np.testing.assert_allclose(expected, x[:, 1] / 2, atol=1e-12)


def test_zeros_infinities_and_missing_values_have_features() -> None:
    pool = ArrayPool(["a", "b", "c", "d", "e"], {"trace": [0.0, 1.0, math.e, math.inf, math.nan]})
    x, expected = features(pool)
    a, b, c, d, e = x[:, 0].tolist()
    assert a == b < e < c == d
    assert np.mean(x) == pytest.approx(0)
    assert not expected.any()


def test_performances_enter_through_their_ranks() -> None:
    values = [10.0, 93.0, 92.0, 93.0]
    np.testing.assert_allclose(normal_scores(values), norm.ppf((rankdata(values) - 0.5) / 4))


def test_expected_improvement_matches_its_definition() -> None:
    mean, deviation = np.array([-1.0, 0.0, 2.0]), np.array([0.5, 1.0, 3.0])
    draws = mean + deviation * np.random.default_rng(0).normal(size=(400_000, 3))
    np.testing.assert_allclose(improvement(mean, deviation, 0.4), np.maximum(draws - 0.4, 0).mean(axis=0), atol=0.01)
    assert improvement(mean, np.zeros(3), 0.4).tolist() == [0.0, 0.0, 1.6]


def test_the_gaussian_process_matches_scikit_learn() -> None:
    random = np.random.default_rng(2)
    x, rows = random.normal(size=(20_000, 3)), [3, 70, 9000, 12, 19_999, 5]
    values = random.normal(size=6)
    mean, deviation = GaussianProcess(x).predict(np.array(rows), values)
    expected, expected_deviation = process(x, rows, values)
    np.testing.assert_allclose(mean, expected, atol=1e-8)
    np.testing.assert_allclose(deviation, expected_deviation, rtol=1e-5, atol=1e-6)


def test_the_forest_is_constant_within_feature_steps_and_fits_its_data() -> None:
    x = np.repeat(np.linspace(-2, 2, 50), 2)[:, None] + np.tile([0.0, 1e-3], 50)[:, None]
    rows = np.arange(0, 100, 4)
    mean, deviation = Forest(x, seed=1).predict(rows, x[rows, 0])
    assert len(set(zip(mean.tolist(), deviation.tolist(), strict=True))) <= 33
    assert np.abs(mean - x[:, 0]).max() < 0.5


@pytest.mark.parametrize("argument", ["gp", "forest"])
def test_a_replayed_search_resumes_exactly(argument: str) -> None:
    queries = run_method(f"regressor:{argument}", columns_pool(), 14, seed=5)
    for stop in (2, 9):
        resumed = Search(columns_pool(), f"regressor:{argument}", seed=5)
        for query in queries[:stop]:
            resumed.replay(query)
        for query in queries[stop:]:
            proposal = resumed.ask()
            assert proposal is not None
            assert (proposal.arch, proposal.objective) == (query.arch, query.objective)
            resumed.tell(proposal, accuracy(proposal.arch))


def test_it_beats_as_many_random_draws() -> None:
    found = {
        method: np.mean([max(q.performance for q in run_method(method, columns_pool(), 12, seed=s)) for s in range(8)])
        for method in ("regressor", "random")
    }
    assert found["regressor"] > found["random"]


def test_the_whole_pool_is_searched_despite_equal_performances() -> None:
    search = Search(columns_pool(), "regressor")
    while (proposal := search.ask()) is not None:
        search.tell(proposal, 50.0)
    assert len(search.queries) == len(set(CLASSES))


@pytest.mark.parametrize("value", [1.0, 0.0, math.inf, math.nan])
def test_constant_columns_are_refused(value: float) -> None:
    pool = columns_pool({name: np.full(len(CELLS), value) for name in COLUMNS})
    with pytest.raises(UsageError, match="needs a column in which candidates differ"):
        Search(pool, "regressor")


def test_an_unknown_regression_is_refused() -> None:
    with pytest.raises(UsageError, match="must be regressor:gp or regressor:forest"):
        Search(columns_pool(), "regressor:trees")
