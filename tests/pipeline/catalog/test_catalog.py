"""The catalog: DuckDB's views over a store, typed even without rows, and the choice of a run."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnas.errors import HnasError, UsageError
from hnas.metrics import COLUMNS
from hnas.optim.objective import objective
from hnas.pipeline.catalog.info import store_info
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.store.run import RunSettings
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from tests.support.contents import matching, snapshot
from tests.support.runs import SPACE, exact_table, fill, metrics_of

VIEWS = (
    "runs", "architectures", "requests", "metrics", "accuracies", "mean_accuracies", "curves", "proxies", "pool",
    "mean_pool", "spectra", "grams", "scores", "searches", "queries",
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def with_accuracies(tmp_path_factory: pytest.TempPathFactory, small_plan) -> tuple[Store, str, list[str]]:
    """A real run of 12 architectures with synthetic accuracies for the first 8; its name and its architectures."""
    store = Store(str(tmp_path_factory.mktemp("catalog") / "store"))
    plan = small_plan(store, sample=12)
    run = fill(store, plan, keep_gram=True)
    archs = [arch for arch, _ in plan.requested]
    rows = [training(arch, seed=seed, test=80 + i + seed) for i, arch in enumerate(archs[:8]) for seed in (0, 1)]
    write_accuracies(store, "mine", rows)
    for table, more in (("curves", {"epoch": 5}), ("proxies", {"proxy": "synflow", "value": 1.5})):
        schema = SCHEMAS[table]
        store.write_table(pa.Table.from_pylist([row | more for row in rows], schema=schema), table, "mine", "a.parquet")
    return store, run, archs


def training(arch: str, *, seed: int = 0, epochs: int | None = 10, test: float = 90.0, **more: Any) -> dict[str, Any]:
    row = {"space": "nasbench201", "arch": arch, "dataset": "digits", "epochs": epochs, "seed": seed}
    return row | {"test_accuracy": test} | more


def test_attached_tables_are_read_with_a_store(with_accuracies, small_plan, tmp_path):
    shipped, run, archs = with_accuracies
    (tmp_path / "tables").mkdir()
    shutil.copytree(shipped.root, tmp_path / "tables" / "shipped")
    own, table = Store(str(tmp_path / "store")), Store(str(tmp_path / "tables" / "shipped"))
    before = snapshot(tmp_path / "tables")
    # With a store that does not exist yet, only the runs of the table are visible, not its accuracies or searches.
    alone = connect(own, [table])
    assert alone.execute("SELECT run FROM runs").fetchall() == [(run,)]
    assert alone.execute("SELECT count(*), count(params) FROM pool").fetchall() == [(len(archs), len(archs))]
    assert alone.execute("SELECT count(*) FROM accuracies").fetchall() == [(0,)]
    # Add a run to the store; accuracies of the store apply to both.
    mine = fill(own, small_plan(own, sample=3, seed=5))
    write_accuracies(own, "mine", [training(arch) for arch in archs[:4]])
    both = connect(own, [table])
    places = dict(both.execute("SELECT run, place FROM runs").fetchall())
    assert places == {run: table.location, mine: "store"}
    assert {row[0] for row in both.execute("SELECT run FROM runs").fetchall()} == {run, mine}
    counted = "SELECT run, count(*), count(test_accuracy) FROM pool WHERE run = ? GROUP BY run"
    assert both.execute(counted, [run]).fetchall() == [(run, len(archs), 4)]
    assert both.execute("SELECT count(*) FROM metrics WHERE run = ?", [mine]).fetchall() == [(3,)]
    # The store's own run with the same settings takes over the shipped rows and hides them, so no row is repeated.
    plan = small_plan(own, sample=2, also=[table])
    fill(own, plan)
    hidden = connect(own, [table])
    asked = {*archs, *(arch for arch, _ in plan.requested)}
    assert hidden.execute("SELECT count(*) FROM pool WHERE run = ?", [run]).fetchall() == [(len(asked),)]
    rows = hidden.execute("SELECT count(*), count(DISTINCT canonical) FROM metrics WHERE run = ?", [run]).fetchall()
    assert rows == [(len({SPACE.canonical(arch) for arch in asked}),) * 2]
    assert hidden.execute("SELECT count(*) FROM runs").fetchall() == [(2,)]
    assert snapshot(tmp_path / "tables") == before


def test_own_runs_are_picked_first_then_the_tables_seed_0(small_plan, tmp_path):
    own, table = Store(str(tmp_path / "store")), Store(str(tmp_path / "table"))
    runs = {}
    for seed, day in ((0, 1), (1, 2), (2, 3)):
        runs[seed] = fill(table, small_plan(table, sample=2, seed=seed))
        record = table.read_json("runs", runs[seed], "run.json")
        table.write_json({**record, "created": f"2026-01-0{day}T00:00:00+00:00"}, "runs", runs[seed], "run.json")
    assert pick_run(connect(own, [table])).name == runs[0]
    assert pick_run(connect(table)).name == runs[2], "it should be the newest of the store's own runs"
    mine = fill(own, small_plan(own, sample=2, seed=3))
    record = own.read_json("runs", mine, "run.json")
    own.write_json({**record, "created": "2025-01-01T00:00:00+00:00"}, "runs", mine, "run.json")
    connection = connect(own, [table])
    assert pick_run(connection).name == mine
    assert pick_run(connection, run=runs[1]).name == runs[1]
    assert {row["run"]: row["place"] for row in store_info(connection)["runs"]} == {
        mine: "store", **dict.fromkeys(runs.values(), table.location),
    }  # fmt: skip


def write_accuracies(store: Store, source: str, rows: list[dict[str, Any]], name: str = "a.parquet") -> None:
    store.prepare()
    store.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["accuracies"]), "accuracies", source, name)


def types_of(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    return dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {view})").fetchall())


def query(store: Store, text: str, *values: object) -> list[Any]:
    return connect(store).execute(text, list(values)).fetchall()


# --- views


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_store_has_every_view_without_rows(store, view):
    connection = connect(store)
    assert connection.execute(f"SELECT * FROM {view}").fetchall() == []
    assert not Path(store.root).exists()


@pytest.mark.parametrize("view", [view for view in VIEWS if view not in ("searches", "queries")])
def test_columns_and_types_of_a_view_do_not_depend_on_files(store, with_accuracies, view):
    full, *_ = with_accuracies
    assert query(full, f"SELECT count(*) > 0 FROM {view}") == [(True,)]
    types = types_of(connect(store), view)
    assert types == types_of(connect(full), view)
    assert "NULL" not in types.values()
    assert '"NULL"' not in types.values()


def test_the_metrics_equal_those_in_the_parts(filled):
    store, plan = filled
    rows = query(store, f"SELECT run, canonical, {', '.join(COLUMNS)}, status, ntk_row FROM metrics")
    stored = {row["canonical"]: row for row in metrics_of(store, plan.settings.id)}
    assert len(rows) == len(stored) == 19
    for run, canonical, *values in rows:
        assert run == plan.settings.id
        expected = [stored[canonical][name] for name in (*COLUMNS, "status", "ntk_row")]
        assert [v.hex() if isinstance(v, float) else v for v in values] == [
            v.hex() if isinstance(v, float) else v for v in expected
        ]


def test_the_view_runs_shows_the_settings(filled):
    store, plan = filled
    connection = connect(store)
    rows = connection.execute("SELECT * EXCLUDE (run, created, place) FROM runs").fetchall()
    names = [name for name in types_of(connection, "runs") if name not in ("run", "created", "place")]
    assert [dict(zip(names, row, strict=True)) for row in rows] == [asdict(plan.settings)]
    assert query(store, "SELECT run, typeof(created) FROM runs") == [(plan.settings.id, "TIMESTAMP")]


def test_the_pool_joins_metrics_static_columns_and_accuracies(with_accuracies):
    store, run, archs = with_accuracies
    table = exact_table(store, run)
    connection = connect(store)
    names = list(types_of(connection, "pool"))
    assert names == [
        "run", "space", "dataset", "arch", "canonical", *COLUMNS, "status", "params", "flops",
        "train_accuracy", "valid_accuracy", "test_accuracy",
    ]  # fmt: skip
    rows = [dict(zip(names, row, strict=True)) for row in connection.execute("SELECT * FROM pool").fetchall()]
    assert sorted(row["arch"] for row in rows) == sorted(archs)
    for row in rows:
        assert (row["run"], row["space"], row["dataset"]) == (run, "nasbench201", "digits")
        assert row["canonical"] == SPACE.canonical(row["arch"])
        assert tuple(row[name].hex() for name in COLUMNS) == table[row["canonical"]][:8]
        assert {name: row[name] for name in ("params", "flops")} == SPACE.describe(row["arch"])
        place = archs.index(row["arch"])
        assert row["test_accuracy"] == (80.5 + place if place < 8 else None)
        assert row["valid_accuracy"] is row["train_accuracy"] is None


def test_the_pool_of_an_incomplete_run_has_the_available_rows(store, small_plan):
    run = fill(store, small_plan(store, sample=12, chunk_size=3))
    part = matching(store, "runs", run, "metrics", "*.parquet")[0]
    lost = query(store, "SELECT count(*) FROM pool")[0][0]
    assert lost == 12
    Path(part).unlink()
    left = {row["canonical"] for row in metrics_of(store, run)}
    assert {row[0] for row in query(store, "SELECT canonical FROM pool")} == left
    assert query(store, "SELECT count(*) FROM requests") == [(12,)]


def test_accuracies_of_another_data_set_or_space_stay_out_of_the_pool(store, small_plan):
    plan = small_plan(store, sample=3)
    fill(store, plan)
    arch = plan.requested[0][0]
    write_accuracies(store, "a", [training(arch, dataset="cifar10"), training(arch, space="elsewhere")])
    assert query(store, "SELECT count(*), count(test_accuracy) FROM pool") == [(3, 0)]
    assert query(store, "SELECT count(*) FROM mean_accuracies") == [(2,)]


def test_a_part_of_an_older_version_reads_its_missing_column_as_null(store, small_plan):
    run = fill(store, small_plan(store, sample=4))
    (path,) = matching(store, "runs", run, "metrics", "*.parquet")
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in metrics_of(store, run)]
    Path(path).unlink()
    store.write_table(pa.Table.from_pylist(rows), "runs", run, "metrics", "old.parquet")
    assert query(store, "SELECT count(*), count(trace), count(seconds) FROM metrics") == [(len(rows), len(rows), 0)]


def test_queries_never_write_to_the_store(filled):
    store, _ = filled
    before = snapshot(store.root)
    connection = connect(store)
    for view in VIEWS:
        connection.execute(f"SELECT * FROM {view}").fetchall()
    connection.execute("CREATE TABLE mine AS SELECT * FROM pool")
    connection.close()
    assert snapshot(store.root) == before


# --- mean accuracies


def test_accuracies_are_averaged_over_seeds(store):
    rows = [training("a", seed=seed, test=test) for seed, test in ((777, 90.0), (888, 92.0), (999, 94.0))]
    write_accuracies(store, "mine", [*rows, training("b", test=50.0, valid_accuracy=40.0)])
    found = query(store, "SELECT arch, epochs, test_accuracy, valid_accuracy FROM mean_accuracies ORDER BY arch")
    assert found == [("a", 10, 92.0, None), ("b", 10, 50.0, 40.0)]


def test_the_source_and_epochs_with_most_architectures_are_used(store):
    short = [training(arch, epochs=12, test=60.0) for arch in "abc"]
    long = [training(arch, epochs=200, test=90.0, seed=seed) for arch in "ab" for seed in range(5)]
    write_accuracies(store, "zeta", [*short, *long])
    write_accuracies(store, "alpha", [training("d", epochs=200, test=10.0)])
    found = query(store, "SELECT arch, source, epochs, test_accuracy FROM mean_accuracies ORDER BY arch")
    assert found == [(arch, "zeta", 12, 60.0) for arch in "abc"]


def test_ties_prefer_longer_trainings_and_known_lengths(store):
    write_accuracies(store, "one", [training("a", epochs=12, test=1.0), training("a", epochs=None, test=2.0)])
    write_accuracies(store, "two", [training("a", epochs=200, test=3.0)])
    assert query(store, "SELECT source, epochs, test_accuracy FROM mean_accuracies") == [("two", 200, 3.0)]


def test_accuracies_without_epochs_are_averaged_too(store):
    write_accuracies(store, "one", [training("a", epochs=None, test=t, seed=i) for i, t in enumerate((1.0, 2.0))])
    assert query(store, "SELECT source, epochs, test_accuracy FROM mean_accuracies") == [("one", None, 1.5)]


def test_each_data_set_has_its_own_choice(store):
    write_accuracies(store, "one", [training(arch, test=1.0) for arch in "ab"])
    write_accuracies(store, "two", [training(arch, test=2.0, dataset="cifar10") for arch in "abc"])
    found = query(store, "SELECT dataset, source, count(*) FROM mean_accuracies GROUP BY ALL ORDER BY ALL")
    assert found == [("cifar10", "two", 3), ("digits", "one", 2)]


def test_several_files_of_one_source_are_one_table(store):
    write_accuracies(store, "one", [training("a", test=1.0)], "a.parquet")
    write_accuracies(store, "one", [training("b", test=2.0)], "b.parquet")
    found = query(store, "SELECT source, arch, test_accuracy FROM accuracies ORDER BY arch")
    assert found == [("one", "a", 1.0), ("one", "b", 2.0)]


def test_a_files_name_is_not_a_pattern(store):
    write_accuracies(store, "one", [training("a", test=1.0)], "t[1].parquet")
    write_accuracies(store, "one", [training("b", test=2.0)], "t1.parquet")
    write_accuracies(store, "two?", [training("c", test=3.0)], "*.parquet")
    assert query(store, "SELECT arch, test_accuracy FROM accuracies ORDER BY ALL") == [("a", 1), ("b", 2), ("c", 3)]


# --- eq. (7)

positive = st.floats(1e-6, 1e6)
metrics = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, math.inf, -math.inf]))
kappas = st.one_of(st.floats(1, 1e12), st.sampled_from([math.inf, math.nan]))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    return connect(Store(str(tmp_path_factory.mktemp("empty") / "store")))


@given(
    rows=st.lists(st.tuples(metrics, kappas), min_size=1, max_size=8),
    mu=positive,
    nu=st.floats(0, 1e6),
    t=st.floats(0.01, 4),
)
def test_the_macro_is_the_objective(empty, rows, mu, nu, t):
    values = empty.execute(
        "SELECT objective(unnest($m::DOUBLE[]), unnest($k::DOUBLE[]), $mu::DOUBLE, $nu::DOUBLE, $t::DOUBLE)",
        {"m": [m for m, _ in rows], "k": [k for _, k in rows], "mu": mu, "nu": nu, "t": t},
    ).fetchall()
    m, k = (np.array(column) for column in zip(*rows, strict=True))
    expected = objective(m, k, mu=mu, nu=nu, t=t)
    np.testing.assert_allclose([value for (value,) in values], expected, rtol=1e-12)


@pytest.mark.parametrize("metric", ["nan", "0", "NULL", "inf"])
def test_architectures_without_an_objective_are_never_the_minimum(empty, metric):
    ordered = empty.execute(
        f"SELECT name FROM (VALUES ('good', 1.0::DOUBLE), ('bad', '{metric}'::DOUBLE)) t(name, m) "
        "ORDER BY objective(m, 5.0, 1.0, 1.0, 1.0), name"
        if metric != "NULL"
        else "SELECT name FROM (VALUES ('good', 1.0::DOUBLE), ('bad', NULL)) t(name, m) "
        "ORDER BY objective(m, 5.0, 1.0, 1.0, 1.0), name"
    ).fetchall()
    assert ordered == [("good",), ("bad",)]


def test_a_metric_that_is_not_a_number_has_an_infinite_objective_in_both(empty):
    ((value,),) = empty.execute("SELECT objective('nan'::DOUBLE, 5.0, 1.0, 1.0, 1.0)").fetchall()
    assert value == objective(np.array([math.nan]), np.array([5.0]), mu=1.0, nu=1.0)[0] == math.inf


# --- the run that a command works on


def settings_named(beginning: str, settings: RunSettings, **more: Any) -> RunSettings:
    """Settings with a seed for which the run's name begins like this."""
    return next(s for seed in count() if (s := replace(settings, seed=seed, **more)).id.startswith(beginning))


