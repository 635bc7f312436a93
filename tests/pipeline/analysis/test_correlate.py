"""Rank correlations and the two columns of Table 1."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.stats import kendalltau, rankdata, spearmanr

from hnas.errors import UsageError
from hnas.optim.objective import SearchRange, objective
from hnas.pipeline.analysis.correlate import TABLE_1, Correlations, correlate
from hnas.pipeline.analysis.figures import check_figure, plot_correlations
from hnas.pipeline.analysis.ranks import kendall, partial_kendall, partial_spearman, ranks, spearman
from hnas.pipeline.analysis.report import correlation_text, write_records
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from tests.support.contents import matching
from tests.support.places import ROOT
from tests.support.stores import make_store


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory):
    store = make_store(tmp_path_factory.mktemp("correlate"), architectures=80)
    return connect(store)


@pytest.fixture(scope="module")
def correlations(connection):
    return correlate(connection, pick_run(connection))


def test_spearman_and_kendall_agree_with_scipy_where_values_are_finite():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, 200).astype(float), rng.normal(size=200)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert kendall(x, y) == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("n", [3, 4, 7, 8, 9, 64, 65, 1000])
def test_ranks_and_kendall_agree_with_scipy_for_any_length_and_ties(n):
    rng = np.random.default_rng(n)
    for distinct in (2, 5, 10**6):
        x, y = rng.integers(0, distinct, n).astype(float), rng.integers(0, distinct, n).astype(float)
        assert (ranks(x) == rankdata(x)).all()
        assert kendall(x, y) == pytest.approx(kendalltau(x, y).statistic, abs=1e-12, nan_ok=True)


def test_a_partial_correlation_with_one_column_is_the_textbook_formula():
    rng = np.random.default_rng(1)
    z = rng.normal(size=300)
    x, y = np.exp(z + rng.normal(size=300)), z - rng.normal(size=300)
    for partial, measure in ((partial_spearman(x, y, [z]), spearmanr), (partial_kendall(x, y, z), kendalltau)):
        xy, xz, yz = (measure(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
        assert partial == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)), abs=1e-12)


def test_a_partial_correlation_with_two_columns_applies_it_twice():
    rng = np.random.default_rng(2)
    z, w = rng.normal(size=(2, 300))
    x, y = z + w + rng.normal(size=300), z - w + rng.normal(size=300)

    def partial_of(a, b):
        ab, az, bz = (spearmanr(*pair).statistic for pair in ((a, b), (a, z), (b, z)))
        return (ab - az * bz) / np.sqrt((1 - az**2) * (1 - bz**2))

    xy, xw, yw = partial_of(x, y), partial_of(x, w), partial_of(y, w)
    expected = (xy - xw * yw) / np.sqrt((1 - xw**2) * (1 - yw**2))
    assert partial_spearman(x, y, [z, w]) == pytest.approx(expected, abs=1e-12)


def test_a_column_determined_by_the_given_ones_has_no_partial():
    x, y = np.arange(20.0), np.random.default_rng(3).normal(size=20)
    assert np.isnan(partial_spearman(x**3, y, [x]))
    assert np.isnan(partial_kendall(x**3, y, x))


def test_infinite_condition_numbers_rank_last_and_tie():
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
def test_every_pair_is_correlated_over_all_rows_including_dead_ones(connection, method):
    correlations = correlate(connection, pick_run(connection), method=method)
    rows = connection.execute("SELECT kappa, snip, test_accuracy FROM pool ORDER BY arch").fetchnumpy()
    assert correlations.n == len(rows["kappa"]) == 80
    assert np.isinf(rows["kappa"]).any()
    measure = {"spearman": spearman, "kendall": kendall}[method]
    i, j, k = (correlations.names.index(name) for name in ("kappa", "snip", "test_accuracy"))
    assert correlations.matrix[i, k] == pytest.approx(measure(rows["kappa"], rows["test_accuracy"]))
    assert correlations.matrix[j, k] == pytest.approx(measure(rows["snip"], rows["test_accuracy"]))
    assert np.allclose(correlations.matrix, correlations.matrix.T, equal_nan=True)
    assert {"params", "flops"} <= set(correlations.names)


def test_the_non_realizable_value_is_attained_at_its_mu_and_nu(connection, correlations):
    rows = connection.execute("SELECT * FROM pool ORDER BY arch").fetchnumpy()
    assert [(row.metric, row.method) for row in correlations.table_1] == [
        (metric, method) for metric in TABLE_1 for method in ("spearman", "kendall")
    ]
    for row in correlations.table_1:
        measure = {"spearman": spearman, "kendall": kendall}[row.method]
        value = -objective(rows[row.metric], rows["kappa"], mu=row.mu, nu=row.nu)
        assert measure(value, rows["test_accuracy"]) == pytest.approx(row.non_realizable)
        assert measure(rows[row.metric], rows["test_accuracy"]) == pytest.approx(row.realizable)


@pytest.mark.parametrize("t", [0.5, 1.0])
def test_no_point_of_a_dense_grid_beats_the_best_point(connection, t):
    rows = connection.execute("SELECT * FROM pool ORDER BY arch").fetchnumpy()
    correlations = correlate(connection, pick_run(connection), t=t)
    for row in correlations.table_1[::2]:
        m = rows[row.metric]
        search_range = SearchRange.of(m, rows["kappa"], t)
        points = [search_range.point(a, q) for a in np.linspace(-6, 3, 31) for q in np.linspace(0, 1, 31)]
        best = max(
            spearman(-objective(m, rows["kappa"], mu=mu, nu=nu, t=t), rows["test_accuracy"]) for mu, nu in points
        )
        assert row.non_realizable > best - 0.01


def test_boosting_finds_a_hidden_better_correlation(connection):
    # The store's synthetic accuracies peak at a medium trace: eq. (7) can rank them, a monotone metric cannot.
    correlations = correlate(connection, pick_run(connection), target="valid_accuracy")
    row = next(row for row in correlations.table_1 if row.metric == "trace")
    assert row.non_realizable > row.realizable + 0.2


def test_records_hold_each_pair_once_in_json_and_csv(correlations):
    records = correlations.records()
    k = len(correlations.names)
    assert sum(r["kind"] == "pair" for r in records) == k * (k - 1) // 2
    assert sum(r["kind"] == "non_realizable" for r in records) == 2 * len(TABLE_1)
    text = io.StringIO()
    write_records(records, "json", text)
    assert json.loads(text.getvalue()) == records
    text = io.StringIO()
    write_records(records, "csv", text)
    read = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [float(r["value"]) for r in read] == [r["value"] for r in records]


def changed(folder: Path, kind: str, column: str, values: Callable[[int], list[float]]) -> Correlations:
    """The correlations of a store with one column of `metrics` or `accuracies` replaced."""
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


def test_metrics_are_correlated_without_finite_condition_numbers(tmp_path: Path):
    correlations = changed(tmp_path, "metrics", "kappa", lambda n: [7.0, *[math.inf] * (n - 1)])
    assert all(-1 <= row.realizable <= 1 and math.isnan(row.non_realizable) for row in correlations.table_1)
    assert correlations.matrix[correlations.names.index("snip"), correlations.names.index("trace")] > 0.5
    assert re.search(r"snip +-?0\.\d\d +n/a +-?0\.\d\d +n/a +n/a +n/a", correlation_text(correlations))


def test_a_constant_accuracy_has_no_correlation_in_any_format(tmp_path: Path):
    correlations = changed(tmp_path, "accuracies", "test_accuracy", lambda n: [90.0] * n)
    text = io.StringIO()
    write_records(correlations.records(), "json", text)
    boosted = [r for r in json.loads(text.getvalue(), parse_constant=pytest.fail) if r["kind"] == "non_realizable"]
    assert [(r["value"], r["mu"], r["nu"]) for r in boosted] == [(None, None, None)] * 2 * len(TABLE_1)
    assert re.search(r"trace( +n/a){6}", correlation_text(correlations))


def test_a_run_is_also_found_by_the_path_of_its_data_set(connection, tmp_path: Path):
    assert pick_run(connection, dataset=str(tmp_path / "digits")) == pick_run(connection, dataset="digits")
    with pytest.raises(UsageError, match="the store has no run with dataset cifar10"):
        pick_run(connection, dataset="cifar10")


def test_the_text_names_run_method_and_both_columns(connection):
    text = correlation_text(correlate(connection, pick_run(connection), method="kendall"))
    assert "Kendall's tau" in text
    assert re.search(r"with test_accuracy +rho +non-realizable rho +tau +non-realizable tau +mu +nu", text)
    assert "test_accuracy: test accuracy after 10 epochs on digits (csv)" in text
    assert "test_acc" in text


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_figure_is_written_in_each_format(correlations, tmp_path: Path, suffix: str):
    path = tmp_path / f"figure.{suffix}"
    plot_correlations(correlations, path)
    assert path.stat().st_size > 5000
    if suffix == "png":
        with Image.open(path) as image:
            assert min(image.size) > 600
            assert len(image.convert("RGB").getcolors(1_000_000)) > 50


def test_an_invalid_figure_path_is_rejected_before_computing(tmp_path: Path):
    with pytest.raises(UsageError, match="must end in"):
        check_figure(tmp_path / "figure.bmp")
    with pytest.raises(UsageError, match="does not exist"):
        check_figure(tmp_path / "missing" / "figure.png")


def test_invalid_requests_are_rejected(connection):
    run = pick_run(connection)
    with pytest.raises(UsageError, match="no values of 'nonsense'"):
        correlate(connection, run, target="nonsense")
    with pytest.raises(UsageError, match=r"0 < t <= 8, got 0"):
        correlate(connection, run, t=0.0)
    with pytest.raises(UsageError, match="method"):
        correlate(connection, run, method="pearson")
    with pytest.raises(UsageError, match="no values of 'size'"):
        correlate(connection, run, given=["size"])
    with pytest.raises(UsageError, match="names the target test_accuracy or a column twice"):
        correlate(connection, run, given=["params", "params"])
    with pytest.raises(UsageError, match="has a test_accuracy after 12 epochs"):
        correlate(connection, run, target="test_accuracy", epochs=12)
    with pytest.raises(UsageError, match="of nobody"):
        correlate(connection, run, source="nobody")


def test_any_column_can_be_the_target_and_is_left_out_of_its_table(connection):
    correlations = correlate(connection, pick_run(connection), target="trace")
    assert list(dict.fromkeys(row.metric for row in correlations.table_1)) == ["grad_norm", "snip", "grasp"]
    assert {record["y"] for record in correlations.records() if record["kind"] == "realizable"} == {"trace"}
    flops = correlate(connection, pick_run(connection), target="flops")
    assert len(flops.table_1) == 2 * len(TABLE_1)


def test_given_columns_add_partial_correlations_of_all_others(connection):
    correlations = correlate(connection, pick_run(connection), given=["params"])
    rows = connection.execute("SELECT * FROM pool WHERE isfinite(kappa) ORDER BY arch").fetchnumpy()
    partials = {(row.name, row.method): row.value for row in correlations.partials}
    assert {name for name, _ in partials} == set(correlations.names) - {"params", "test_accuracy"}
    expected = partial_spearman(rows["snip"], rows["test_accuracy"], [rows["params"].astype(float)])
    assert partials["snip", "spearman"] == pytest.approx(expected)
    records = [record for record in correlations.records() if record["kind"] == "partial"]
    assert {(record["n"], record["given"], record["y"]) for record in records} == {(79, "params", "test_accuracy")}
    assert {record["given"] for record in correlations.records() if record["kind"] != "partial"} == {None}
    text = correlation_text(correlations)
    assert re.search(r"with test_accuracy given params +rho +tau", text)
    assert "those of the 79 architectures with a finite kappa" in text
    two = correlate(connection, pick_run(connection), given=["params", "grad_norm"])
    assert {row.method for row in two.partials} == {"spearman"}
    assert "Kendall's partial tau is defined given one column" in correlation_text(two)


def test_epochs_and_source_select_the_accuracies(tmp_path: Path):
    store = make_store(tmp_path, architectures=20)
    archs = [arch for (arch,) in connect(store).execute("SELECT arch FROM pool ORDER BY arch").fetchall()]
    rows = [
        {"space": "nasbench201", "arch": arch, "dataset": "digits", "epochs": epochs, "test_accuracy": sign * k + 50.0}
        for k, arch in enumerate(archs)
        for epochs, sign in ((50, 1), (60, -1))
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["accuracies"])
    store.write_table(table, "accuracies", "longer", "x.parquet")
    connection = connect(store)
    run = pick_run(connection)
    by_default = correlate(connection, run)
    assert [(s.accuracy, s.source, s.epochs) for s in by_default.signals] == [
        ("valid_accuracy", "csv", 10),
        ("test_accuracy", "longer", 60),
    ]
    after_50 = correlate(connection, run, epochs=50)
    assert [(s.accuracy, s.source, s.epochs) for s in after_50.signals] == [("test_accuracy", "longer", 50)]
    i, j = (after_50.names.index(name) for name in ("snip", "test_accuracy"))
    assert after_50.matrix[i, j] == pytest.approx(-by_default.matrix[i, by_default.names.index("test_accuracy")])
    made_up = correlate(connection, run, source="csv")
    assert [(s.source, s.epochs) for s in made_up.signals] == [("csv", 10)] * 2


DATA = Path(os.environ.get("HNAS_TEST_DATA", "/nonexistent"))


@pytest.mark.skipif(not DATA.is_dir(), reason="HNAS_TEST_DATA is unset: the real accuracies are needed")
@pytest.mark.parametrize(
    ("space", "file", "non_realizable", "partial"),
    [
        (
            "nasbench201",
            "cifar10-test-accuracy.csv",
            {"grad_norm": 0.70, "snip": 0.70, "grasp": 0.67, "trace": 0.65},
            {"kappa": -0.47, "snip": 0.27, "trace": 0.19},
        ),
        (
            "nasbench101",
            "test-accuracy.parquet",
            {"grad_norm": 0.53, "snip": 0.51, "grasp": 0.51, "trace": 0.52},
            {"kappa": -0.28, "snip": -0.60, "trace": -0.58, "grasp": 0.41},
        ),
    ],
)
def test_numbers_of_the_shipped_tables_with_real_accuracies(
    tmp_path: Path, space: str, file: str, non_realizable: dict[str, float], partial: dict[str, float]
):
    store = Store(str(tmp_path))
    import_accuracies(store, "csv" if file.endswith("csv") else "parquet", DATA / space / file)
    connection = connect(store, [Store(str(ROOT / "data" / "tables" / f"{space}-cifar10"))])
    run = pick_run(connection, space=space, dataset="cifar10")
    correlations = correlate(connection, run, target="test_accuracy", given=["params"])
    for row in correlations.table_1:
        if row.method == "spearman":
            assert round(row.non_realizable, 2) >= non_realizable[row.metric]
    values = {row.name: round(row.value, 2) for row in correlations.partials if row.method == "spearman"}
    assert {name: values[name] for name in partial} == partial
