"""Scores of Θ₀'s spectrum and entries: their definitions on arrays, and their agreement with `hnas sql`."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnas.errors import HnasError, UsageError
from hnas.metrics import spectrum
from hnas.optim.algorithm import Search
from hnas.pipeline.catalog.arrow_arrays import ArrayRows
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.console.query import run_query, view_names
from hnas.pipeline.console.shell import list_columns
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import Store
from tests.support.places import SHIPPED as TABLES
from tests.support.runs import fill, metrics_of

SHIPPED = TABLES / "nasbench201-cifar10"
COLUMNS = {
    "nasi_trace": spectrum.nasi_trace,
    "effective_rank": spectrum.effective_rank,
    "log_determinant": spectrum.log_determinant,
    "kappa_p5": lambda e: spectrum.kappa_percentile(e, 5),
    "kappa_p10": lambda e: spectrum.kappa_percentile(e, 10),
    "kappa_p25": lambda e: spectrum.kappa_percentile(e, 25),
}
#: Spectra of dead, overflowed and odd networks, with m = 4.
DEGENERATE = np.array(
    [
        [0.0, 0.0, 0.0, 0.0],
        [-3e-18, -2e-18, -1e-18, -1e-19],
        [-1e-17, 0.0, 1e-17, 5.0],
        [np.nan, np.nan, np.nan, np.nan],
        [1.0, 1.0, 1.0, np.inf],
    ]
)


@pytest.fixture(scope="module")
def with_gram(tmp_path_factory: pytest.TempPathFactory, small_plan) -> tuple[Store, str, str]:
    """A real run with Gram matrices and dead architectures, and one with another seed without them."""
    store = Store(str(tmp_path_factory.mktemp("gram") / "store"))
    dead = Path(store.root + ".txt")
    dead.write_text("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|\n")
    run = fill(store, small_plan(store, sample=12), keep_gram=True)
    assert fill(store, small_plan(store, architectures=dead), keep_gram=True) == run
    return store, run, fill(store, small_plan(store, sample=5, seed=1))


def by_class(store: Store, run: str, name: str) -> dict[str, np.ndarray]:
    array = NTKArrays(store, run).read(name)
    return {row["canonical"]: array[row["ntk_row"]] for row in metrics_of(store, run)}


def agree(found: object, expected: np.ndarray) -> None:
    """Equal up to a relative 1e-12, with infinities and NaN in the same places; a sum of logarithms may cancel."""
    np.testing.assert_allclose(np.asarray(found, dtype=float), expected, rtol=1e-12, atol=1e-12)


# --- definitions


def test_the_scores_of_a_known_spectrum():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    shares = values / 10
    assert spectrum.nasi_trace(values) == 2.5
    assert spectrum.kappa_at(values) == 4
    assert spectrum.kappa_at(values, 1) == 2
    assert spectrum.kappa_at(values, 3) == 1
    assert spectrum.kappa_percentile(values, 0) == 4
    assert spectrum.kappa_percentile(values, 10) == pytest.approx(3.7 / 1.3)
    assert spectrum.effective_rank(values) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    assert spectrum.log_determinant(values) == pytest.approx(math.log(24))
    assert spectrum.gram_mean(np.diag(values)) == 10 / 16


def test_determinant_and_mean_equal_those_of_the_matrix():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(3, 6, 20))
    gram = gradients @ gradients.transpose(0, 2, 1)
    eigenvalues = np.linalg.eigvalsh(gram)
    np.testing.assert_allclose(spectrum.log_determinant(eigenvalues), np.linalg.slogdet(gram).logabsdet, rtol=1e-10)
    mean_gradient = gradients.mean(1)
    np.testing.assert_allclose(spectrum.gram_mean(gram), (mean_gradient**2).sum(-1), rtol=1e-12)


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=12), st.floats(0, 49.9))
def test_percentiles_match_numpy_and_scores_keep_their_bounds(values, p):
    e = np.sort(np.array(values))
    high, low = np.percentile(e, [100 - p, p])
    assert spectrum.kappa_percentile(e, p) == pytest.approx(high / low, rel=1e-9)
    rank = float(spectrum.effective_rank(e))
    assert 1 - 1e-9 <= rank <= len(e) + 1e-9
    assert spectrum.effective_rank(7 * e) == pytest.approx(rank)


@pytest.mark.filterwarnings("error")
def test_degenerate_spectra_have_well_defined_scores_without_a_warning():
    nan, inf = np.nan, np.inf
    np.testing.assert_array_equal(spectrum.nasi_trace(DEGENERATE)[[0, 2, 3, 4]], [0, 1.25, nan, nan])
    np.testing.assert_allclose(spectrum.effective_rank(DEGENERATE), [0, 0, 1, nan, nan])
    np.testing.assert_array_equal(spectrum.log_determinant(DEGENERATE), [-inf, -inf, -inf, nan, nan])
    for k in range(3):
        np.testing.assert_array_equal(spectrum.kappa_at(DEGENERATE, k), [inf] * 5)
    np.testing.assert_array_equal(spectrum.kappa_at(DEGENERATE, 3), [inf, inf, 1, inf, inf])
    np.testing.assert_array_equal(spectrum.kappa_percentile(DEGENERATE, 25), [inf] * 5)


@pytest.mark.parametrize("k", [-1, 4])
def test_an_index_outside_the_spectrum_is_rejected(k):
    with pytest.raises(UsageError, match="k must be between 0 and 3"):
        spectrum.kappa_at(np.ones(4), k)


@pytest.mark.parametrize("p", [-1, 50, math.nan])
def test_a_percentile_above_the_median_is_rejected(p):
    with pytest.raises(UsageError, match="p must be a percentile in 0 <= p < 50"):
        spectrum.kappa_percentile(np.ones(4), p)


# --- SQL agrees with the array code


def test_the_views_agree_with_the_array_code_on_a_real_run(with_gram):
    store, run, _ = with_gram
    connection = connect(store)
    eigenvalues, grams = by_class(store, run, "eigenvalues"), by_class(store, run, "gram")
    rows = connection.execute("SELECT canonical, eigenvalues FROM spectra WHERE run = ?", [run]).fetchall()
    assert {canonical: list(values) for canonical, values in rows} == {k: v.tolist() for k, v in eigenvalues.items()}
    rows = connection.execute("SELECT canonical, gram FROM grams").fetchall()
    assert dict(rows) == {k: v.tolist() for k, v in grams.items()}
    found = connection.execute("SELECT * FROM scores WHERE run = ? ORDER BY canonical", [run]).fetchnumpy()
    stacked = np.stack([eigenvalues[canonical] for canonical in found["canonical"]])
    assert len(stacked) == len(metrics_of(store, run)) >= 12
    for name, score in COLUMNS.items():
        agree(found[name], score(stacked))
    agree(found["gram_mean"], spectrum.gram_mean(np.stack([grams[canonical] for canonical in found["canonical"]])))
    assert np.isinf(found["kappa_p5"]).any()


@pytest.mark.parametrize("ntk", ["summed", "exact"])
def test_knas_without_its_column_ranks_by_the_mean_of_kept_matrices(tmp_path, small_plan, ntk):
    store = Store(str(tmp_path / "store"))
    run = fill(store, small_plan(store, sample=8, ntk=ntk), keep_gram=True)

    def proposed() -> list[tuple[str, float | None]]:
        method = Search(RunPool(connect(store), run), "knas", seed=0, draws=5, k=4)
        found = []
        while (proposal := method.ask()) is not None:
            found.append((proposal.arch, proposal.objective))
            method.tell(proposal, 50.0)
        return found

    pool = RunPool(connect(store), run)
    means, before = pool.column("gram_mean"), proposed()
    with pytest.raises(UsageError, match="no column 'knas'"):
        pool.column("knas")
    fill(store, small_plan(store, sample=8, ntk=ntk, scores=["knas"]))
    np.testing.assert_allclose(means, RunPool(connect(store), run).column("knas"), rtol=1e-12)
    assert [arch for arch, _ in before] == [arch for arch, _ in proposed()]
    assert 1 < len(before) <= 4


def test_knas_on_a_run_without_matrices_asks_for_its_column(with_gram):
    store, run, without = with_gram
    pool = RunPool(connect(store), without)
    with pytest.raises(UsageError, match=r"keeps no Gram matrices, and so has no gram_mean; .* with --keep-gram"):
        pool.column("gram_mean")
    with pytest.raises(UsageError, match=r"no column 'knas'.*with --scores knas computes it"):
        Search(pool, "knas", seed=0)
    assert np.isfinite(RunPool(connect(store), run).column("gram_mean")).all()


def test_the_columns_trace_and_kappa_are_scores_of_the_spectrum(with_gram):
    store, run, _ = with_gram
    query = "SELECT trace, kappa, kappa_at(eigenvalues, 0) AS k, nasi_trace(eigenvalues) AS n, eigenvalues FROM spectra"
    found = connect(store).execute(f"{query} JOIN metrics USING (run, canonical) WHERE run = ?", [run]).fetchall()
    trace, kappa, k, n = (np.array(column) for column in list(zip(*found, strict=True))[:4])
    eigenvalues = np.array([row[-1] for row in found])
    agree(trace**2, n)
    agree(trace**2, eigenvalues.mean(1))
    agree(kappa, k)
    agree(kappa, spectrum.kappa_at(eigenvalues))
    assert np.isinf(kappa).sum() >= 1


def test_the_views_agree_with_the_array_code_on_the_shipped_table():
    store = Store(str(SHIPPED))
    connection = connect(store)
    run = pick_run(connection).name
    found = connection.execute(
        "SELECT s.*, m.trace, m.kappa, m.ntk_row FROM scores AS s JOIN metrics AS m USING (run, canonical) "
        f"WHERE run = '{run}'"
    ).fetchnumpy()
    assert len(found["trace"]) == 5260
    eigenvalues = NTKArrays(store, run).read()[found["ntk_row"]]
    for name, score in COLUMNS.items():
        agree(found[name], score(eigenvalues))
    agree(found["trace"] ** 2, eigenvalues.mean(1))
    agree(found["kappa"], spectrum.kappa_at(eigenvalues))
    assert np.ma.getmaskarray(found["gram_mean"]).all()


@pytest.mark.parametrize(
    ("sql", "score"),
    [
        ("nasi_trace(e)", spectrum.nasi_trace),
        ("effective_rank(e)", spectrum.effective_rank),
        ("log_determinant(e)", spectrum.log_determinant),
        *((f"kappa_at(e, {k})", lambda e, k=k: spectrum.kappa_at(e, k)) for k in range(4)),
        *((f"kappa_percentile(e, {p})", lambda e, p=p: spectrum.kappa_percentile(e, p)) for p in (0, 12.5, 49)),
        ("kappa_at(e, 0, epsilon := 2.3e-16)", lambda e: spectrum.kappa_at(e, epsilon=2.3e-16)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_macros_handle_degenerate_spectra_like_the_array_code(tmp_path, sql, score):
    connection = connect(Store(str(tmp_path / "store")))
    spectra = np.vstack([DEGENERATE, [1e-9, 1.0, 2.0, 3.0], [1e-13, 1.0, 2.0, 3.0]])
    connection.register("numbers", pa.table({"i": range(7), "e": spectra.tolist()}))
    found = connection.execute(f"SELECT {sql} AS score FROM numbers ORDER BY i").fetchnumpy()["score"]
    agree(found, score(spectra))
    assert connection.execute(f"SELECT {sql.replace('(e', '(NULL::DOUBLE[]')}").fetchall() == [(None,)]


@pytest.mark.parametrize("sql", ["kappa_at([1.0, 2.0], 2)", "kappa_at([1.0], -1)", "kappa_percentile([1.0, 2.0], 50)"])
def test_an_index_outside_the_spectrum_is_null_in_sql(tmp_path, sql):
    assert connect(Store(str(tmp_path / "store"))).execute(f"SELECT {sql}").fetchall() == [(None,)]


# --- arrays are read on demand


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The (run, array) of every stream that DuckDB opens."""
    opened: list[tuple[str, str]] = []
    batches = ArrayRows._batches

    def watched(self: ArrayRows):
        opened.append((self._run.name, self._name))
        return batches(self)

    monkeypatch.setattr(ArrayRows, "_batches", watched)
    return opened