#: The data sets of four runs by the beginnings of their names, and the days on which they were created.
SEVERAL = {"aa1": ("digits", 3), "aa2": ("cifar10", 9), "bb": ("digits", 5), "cc": ("cifar100", 1)}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, filled) -> duckdb.DuckDBPyConnection:
    """Four runs, not created in the order of their names."""
    store = Store(str(tmp_path_factory.mktemp("several") / "store"))
    store.prepare()
    for beginning, (dataset, day) in SEVERAL.items():
        settings = settings_named(beginning, filled[1].settings, dataset=dataset)
        created = f"2026-01-{day:02d}T12:00:00+00:00"
        record = {"id": settings.id, "created": created, "settings": asdict(settings)}
        store.write_json(record, "runs", settings.id, "run.json")
    return connect(store)


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ({}, "aa2"),
        ({"dataset": "digits"}, "bb"),
        ({"dataset": "cifar100", "space": "nasbench201"}, "cc"),
        ({"run": "aa1"}, "aa1"),
        ({"run": "b"}, "bb"),
        ({"run": "aa", "dataset": "digits"}, "aa1"),
    ],
    ids=str,
)
def test_the_run_is_the_named_one_or_the_newest_match(several, criteria, found):
    picked = pick_run(several, **criteria)
    assert picked.name.startswith(found)
    assert pick_run(several, run=picked.name) == picked
    assert {"space", "dataset", "channels", "cells", "batch_size", "seed", "ntk"} <= asdict(picked.settings).keys()


