"""`hnas search` over a store: the pool in DuckDB, the saved queries, and resuming."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hnas.errors import HnasError, UsageError
from hnas.metrics.columns import COLUMNS
from hnas.optim.algorithm import search
from hnas.optim.objective import objective
from hnas.optim.pools import ArrayPool
from hnas.pipeline.catalog.pool import DuckDBMinimiser, RunPool
from hnas.pipeline.catalog.signals import choose_signal
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.saved import open_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.search.settings import TrainingSettings
from tests.support.contents import matching
from tests.support.stores import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    return make_store(tmp_path_factory.mktemp("search"), architectures=80)


@pytest.fixture
def connection(store):
    return connect(store)


def run_id(connection) -> str:
    return pick_run(connection).name


@pytest.mark.parametrize("metric", [name for name in COLUMNS if name != "kappa"])
@pytest.mark.parametrize("t", [0.5, 1.0])
def test_the_query_finds_the_same_minimiser_as_numpy(connection, metric, t):
    pool = RunPool(connection, run_id(connection)).minimiser(metric)
    rows = connection.execute("SELECT arch, * FROM pool WHERE status = 'ok' ORDER BY arch").fetchnumpy()
    for mu, nu in ((1e-6, 10.0), (1.0, 100.0), (1e3, 1e4)):
        values = objective(rows[metric], rows["kappa"], mu=mu, nu=nu, t=t)
        found = pool.solve(mu=mu, nu=nu, t=t)
        assert found.arch == rows["arch"][int(np.argmin(values))]
        assert found.objective == pytest.approx(values.min(), rel=1e-12)


@given(
    log_mu=st.floats(-300, 300),
    nu=st.floats(0, 1e12),
    t=st.floats(0.05, 8),
    taken=st.sets(st.integers(0, 78), max_size=78),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bounds_never_exclude_the_minimiser(connection, log_mu, nu, t, taken):
    """Covers mu at which one term of eq. (7) dominates, overflowing exponents, and a nearly exhausted pool."""
    pool = RunPool(connection, run_id(connection)).minimiser("trace")
    rows = connection.execute(f"SELECT arch, class FROM {pool.table} ORDER BY arch").fetchnumpy()
    free = np.ones(79, bool)
    for k in taken:
        pool.take(rows["arch"][k])
        free &= rows["class"] != rows["class"][k]  # the whole class is taken
    assume(free.any())
    mu = 10.0**log_mu
    query = f"SELECT objective(metric, kappa, ?, ?, ?) AS value FROM {pool.table} ORDER BY arch"
    values = connection.execute(query, [mu, nu, t]).fetchnumpy()["value"][free]
    found = pool.solve(mu=mu, nu=nu, t=t)
    assert found is not None
    assert found.objective == values.min()
    assert found.arch == rows["arch"][free][int(np.argmin(values))]


def test_a_pool_of_many_row_groups_is_solved_like_in_memory(connection):
    """The sample for the bound is a part of the pool here, and may be exhausted."""
    random = np.random.default_rng(0)
    metric, kappa = np.exp(3 * random.standard_normal((2, 20_000)))
    archs = np.array([f"{k:05d}" for k in range(20_000)])
    expected = ArrayPool(list(archs), {"trace": metric, "kappa": kappa})
    table = pa.table(
        {"arch": archs, "class": np.arange(20_000), "metric": metric, "kappa": kappa, "limited": 0.0 * kappa}
    )
    connection.register("numbers", table)
    connection.execute("CREATE TEMP TABLE many AS SELECT * FROM numbers")
    pool, known = DuckDBMinimiser(expected, connection, "many"), expected.minimiser("trace")
    for mu in (1e-9, 1e-3, 1.0, 1e6):
        for nu in (0.0, 1.0, 100.0):
            found = pool.solve(mu=mu, nu=nu, t=1.0)
            assert found is not None
            assert found.arch == known.solve(mu=mu, nu=nu, t=1.0).arch
            pool.take(found.arch)
            known.take(found.arch)
    for arch in archs[:8192]:
        pool.take(arch)
        known.take(arch)
    assert pool.solve(mu=1.0, nu=1.0, t=1.0).arch == known.solve(mu=1.0, nu=1.0, t=1.0).arch


def test_dead_architectures_are_not_candidates(connection):
    dead = connection.execute("SELECT arch FROM pool WHERE status = 'constant'").fetchall()
    pool = RunPool(connection, run_id(connection)).minimiser("trace")
    assert len(dead) == 1
    assert len(pool.terms()[0]) == 79
    classes = dict(connection.execute("SELECT arch, canonical FROM pool").fetchall())
    for _ in range(len({classes[arch] for arch in classes if arch != dead[0][0]})):
        arch = pool.solve(mu=1.0, nu=0.0, t=1.0).arch
        assert arch != dead[0][0]
        assert classes.pop(arch) not in {classes.get(arch)}
        pool.take(arch)
    assert pool.solve(mu=1.0, nu=0.0, t=1.0) is None


def test_a_search_in_duckdb_equals_the_search_in_memory(store, connection):
    result = run_search(store, connection, new_search(connection, space="nasbench201", metric="snip", queries=12))
    rows = connection.execute("SELECT * FROM pool WHERE status = 'ok'").fetchnumpy()
    accuracy = dict(zip(rows["arch"], rows["valid_accuracy"], strict=True))
    columns = {"snip": rows["snip"], "kappa": rows["kappa"]}
    pool = ArrayPool(list(rows["arch"]), columns, list(rows["canonical"]))
    expected = search(pool, lambda arch: accuracy[arch], method="hnas:snip", queries=12)
    assert [q.arch for q in result.queries] == [q.arch for q in expected]
    assert [q.performance for q in result.queries] == [q.performance for q in expected]


def test_the_saved_queries_equal_the_results(store, connection):
    result = run_search(store, connection, new_search(connection, space="nasbench201", queries=5, seed=3))
    reread = connect(store)
    saved = reread.execute("FROM queries WHERE search = ? ORDER BY query", [result.search]).fetchall()
    assert [row[4] for row in saved] == [q.arch for q in result.queries]
    assert [row[6] for row in saved] == [q.performance for q in result.queries]
    row = reread.execute("SELECT metric, oracle, accuracy, seed FROM searches WHERE search = ?", [result.search])
    assert row.fetchall() == [("trace", "table", "valid_accuracy", 3)]
    assert store.read_json("searches", result.search, "search.json")["settings"]["training"] == {}


def test_queries_are_saved_at_once_and_resuming_changes_nothing(store, connection):
    whole = run_search(store, connection, new_search(connection, space="nasbench201", queries=12, seed=1))
    started = new_search(connection, space="nasbench201", queries=12, seed=1)
    accuracy = dict(connect(store).execute("SELECT arch, valid_accuracy FROM pool").fetchall())
    asked: list[str] = []

    def failing(arch: str) -> float:
        if len(asked) == 7:
            raise HnasError("the machine went away")
        asked.append(arch)
        return accuracy[arch]

    with pytest.raises(HnasError, match="went away"):
        run_search(store, connection, started, oracle=failing)
    name = connect(store).execute("SELECT search FROM searches ORDER BY created DESC, search").fetchall()
    unfinished = [s for (s,) in name if len(open_search(connection, store, s).history) == 7]
    assert len(unfinished) == 1
    resumed = run_search(store, connect(store), open_search(connection, store, unfinished[0]))
    assert resumed.search == unfinished[0]
    assert [q.arch for q in resumed.queries] == [q.arch for q in whole.queries]
    assert len(open_search(connection, store, unfinished[0]).history) == 12


def test_a_finished_search_resumed_makes_no_new_query(store, connection):
    result = run_search(store, connection, new_search(connection, space="nasbench201", queries=4, seed=5))
    seen: list[object] = []
    again = run_search(store, connection, open_search(connect(store), store, result.search), on_query=seen.append)
    assert again.as_dict() == result.as_dict()
    assert seen == []


def test_a_search_whose_first_query_fails_leaves_nothing(store, connection):
    before = sorted(matching(store, "searches", "*"))

    def failing(arch: str) -> float:
        raise HnasError("no")

    with pytest.raises(HnasError):
        run_search(store, connection, new_search(connection, space="nasbench201"), oracle=failing)
    assert sorted(matching(store, "searches", "*")) == before


def test_the_json_has_the_documented_shape(store, connection):
    result = run_search(store, connection, new_search(connection, space="nasbench201", queries=3))
    shown = json.loads(json.dumps(result.as_dict()))
    assert {"search", "best", "queries"} <= set(shown)
    assert set(shown["best"]) == {"arch", "performance", "mu", "nu", "query"}
    assert [set(q) for q in shown["queries"]] == [
        {"query", "mu", "nu", "arch", "objective", "performance", "seconds", "cost"}
    ] * 3
    assert shown["best"]["performance"] == max(q["performance"] for q in shown["queries"])


def test_validation_accuracy_is_preferred_unless_test_is_requested(connection):
    assert choose_signal(connection, "nasbench201", "digits").accuracy == "valid_accuracy"
    assert choose_signal(connection, "nasbench201", "digits", accuracy="test_accuracy").accuracy == "test_accuracy"
    with pytest.raises(UsageError, match="accuracy 'speed' is unknown"):
        choose_signal(connection, "nasbench201", "digits", accuracy="speed")


def test_a_search_without_accuracies_says_how_to_import_them(tmp_path):
    connection = connect(make_store(tmp_path, architectures=10, accuracies=False))
    with pytest.raises(UsageError, match="hnas import"):
        new_search(connection, space="nasbench201")


def test_the_train_oracle_trains_and_its_search_resumes(tmp_path):
    store = make_store(tmp_path, architectures=12, accuracies=False)
    training = TrainingSettings(epochs=1, batch_size=128, lr=0.05, images="digits")
    started = new_search(connect(store), space="nasbench201", dataset="digits", queries=2, training=training)
    result = run_search(store, connect(store), started)
    assert [q.query for q in result.queries] == [1, 2]
    assert all(10 < q.performance <= 100 and q.seconds > 0 for q in result.queries)
    again = run_search(store, connect(store), started)
    assert [q.performance for q in again.queries] == [q.performance for q in result.queries]
    assert open_search(connect(store), store, result.search).settings.training.epochs == 1


def test_table_accuracies_are_not_an_option_of_the_train_oracle(connection):
    training = TrainingSettings(epochs=1, batch_size=128, lr=0.05, images="digits")
    with pytest.raises(UsageError, match="--accuracy test_accuracy requires --oracle table"):
        new_search(connection, space="nasbench201", dataset="digits", training=training, accuracy="test_accuracy")


@pytest.mark.parametrize(("name", "words"), [("0000000000", "no search"), ("", "no search"), ("../runs", "no search")])
def test_resuming_an_unknown_search_is_rejected(store, name, words):
    with pytest.raises(UsageError, match=words):
        open_search(connect(store), store, name)