@pytest.mark.parametrize("query", ["FROM pool", "FROM metrics", "DESCRIBE scores", "SELECT count(*) FROM runs"])
def test_a_query_without_arrays_reads_none(with_gram, read, query):
    connect(with_gram[0]).execute(query).fetchall()
    assert read == []


def test_a_query_reads_only_the_arrays_of_its_run(with_gram, read):
    store, run, other = with_gram
    connection = connect(store)
    connection.execute("SELECT effective_rank(eigenvalues) FROM spectra WHERE run = ?", [run]).fetchall()
    assert read == [(run, "eigenvalues")]
    read.clear()
    connection.execute(f"SELECT gram_mean FROM scores WHERE run = '{run}'").fetchall()
    assert sorted(read) == [(run, "eigenvalues"), (run, "gram")]
    read.clear()
    connection.execute("SELECT effective_rank FROM scores WHERE run = ?", [other]).fetchall()
    assert read == [(other, "eigenvalues")]
    read.clear()
    connection.execute("FROM spectra").fetchall()
    assert sorted(read) == sorted([(run, "eigenvalues"), (other, "eigenvalues")])


def test_rows_of_a_run_without_matrices_have_no_gram_mean(with_gram):
    store, run, other = with_gram
    counted = "SELECT run, count(*) > 0, count(*) = count(gram_mean), count(gram_mean) FROM scores GROUP BY run"
    found = {row[0]: row[1:] for row in connect(store).execute(counted).fetchall()}
    assert found[run][:2] == (True, True)
    assert found[other] == (True, False, 0)