def test_a_newer_run_without_metrics_is_not_preferred(tmp_path, filled):
    store = Store(str(tmp_path / "store"))
    shutil.copytree(filled[0].location, store.location)
    settings = settings_named("ee", filled[1].settings)
    empty = {"id": settings.id, "created": "2099-01-01T12:00:00+00:00", "settings": asdict(settings)}
    store.write_json(empty, "runs", settings.id, "run.json")
    connection = connect(store)
    assert pick_run(connection).name == filled[1].settings.id
    assert pick_run(connection, run="ee").name == settings.id


def test_an_ambiguous_run_name_is_rejected_with_all_matches(several):
    with pytest.raises(UsageError, match=r"--run aa matches 2 runs: aa2[0-9a-f]{7}, aa1[0-9a-f]{7}; name one of them"):
        pick_run(several, run="aa")


@pytest.mark.parametrize(
    ("criteria", "named"),
    [
        ({"run": "ff"}, "no run with run ff;"),
        ({"run": "%"}, "no run with run %;"),
        ({"dataset": "imagenet16-120"}, "no run with dataset imagenet16-120;"),
        ({"space": "darts", "dataset": "digits"}, "no run with space darts dataset digits;"),
    ],
)
def test_the_error_without_a_match_repeats_the_request(several, criteria, named):
    with pytest.raises(UsageError, match=named):
        pick_run(several, **criteria)


