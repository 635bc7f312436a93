"""Rank correlations and the two columns of Table 1."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.stats import kendalltau, spearmanr

from hnas.errors import UsageError
from hnas.optim.objective import objective
from hnas.pipeline.analysis.correlate import TABLE_1, Correlations, correlate, kendall, spearman
from hnas.pipeline.analysis.figures import check_figure, plot_correlations
from hnas.pipeline.analysis.report import correlation_text, write_records
from hnas.pipeline.catalog.views import connect, pick_run
from tests.support.contents import matching
from tests.support.stores import make_store


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory):
    store = make_store(tmp_path_factory.mktemp("correlate"), architectures=80)
    return connect(store)


@pytest.fixture(scope="module")
def found(connection):
    return correlate(connection, pick_run(connection))


def test_spearman_and_kendall_agree_with_scipy_where_values_are_finite():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, 200).astype(float), rng.normal(size=200)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert kendall(x, y) == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)


def test_an_infinite_condition_number_ranks_last_and_ties_with_others():
    kappa = np.array([3.0, np.inf, 1.0, np.inf, 2.0])
    ranks = np.array([3.0, 4.5, 1.0, 4.5, 2.0])
    accuracy = np.array([1.0, 0.0, 5.0, 0.5, 2.0])
    assert spearman(kappa, accuracy) == pytest.approx(spearmanr(ranks, accuracy).statistic)
    assert kendall(kappa, accuracy) == pytest.approx(kendalltau(ranks, accuracy).statistic)


def test_rows_without_a_value_are_left_out_of_a_pair():
    x = np.array([1.0, np.nan, 2.0, 3.0, 4.0])
    y = np.array([1.0, 0.0, 2.0, np.nan, 3.0])
    assert spearman(x, y) == pytest.approx(1.0)


@pytest.mark.parametrize("measure", [spearman, kendall])
def test_a_constant_column_has_no_correlation(measure):
    assert np.isnan(measure(np.ones(5), np.arange(5.0)))


@pytest.mark.parametrize("method", ["spearman", "kendall"])
def test_every_pair_is_correlated_over_all_rows_dead_ones_included(connection, method):
    found = correlate(connection, pick_run(connection), method=method)
    rows = connection.execute("SELECT kappa, snip, test_accuracy FROM pool ORDER BY arch").fetchnumpy()
    assert found.n == len(rows["kappa"]) == 80
    assert np.isinf(rows["kappa"]).any()
    measure = {"spearman": spearman, "kendall": kendall}[method]
    i, j, k = (found.names.index(name) for name in ("kappa", "snip", "test_accuracy"))
    assert found.matrix[i, k] == pytest.approx(measure(rows["kappa"], rows["test_accuracy"]))
    assert found.matrix[j, k] == pytest.approx(measure(rows["snip"], rows["test_accuracy"]))
    assert np.allclose(found.matrix, found.matrix.T, equal_nan=True)
    assert {"params", "flops"} <= set(found.names)


def test_the_non_realizable_column_is_reached_at_the_mu_and_nu_it_names(connection, found):
    rows = connection.execute("SELECT * FROM pool ORDER BY arch").fetchnumpy()
    assert [row.metric for row in found.table_1] == list(TABLE_1)
    for row in found.table_1:
        value = -objective(rows[row.metric], rows["kappa"], mu=row.mu, nu=row.nu)
        assert spearman(value, rows["test_accuracy"]) == pytest.approx(row.non_realizable)
        assert spearman(rows[row.metric], rows["test_accuracy"]) == pytest.approx(row.realizable)


def test_boosting_finds_a_better_correlation_where_one_is_hidden(connection):
    # The made-up accuracies of the store peak at a middling trace: no monotone metric ranks them, eq. (7) does.
    found = correlate(connection, pick_run(connection), target="valid_accuracy")
    row = next(row for row in found.table_1 if row.metric == "trace")
    assert row.non_realizable > row.realizable + 0.2


def test_records_hold_each_pair_once_and_both_columns_and_survive_json_and_csv(found):
    records = found.records()
    k = len(found.names)
    assert sum(r["kind"] == "pair" for r in records) == k * (k - 1) // 2
    assert sum(r["kind"] == "non_realizable" for r in records) == len(TABLE_1)
    text = io.StringIO()
    write_records(records, "json", text)
    assert json.loads(text.getvalue()) == records
    text = io.StringIO()
    write_records(records, "csv", text)
    read = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [float(r["value"]) for r in read] == [r["value"] for r in records]


def changed(folder: Path, kind: str, column: str, values: Callable[[int], list[float]]) -> Correlations:
    """The correlations of a store whose `metrics` or `accuracies` have other values in one column."""
    store = make_store(folder, architectures=20)
    (path,) = matching(
        store, *{"metrics": ("runs", "*", "metrics"), "accuracies": ("accuracies", "*")}[kind], "*.parquet"
    )
    parts = path.removeprefix(f"{store.root}/").split("/")
    table = store.read_table(None, *parts)
    index = table.column_names.index(column)
    store.write_table(table.set_column(index, column, pa.array(values(len(table)))), *parts)
    connection = connect(store)
    return correlate(connection, pick_run(connection), target="test_accuracy")


def test_metrics_are_correlated_also_where_no_two_condition_numbers_are_finite(tmp_path: Path):
    found = changed(tmp_path, "metrics", "kappa", lambda n: [7.0, *[math.inf] * (n - 1)])
    assert all(-1 <= row.realizable <= 1 and math.isnan(row.non_realizable) for row in found.table_1)
    assert found.matrix[found.names.index("snip"), found.names.index("trace")] > 0.5
    assert re.search(r"snip +-?0\.\d\d +n/a +n/a +n/a", correlation_text(found))


def test_an_accuracy_that_does_not_differ_has_no_correlation_in_any_format(tmp_path: Path):
    found = changed(tmp_path, "accuracies", "test_accuracy", lambda n: [90.0] * n)
    text = io.StringIO()
    write_records(found.records(), "json", text)
    boosted = [r for r in json.loads(text.getvalue(), parse_constant=pytest.fail) if r["kind"] == "non_realizable"]
    assert [(r["value"], r["mu"], r["nu"]) for r in boosted] == [(None, None, None)] * len(TABLE_1)
    assert re.search(r"trace +n/a +n/a +n/a +n/a", correlation_text(found))


def test_a_run_is_found_by_the_path_of_its_data_set_too(connection, tmp_path: Path):
    assert pick_run(connection, dataset=str(tmp_path / "digits")) == pick_run(connection, dataset="digits")
    with pytest.raises(UsageError, match="the store has no run with dataset cifar10"):
        pick_run(connection, dataset="cifar10")


def test_the_table_for_people_names_run_method_and_both_columns(connection):
    text = correlation_text(correlate(connection, pick_run(connection), method="kendall"))
    assert "Kendall's tau" in text
    assert "realizable" in text
    assert "non-realizable" in text
    assert "test_acc" in text


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_figure_is_written_in_each_format(found, tmp_path: Path, suffix: str):
    path = tmp_path / f"figure.{suffix}"
    plot_correlations(found, path)
    assert path.stat().st_size > 5000
    if suffix == "png":
        with Image.open(path) as image:
            assert min(image.size) > 600
            assert len(image.convert("RGB").getcolors(1_000_000)) > 50


def test_a_figure_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path):
    with pytest.raises(UsageError, match="suffix"):
        check_figure(tmp_path / "figure.bmp")
    with pytest.raises(UsageError, match="does not exist"):
        check_figure(tmp_path / "missing" / "figure.png")


def test_what_cannot_be_correlated_is_refused(connection):
    run = pick_run(connection)
    with pytest.raises(UsageError, match="no values of 'nonsense'"):
        correlate(connection, run, target="nonsense")
    with pytest.raises(UsageError, match="t = 0 cannot be"):
        correlate(connection, run, t=0.0)
    with pytest.raises(UsageError, match="method"):
        correlate(connection, run, method="pearson")
