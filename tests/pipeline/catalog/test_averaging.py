"""Averages over runs that differ in seed and batch: `mean_pool`, and `--average` of correlate and search."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hnas.errors import HnasError, UsageError
from hnas.metrics import COLUMNS
from hnas.optim.algorithm import search
from hnas.optim.pools import ArrayPool
from hnas.pipeline.analysis.correlate import correlate
from hnas.pipeline.analysis.ranks import spearman
from hnas.pipeline.analysis.report import correlation_text
from hnas.pipeline.catalog.averaging import group_of, left_out
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.search.prepared import SearchSize
from hnas.pipeline.search.report import search_heading
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.saved import open_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.contents import matching
from tests.support.runs import SPACE, fill, metrics_of

DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory, small_plan) -> tuple[Store, list[str], list[list[str]]]:
    """Real runs with seeds 0, 1 and 2 on overlapping lists of cells, and a wider run outside their group."""
    folder = tmp_path_factory.mktemp("averaging")
    store = Store(str(folder / "store"))
    cells = [arch for arch in SPACE.sample(40, seed=0) if SPACE.canonical(arch) != "y=0"][:14]
    lists = [[DEAD, *cells[:12]], [DEAD, *cells[:10], cells[12]], [*cells[:12], DEAD, cells[13]]]
    runs = []
    for seed, listed in enumerate(lists):
        file = folder / f"{seed}.txt"
        file.write_text("\n".join(listed))
        runs.append(fill(store, small_plan(store, architectures=file, seed=seed)))
    fill(store, small_plan(store, architectures=folder / "0.txt", seed=1, channels=6))
    rows = [
        {
            "space": "nasbench201", "arch": arch, "dataset": "digits", "epochs": 10, "seed": 0,
            "valid_accuracy": 80.0 + i % 7, "test_accuracy": 80.0 + (3 * i) % 11,
        }
        for i, arch in enumerate([*cells, DEAD])
    ]  # fmt: skip
    store.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["accuracies"]), "accuracies", "mine", "a.parquet")
    return store, runs, lists


def in_all(lists: list[list[str]]) -> list[str]:
    return sorted(set.intersection(*map(set, lists)))


def expected_means(store: Store, runs: list[str], archs: list[str]) -> dict[str, dict[str, Any]]:
    """Independently computed means, for architectures in all of `runs`."""
    tables = [{row["canonical"]: row for row in metrics_of(store, run)} for run in runs]
    means = {}
    for arch in archs:
        rows = [table[SPACE.canonical(arch)] for table in tables]
        mean: dict[str, Any] = {name: np.mean([row[name] for row in rows]) for name in COLUMNS if name != "kappa"}
        mean["kappa"] = math.exp(np.mean([math.log(row["kappa"]) for row in rows]))
        mean["status"] = next((row["status"] for row in rows if row["status"] != "ok"), "ok")
        means[arch] = mean
    return means


def test_the_mean_pool_averages_the_runs_with_an_architecture(seeds):
    store, runs, lists = seeds
    connection = connect(store)
    group = "run_group = (SELECT run_group FROM files.run_groups WHERE run = ?)"
    result = connection.execute(f"SELECT * FROM mean_pool WHERE {group}", [runs[0]])
    names = [column[0] for column in result.description or []]
    rows = {row[names.index("arch")]: dict(zip(names, row, strict=True)) for row in result.fetchall()}
    assert set(rows) == set().union(*lists)
    for arch, row in rows.items():
        having = [run for run, listed in zip(runs, lists, strict=True) if arch in listed]
        assert row["n_runs"] == len(having)
        (expected,) = expected_means(store, having, [arch]).values()
        for name in COLUMNS:
            assert row[name] == pytest.approx(expected[name], rel=1e-12), name
        assert row["status"] == expected["status"]
        assert row["params"] == SPACE.describe(arch)["params"]
        assert row["test_accuracy"] is not None
    assert (rows[DEAD]["status"], rows[DEAD]["kappa"]) == ("constant", math.inf)


def test_the_mean_pool_of_one_run_is_its_pool(seeds):
    store, _, _ = seeds
    wide = "run = (SELECT run FROM runs WHERE channels = 6)"
    columns = f"arch, canonical, {', '.join(COLUMNS)}, status, params, test_accuracy"
    connection = connect(store)
    group = f"run_group = (SELECT run_group FROM files.run_groups WHERE {wide})"
    means = connection.execute(f"SELECT {columns} FROM mean_pool WHERE {group} ORDER BY arch").fetchall()
    assert means == connection.execute(f"SELECT {columns} FROM pool WHERE {wide} ORDER BY arch").fetchall()


def test_kappa_is_averaged_geometrically_and_infinite_if_any_is(seeds):
    connection = connect(seeds[0])
    rows = "(VALUES ('a', 10.0::DOUBLE), ('b', 1000.0), ('c', '{}'::DOUBLE)) AS t(run, kappa)"
    ((finite,),) = connection.execute(f"SELECT mean_kappa(kappa, run) FROM {rows.format(100)}").fetchall()
    assert finite == pytest.approx(100)
    assert connection.execute(f"SELECT mean_kappa(kappa, run) FROM {rows.format('inf')}").fetchall() == [(math.inf,)]


def test_a_group_differs_only_in_seed_and_batch(seeds):
    store, runs, lists = seeds
    connection = connect(store)
    for run in runs:
        assert group_of(connection, run) == sorted(runs)
    everything = set().union(*lists)
    assert left_out(connection, runs) == len(everything) - len(in_all(lists)) == 4
    assert left_out(connection, []) == 0


def test_a_single_run_has_nothing_to_average_with(seeds):
    connection = connect(seeds[0])
    ((wide,),) = connection.execute("SELECT run FROM runs WHERE channels = 6").fetchall()
    with pytest.raises(UsageError, match=f"no other run to average with run {wide}.*another --seed"):
        correlate(connection, pick_run(connection, run=wide), average=True)
    with pytest.raises(UsageError, match="no other run to average with"):
        new_search(connection, space="nasbench201", run=wide, average=True)


def test_correlations_of_means_use_architectures_in_all_runs(seeds):
    store, runs, lists = seeds
    connection = connect(store)
    found = correlate(connection, pick_run(connection, run=runs[1]), average=True)
    archs = in_all(lists)
    means = expected_means(store, sorted(runs), archs)
    assert (found.n, found.runs, found.left_out) == (len(archs), sorted(runs), 4)
    accuracy = connection.execute("SELECT arch, test_accuracy FROM mean_accuracies").fetchall()
    target = np.array([dict(accuracy)[arch] for arch in archs])
    for name in ("snip", "kappa"):
        value = found.matrix[found.names.index(name), found.names.index("test_accuracy")]
        assert value == pytest.approx(spearman(np.array([means[arch][name] for arch in archs]), target), abs=1e-12)
    text = correlation_text(found)
    assert text.startswith(f"the mean of runs {', '.join(sorted(runs))}: nasbench201 on digits, 11 architectures")
    assert "left out: 4 architectures that are not in all of these runs" in text
    assert {record["run"] for record in found.records()} == {" ".join(sorted(runs))}


def test_a_search_of_the_mean_equals_one_in_memory(seeds):
    store, runs, lists = seeds
    connection = connect(store)
    started = new_search(connection, space="nasbench201", run=runs[0], metric="snip", queries=6, average=True)
    assert started.settings.runs == sorted(runs)
    sizes: list[SearchSize] = []
    result = run_search(store, connection, started, on_start=sizes.append)
    means = expected_means(store, sorted(runs), [arch for arch in in_all(lists) if arch != DEAD])
    accuracy = dict(connection.execute("SELECT arch, valid_accuracy FROM mean_accuracies").fetchall())
    pool = ArrayPool(
        list(means),
        {name: [row[name] for row in means.values()] for name in ("snip", "kappa")},
        [SPACE.canonical(arch) for arch in means],
    )
    expected = search(pool, lambda arch: accuracy[arch], method="hnas:snip", queries=6)
    assert [q.arch for q in result.queries] == [q.arch for q in expected]
    heading = search_heading(started, sizes[0])
    assert f"11 architectures of the mean of runs {', '.join(sorted(runs))} (nasbench201 on digits)" in heading
    assert "left out: 4 architectures" in heading


def test_a_resumed_search_keeps_its_averaged_runs(seeds, small_plan, tmp_path):
    shutil.copytree(seeds[0].root, tmp_path / "store")
    store, runs = Store(str(tmp_path / "store")), sorted(seeds[1])
    connection = connect(store)
    whole = run_search(
        store, connection, new_search(connection, space="nasbench201", run=runs[0], queries=6, average=True)
    )
    started = new_search(connection, space="nasbench201", run=runs[0], queries=6, average=True)
    accuracy = dict(connection.execute("SELECT arch, valid_accuracy FROM mean_accuracies").fetchall())
    asked: list[str] = []

    def failing(arch: str) -> float:
        if len(asked) == 3:
            raise HnasError("the machine went away")
        asked.append(arch)
        return accuracy[arch]

    with pytest.raises(HnasError, match="went away"):
        run_search(store, connection, started, oracle=failing)
    names = [Path(path).name for path in matching(store, "searches", "*")]
    (name,) = [name for name in names if len(open_search(connect(store), store, name).history) == 3]
    # Another seed added in the meantime joins new averages, not this one.
    fill(store, small_plan(store, architectures=Path(seeds[0].root).parent / "0.txt", seed=7))
    later = connect(store)
    assert len(group_of(later, runs[0])) == 4
    resumed = open_search(connect(store), store, name)
    assert resumed.settings.runs == runs
    assert [q.arch for q in run_search(store, later, resumed).queries] == [q.arch for q in whole.queries]
    recorded = later.execute("SELECT runs FROM searches WHERE search = ?", [name]).fetchall()
    assert recorded == [(runs,)]
    # Without one of its runs it would be another search.
    shutil.rmtree(tmp_path / "store" / "runs" / runs[2])
    with pytest.raises(HnasError, match=f"no longer has {runs[2]}"):
        run_search(store, connect(store), resumed)


def test_a_search_saved_before_averaging_resumes_unchanged(seeds, tmp_path):
    shutil.copytree(seeds[0].root, tmp_path / "store")
    store, run = Store(str(tmp_path / "store")), seeds[1][0]
    connection = connect(store)
    done = run_search(store, connection, new_search(connection, space="nasbench201", run=run, queries=3))
    record = tmp_path / "store" / "searches" / done.search / "search.json"
    content = json.loads(record.read_text())
    del content["checksum"]
    assert content["settings"].pop("runs") == []
    record.write_text(json.dumps(content))
    assert open_search(connect(store), store, done.search).settings.runs == []
    again = run_search(store, connect(store), open_search(connect(store), store, done.search))
    assert again.as_dict() == done.as_dict()
    recorded = connect(store).execute("SELECT runs FROM searches WHERE search = ?", [done.search])
    assert recorded.fetchall() == [(None,)]


def test_a_pool_of_means_is_not_mistaken_for_a_runs_pool(seeds):
    store, runs, lists = seeds
    connection = connect(store)
    new_search(connection, space="nasbench201", run=runs[0], metric="trace", average=True)
    assert len(RunPool(connection, runs[0])) == len(lists[0])
    new_search(connection, space="nasbench201", run=runs[0], metric="trace")
    assert len(RunPool(connection, runs[0], sorted(runs))) == len(in_all(lists))


def test_the_train_oracle_searches_a_mean_too(seeds, tmp_path):
    shutil.copytree(seeds[0].root, tmp_path / "store")
    store = str(tmp_path / "store")
    run = seeds[1][2]
    options = ["--dataset", "digits", "--oracle", "train", "--queries", "2", "--epochs", "1", "--batch-size", "256"]
    done = hnas("search", "nasbench201", "--run", run, "--average", "--store", store, *options)
    assert done.status == 0, done.err
    assert f"of the mean of runs {', '.join(sorted(seeds[1]))}" in done.err
    assert "left out: 4 architectures" in done.err
    correlated = hnas("correlate", "--run", run, "--average", "--store", store)
    assert correlated.status == 0, correlated.err
    assert correlated.out.startswith("the mean of runs ")
    alone = hnas("correlate", "--run", run[:3] + "x", "--average", "--store", store)
    assert alone.status == 2


def test_the_front_of_a_search_is_of_its_own_runs(seeds, tmp_path):
    """The newest run has other metrics, and is not what the searches saw."""
    store, runs, _ = seeds
    copied = Store(shutil.copytree(store.root, tmp_path / "store"))
    one, other, mean = (
        run_search(copied, connect(copied), new_search(connect(copied), space="nasbench201", queries=4, **of)).search
        for of in ({"run": runs[0]}, {"run": runs[1]}, {"run": runs[0], "average": True})
    )
    arguments = ("pareto", "--store", copied.location, "--minimise", "kappa", "--maximise", "performance")
    named = hnas(*arguments, "--search", one, "--run", runs[0])
    shown = hnas(*arguments, "--search", one)
    assert (shown.status, shown.out) == (0, named.out), shown.err
    assert shown.out.startswith(f"what {one} evaluated of run {runs[0]}: ")
    averaged = hnas(*arguments, "--search", mean)
    assert averaged.out.startswith(f"what {mean} evaluated of the mean of runs {', '.join(sorted(runs))}: ")
    both = hnas(*arguments, "--search", one, "--search", other)
    assert (both.status, both.out) == (2, "")
    assert f"{one} (run {runs[0]})" in both.last
    assert "are of different runs" in both.last
    assert hnas(*arguments, "--search", one, "--search", other, "--run", runs[0]).status == 0