def test_the_error_in_an_empty_store_says_how_to_create_a_run(empty):
    with pytest.raises(UsageError, match="the store has no run; `hnas precompute` makes one"):
        pick_run(empty)


# --- damage


@pytest.mark.parametrize("content", [b"{", b"no json", b'{"id": 3, "created": "yesterday"}'])
def test_a_damaged_run_gives_one_sentence(filled, store, content):
    store.prepare()
    store.write_bytes(content, "runs", "0123456789", "run.json")
    with pytest.raises(HnasError) as error:
        connect(store)
    assert "run.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_ties_between_tables_prefer_validation_accuracies(store):
    arch = "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
    write_accuracies(store, "a", [training(arch, test=90.0)])
    write_accuracies(store, "b", [training(arch, test=91.0, valid_accuracy=80.0)])
    write_accuracies(store, "c", [training(arch, test=92.0, valid_accuracy=81.0)])
    means = "SELECT source, epochs, valid_accuracy, test_accuracy FROM mean_accuracies"
    assert query(store, means) == [("b", 10, 80.0, 91.0)]
    write_accuracies(store, "d", [training(arch, test=93.0, epochs=11)])
    assert query(store, means) == [("d", 11, None, 93.0)]


def test_curves_and_proxies_have_their_source(with_accuracies):
    store, _, archs = with_accuracies
    for view, columns, rest in (("curves", "seed, epoch", (5,)), ("proxies", "proxy, value", ("synflow", 1.5))):
        found = query(store, f"SELECT source, space, arch, dataset, {columns} FROM {view} ORDER BY ALL")
        expected = [("mine", "nasbench201", arch, "digits") for arch in archs[:8] for _ in (0, 1)]
        assert [row[:4] for row in found] == sorted(expected)
        assert {row[-len(rest) :] for row in found} == {rest}