def test_rows_added_without_keep_gram_have_no_matrix(small_plan, tmp_path):
    store = Store(str(tmp_path / "store"))
    run = fill(store, small_plan(store, sample=3), keep_gram=True)
    assert fill(store, small_plan(store, sample=9)) == run
    connection = connect(store)
    assert connection.execute("SELECT count(*), count(effective_rank), count(gram_mean) FROM scores").fetchall() == [
        (len(metrics_of(store, run)), len(metrics_of(store, run)), 3)
    ]
    assert connection.execute("SELECT count(*) FROM grams").fetchall() == [(3,)]


def test_matrices_are_read_in_bounded_batches(with_gram, monkeypatch):
    store, run, _ = with_gram
    whole = connect(store).execute("SELECT canonical, gram_mean FROM scores ORDER BY ALL").fetchall()
    monkeypatch.setattr("hnas.pipeline.catalog.arrow_arrays._BATCH", 1)
    rows = [len(batch) for batch in ArrayRows(Run(store, run), "gram")._batches()]
    assert max(rows) == NTKArrays(store, run).open("gram").chunks[0] < sum(rows)
    assert connect(store).execute("SELECT canonical, gram_mean FROM scores ORDER BY ALL").fetchall() == whole


def test_the_sources_behind_the_views_are_not_listed(with_gram):
    connection = connect(with_gram[0])
    assert {"spectra", "grams", "scores"} <= set(view_names(connection))
    assert not [name for name in [*view_names(connection), *list_columns(connection)] if name.startswith("_")]


def test_a_damaged_array_gives_one_sentence_and_spares_other_queries(with_gram, tmp_path, capsys):
    store, run, _ = with_gram
    shutil.copytree(store.root, tmp_path / "store")
    for part in (tmp_path / "store/runs" / run / "ntk.zarr/eigenvalues/c").glob("*/*"):
        part.write_bytes(b"not a chunk")
    connection: duckdb.DuckDBPyConnection = connect(Store(str(tmp_path / "store")))
    with pytest.raises(HnasError, match=r"ntk\.zarr/eigenvalues cannot be read: .*damaged") as error:
        run_query(connection, "FROM scores", format="csv")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path))
    assert run_query(connection, "FROM runs", format="csv") == 2
