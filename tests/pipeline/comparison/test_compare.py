"""`hnas compare`: searches by the hundred in a few files, in this process and on Dask, interrupted and resumed."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hnas.errors import HnasError, UsageError
from hnas.optim.algorithm import best
from hnas.optim.evaluations import Evaluation, EvaluationError
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.comparison import driver
from hnas.pipeline.comparison.driver import compare, missing
from hnas.pipeline.comparison.figures import plot_curves
from hnas.pipeline.comparison.request import Comparison, new_comparison
from hnas.pipeline.comparison.results import Results, incumbents
from hnas.pipeline.comparison.specs import parse_specs
from hnas.pipeline.comparison.worker import Job, run_part
from hnas.pipeline.report.comparison import comparison_sections
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.store.comparisons import Part, missing_parts
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.contents import matching, snapshot
from tests.support.processes import HNAS, WAIT, running
from tests.support.stores import make_store

pytestmark = pytest.mark.slow

METHODS = "hnas:trace,random,hnas:snip@6,random@3000s"
PLAIN = "SELECT * EXCLUDE (seconds, own_seconds) FROM queries ORDER BY search, query"


def with_costs(store: Store) -> Store:
    """The store with training seconds, and accuracies on a second data set."""
    table = store.read_table(None, "accuracies", "csv", "made-up.parquet")
    rows = [{**row, "seconds": 100.0 + k} for k, row in enumerate(table.to_pylist())]
    others = [
        {**row, "dataset": "cifar10", "valid_accuracy": None, "test_accuracy": row["test_accuracy"] - 10}
        for row in rows
    ]
    table = pa.Table.from_pylist(rows + others, schema=SCHEMAS["accuracies"])
    store.write_table(table, "accuracies", "csv", "made-up.parquet")
    return store


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return with_costs(make_store(tmp_path_factory.mktemp("compare"), architectures=60))


@pytest.fixture
def store(pristine: Store, tmp_path: Path) -> Store:
    subprocess.run(["cp", "-r", pristine.root, str(tmp_path / "store")], check=True)
    return Store(str(tmp_path / "store"))


def comparison_of(
    store: Store, methods: str = METHODS, *, seeds: int = 4, queries: int = 8, **options: object
) -> Comparison:
    options = {"space": "nasbench201", **options}
    return new_comparison(connect(store), parse_specs(methods), seeds=seeds, queries=queries, **options)


def results_of(store: Store, comparison: Comparison, **options: object) -> Results:
    connection = connect(store)
    work = compare(store, connection, comparison, **{"workers": 1, **options})
    trained = None if work.first.trainer is None else work.first.trainer.signal
    return Results(store, connection, comparison, work.pool, trained)


def rows(store: Store) -> list[tuple[object, ...]]:
    return connect(store).execute(PLAIN).fetchall()


# --- the searches


def test_each_search_equals_that_of_hnas_search(store):
    comparison = comparison_of(store, seeds=2)
    results = results_of(store, comparison)
    connection = connect(store)
    for k, settings in enumerate(comparison.methods):
        for seed in range(2):
            alone = run_search(
                store,
                connection,
                new_search(
                    connection, space="nasbench201", method=settings.method, metric=settings.metric,
                    queries=settings.queries, budget=settings.budget, seed=seed,
                ),
            )  # fmt: skip
            plain = (
                "SELECT query, arch, performance, cost, mu, nu, objective FROM queries WHERE search = ? ORDER BY query"
            )
            stored = connect(store).execute(plain, [f"{comparison.name}-{k}-{seed}"]).fetchall()
            assert stored == [(q.query, q.arch, q.performance, q.cost, q.mu, q.nu, q.objective) for q in alone.queries]
            found = results.searches[k][seed]
            assert results.archs[found.incumbents[-1]] == alone.best.arch
            assert found.cost[-1] == pytest.approx(alone.cost)


def test_parallel_evaluations_are_another_comparison(store):
    alone, together = (comparison_of(store, "random,top:params", seeds=2, parallel=parallel) for parallel in (1, 4))
    assert alone.name != together.name
    notes = results_of(store, together).table().notes
    (parallel_note,) = [note for note in notes if note.startswith("With 4 evaluations at a time")]
    seconds = dict(re.findall(r"(\S+) ([\d,]+) s[,.]", parallel_note.partition("costs: ")[2]))
    assert list(seconds) == list(together.labels)
    assert all(0 < float(time.replace(",", "")) < 0.4 * 8 * 160 for time in seconds.values())
    assert not any("at a time" in note for note in results_of(store, alone).table().notes)


def test_the_table_shows_the_winners_test_accuracies(store):
    comparison = comparison_of(store, "random", seeds=5)
    results = results_of(store, comparison)
    winners = (
        connect(store).execute("SELECT search, arg_max(arch, performance) FROM queries GROUP BY search").fetchall()
    )
    reported = "SELECT avg(test_accuracy) FROM accuracies WHERE dataset = ? AND list_contains(?, arch)"
    table = results.table()
    assert table.datasets == ("cifar10", "digits")
    for dataset, cell in zip(table.datasets, table.rows[0].cells, strict=True):
        values = [connect(store).execute(reported, [dataset, [arch]]).fetchone()[0] for _, arch in winners]
        assert cell.mean == pytest.approx(np.mean(values))
        assert cell.deviation == pytest.approx(np.std(values))
    best_of_all = (
        connect(store).execute("SELECT max(test_accuracy) FROM accuracies WHERE dataset = 'digits'").fetchone()
    )
    assert table.rows[-1].cells[1].mean == pytest.approx(best_of_all[0])
    assert [row.method for row in table.rows] == ["random", "optimum"], "ResNet's cell is not in this table"


def test_manual_architectures_come_first_if_the_table_has_them(store):
    from hnas.spaces import search_spaces

    (resnet,) = search_spaces["nasbench201"].named().values()
    row = {"space": "nasbench201", "arch": resnet, "dataset": "digits", "epochs": 10, "seed": 0, "test_accuracy": 77.0}
    table = store.read_table(None, "accuracies", "csv", "made-up.parquet")
    table = pa.concat_tables([table, pa.Table.from_pylist([row], schema=SCHEMAS["accuracies"])])
    store.write_table(table, "accuracies", "csv", "made-up.parquet")
    first = results_of(store, comparison_of(store, "random", seeds=1)).table().rows[0]
    assert (first.method, first.kind, first.cells[1].mean) == ("ResNet", "manual", 77.0)
    assert first.cells[0] is None


def test_budgets_in_seconds_end_with_the_query_that_exceeds_them(store):
    comparison = comparison_of(store, "random@900s,random@5", seeds=3)
    results_of(store, comparison)
    for spent, before in (
        connect(store)
        .execute(
            "SELECT sum(cost), sum(cost) - arg_max(cost, query) FROM queries WHERE search LIKE '%-0-%' GROUP BY search"
        )
        .fetchall()
    ):
        assert before <= 900 < spent


def test_the_incumbent_prefers_long_trainings_then_early_ones():
    epochs = np.array([4.0, 4.0, 12.0, 4.0, 12.0, 12.0])
    performance = np.array([80.0, 85.0, 70.0, 99.0, 75.0, 75.0])
    assert incumbents(epochs, performance).tolist() == [0, 1, 2, 2, 4, 4]
    performance[[0, 2]] = np.nan
    assert incumbents(epochs, performance).tolist() == [-1, 1, 1, 3, 4, 4], "a failed query is no incumbent"


def test_the_winner_matches_hnas_search_if_epochs_differ(store):
    from hnas.optim.evaluations import Query

    queries = [Query(k + 1, f"a{k}", 80.0 + k % 3, 1.0, 0.0, 0.0, epochs=(4, 12, 12, 4)[k]) for k in range(4)]
    place = incumbents(np.array([float(q.epochs) for q in queries]), np.array([q.performance for q in queries]))[-1]
    assert queries[place] == best(queries)


# --- views and other commands


def test_views_include_the_searches_of_comparisons(store):
    connection = connect(store)
    alone = run_search(store, connection, new_search(connection, space="nasbench201", queries=3)).search
    comparison = comparison_of(store, seeds=3)
    results_of(store, comparison)
    connection = connect(store)
    name = comparison.name
    found = connection.execute(
        "SELECT search, method, metric, queries, budget, seed, epochs, source FROM searches WHERE comparison = ? "
        "ORDER BY split_part(search, '-', 2), seed",
        [name],
    ).fetchall()
    assert found == [
        (f"{name}-{k}-{seed}", method, metric, queries, budget, seed, 10, "csv")
        for k, (method, metric, queries, budget) in enumerate(
            [
                ("hnas", "trace", 8, None),
                ("random", None, 8, None),
                ("hnas", "snip", 6, None),
                ("random", None, None, 3e3),
            ]
        )
        for seed in range(3)
    ]
    assert connection.execute("SELECT search FROM searches WHERE comparison IS NULL").fetchall() == [(alone,)]
    assert connection.execute("SELECT comparison, methods, seeds, searches FROM comparisons").fetchall() == [
        (name, ["hnas:trace@8", "random@8", "hnas:snip@6", "random@3000.0s"], 3, 12)
    ]
    last = "SELECT arch, spent FROM incumbents WHERE search = ? ORDER BY query DESC LIMIT 1"
    ours = Results(store, connection, comparison, compare(store, connection, comparison).pool).searches[1][2]
    archs = results_of(store, comparison).archs
    assert connection.execute(last, [f"{name}-1-2"]).fetchall() == [
        (archs[ours.incumbents[-1]], pytest.approx(ours.cost[-1]))
    ]


def test_info_lists_a_comparison_in_one_line_and_rm_removes_it(store):
    comparison = comparison_of(store, seeds=2)
    results_of(store, comparison)
    listed = json.loads(hnas("info", "--json", "--store", store.root).out)
    assert listed["searches"] == []
    assert [(row["comparison"], row["searches"]) for row in listed["comparisons"]] == [(comparison.name, 8)]
    run = comparison.methods[0].run
    done = hnas("rm", run, "--store", store.root)
    assert f"it was searched by {comparison.name}, which cannot be resumed without it" in done.err
    done = hnas("rm", comparison.name, "--yes", "--store", store.root)
    assert done.out == f"removed: comparison {comparison.name}, nasbench201 on digits\n"
    assert store.names("comparisons") == []
    assert rows(store) == []


def test_check_finds_a_damaged_part_and_the_command_remakes_it(store):
    comparison = comparison_of(store, seeds=2)
    results_of(store, comparison)
    before = rows(store)
    part = Path(store.path("comparisons", comparison.name, "1-0-1.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    done = hnas("check", "--store", store.root)
    assert done.status == 1
    assert f"{part}: " in done.out
    assert "delete it, and the same `hnas compare` makes its searches again" in done.out
    part.unlink()
    results_of(store, comparison)
    assert rows(store) == before
    assert "comparisons/" not in hnas("check", "--store", store.root).out


def test_a_missing_part_is_detected_and_remade(store):
    comparison = comparison_of(store, seeds=2)
    results_of(store, comparison)
    before = rows(store)
    Path(store.path("comparisons", comparison.name, "1-0-1.parquet")).unlink()
    done = hnas("sql", "FROM queries", "--store", store.root)
    assert done.status == 1
    assert "1-0-1.parquet cannot be read: No such file" in done.err
    assert "1-0-1.parquet: it is missing; delete it" in hnas("check", "--store", store.root).out
    assert hnas("sql", "FROM accuracies LIMIT 1", "--store", store.root).status == 0
    results_of(store, comparison)
    assert rows(store) == before


def test_check_finds_searches_in_two_parts(store):
    comparison = comparison_of(store, "random", seeds=3)
    results_of(store, comparison)
    folder = Path(store.path("comparisons", comparison.name))
    store.write_table(
        store.read_table(None, "comparisons", folder.name, "0-0-2.parquet"),
        *("comparisons", folder.name, "0-1-2.parquet"),
    )
    done = hnas("check", "--store", store.root)
    assert done.status == 1
    assert f"3 searches are in more than one part, {comparison.name}-0-0 among them" in done.out


def test_a_damaged_record_is_reported_by_statements_that_read_it(store):
    comparison = comparison_of(store, "random", seeds=1)
    results_of(store, comparison)
    record = Path(store.path("comparisons", comparison.name, "comparison.json"))
    record.write_text(record.read_text().replace('"seeds": 1', '"seeds": 2'))
    done = hnas("sql", "FROM comparisons", "--store", store.root)
    assert done.status == 1
    assert "comparison.json was damaged" in done.err
    record.unlink()
    assert "comparison.json is missing" in hnas("sql", "FROM searches", "--store", store.root).err


# --- resuming


def test_parts_cover_missing_adjacent_seeds_within_blocks():
    stored = [Part(0, 0, 3), Part(0, 7, 7), Part(1, 0, 19)]
    assert list(missing_parts(stored, 0, 14, 5)) == [Part(0, 4, 4), Part(0, 5, 6), Part(0, 8, 9), Part(0, 10, 13)]
    assert list(missing_parts(stored, 1, 20, 5)) == []


def test_only_missing_seeds_are_searched(store):
    first = comparison_of(store, seeds=3)
    results_of(store, first)
    before = snapshot(store.root)
    results_of(store, first)
    assert snapshot(store.root) == before
    more = comparison_of(store, seeds=7)
    assert more.name == first.name
    results_of(store, more)
    after = snapshot(store.root)
    record = f"comparisons/{first.name}/comparison.json"
    assert {path: after[path] for path in before if path != record} == {k: v for k, v in before.items() if k != record}
    assert store.read_json("comparisons", first.name, "comparison.json")["seeds"] == 7
    fewer = results_of(store, first)
    assert [len(searches) for searches in fewer.searches] == [3] * 4


def test_a_deterministic_method_is_searched_once(store, monkeypatch):
    from hnas.optim.methods.random import Random

    monkeypatch.setattr(Random, "varies", False)
    results = results_of(store, comparison_of(store, "random,hnas:trace", seeds=3))
    assert [len(searches) for searches in results.searches] == [1, 3]
    assert connect(store).execute("SELECT count(*) FROM searches").fetchone() == (4,)
    assert results.table().rows[0].cells[0].deviation is None


def test_searches_in_this_process_and_in_workers_are_the_same(store, tmp_path, monkeypatch):
    comparison = comparison_of(store, seeds=6)
    there = Store(str(tmp_path / "there"))
    subprocess.run(["cp", "-r", store.root, there.root], check=True)
    results_of(store, comparison)
    monkeypatch.setattr(driver, "_ALONE", 0.0)
    reports: list[driver.Progress] = []
    results_of(there, comparison, workers=2, progress=reports.append)
    assert rows(there) == rows(store)
    assert (reports[0].done, reports[-1].done, reports[-1].total) == (0, 24, 24)


def _dies_once(job: Job, part: Part) -> int:
    mark = Path(job.store) / f".died-{part.name}"
    if part.k == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run_part(job, part)


def test_a_lost_worker_loses_only_its_part(store, tmp_path, monkeypatch):
    comparison = comparison_of(store, seeds=2)
    there = Store(str(tmp_path / "there"))
    subprocess.run(["cp", "-r", store.root, there.root], check=True)
    results_of(store, comparison)
    monkeypatch.setattr(driver, "_ALONE", 0.0)
    reports: list[driver.Progress] = []
    results_of(there, comparison, workers=2, task=_dies_once, progress=reports.append)
    assert rows(there) == rows(store)
    assert len(reports[-1].lost) == 1


def _fails(job: Job, part: Part) -> int:
    raise HnasError(f"part {part.name} fails")


def test_a_search_failing_on_a_worker_gives_its_sentence(store, monkeypatch):
    monkeypatch.setattr(driver, "_ALONE", 0.0)
    with pytest.raises(HnasError, match=r"part \d-0-1.parquet fails"):
        results_of(store, comparison_of(store, seeds=2), workers=2, task=_fails)


@pytest.mark.timeout(1200)
def test_a_killed_and_resumed_comparison_equals_an_undisturbed_one(store, tmp_path):
    there = Store(str(tmp_path / "there"))
    subprocess.run(["cp", "-r", store.root, there.root], check=True)
    methods = "hnas:trace,hnas:snip,random,random@3000s"
    options = [f"--methods={methods}", "--seeds=15", "--queries=10", "--workers=1", "-q"]
    command = [str(HNAS), "compare", "nasbench201", *options]
    begun = time.monotonic()
    subprocess.run([*command, f"--store={store.root}"], check=True, timeout=WAIT, capture_output=True)
    whole = time.monotonic() - begun
    moments = random.Random(0)
    for _ in range(4):
        with running(*command, f"--store={there.root}") as process:
            # Most of the time is spent on imports, before anything is written.
            time.sleep(whole * moments.uniform(0.3, 0.9))
            process.kill()
    subprocess.run([*command, f"--store={there.root}"], check=True, timeout=WAIT, capture_output=True)
    assert rows(there) == rows(store)
    assert "comparisons/" not in hnas("check", "--store", there.root).out


# --- trainings


TRAIN = ("compare", "nasbench201", "--dataset=digits", "--methods=random,hnas:trace", "--oracle=train", "--queries=3")
TRAIN += ("--epochs=1", "--batch-size=256", "--seeds=2", "--workers=1")


def test_trainings_are_saved_query_by_query_and_resumed(store, tmp_path, monkeypatch):
    there = Store(str(tmp_path / "there"))
    subprocess.run(["cp", "-r", store.root, there.root], check=True)
    done = hnas(*TRAIN, "--store", store.root)
    assert done.status == 0, done.err
    writes = Store.write_table

    def interrupted(self: Store, table: pa.Table, *parts: str, **notes: object) -> None:
        writes(self, table, *parts, **notes)
        if parts[-1].endswith(".partial") and table.num_rows == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_table", interrupted)
        stopped = hnas(*TRAIN, "--store", there.root)
    assert "0 of 4 searches are stored in comparison" in stopped.last
    assert "run the same command again to resume" in stopped.last
    assert [Path(path).name for path in matching(there, "comparisons", "*", "*.partial")] == ["0-0-0.partial"]
    assert "is an unfinished search; the same `hnas compare` resumes it" in hnas("check", "--store", there.root).out
    assert hnas(*TRAIN, "--store", there.root).status == 0
    assert matching(there, "comparisons", "*", "*.partial") == []
    # The cost of a training is its wall time.
    plain = "SELECT search, query, arch, performance, mu, nu, objective FROM queries ORDER BY search, query"
    assert connect(there).execute(plain).fetchall() == connect(store).execute(plain).fetchall()


def test_a_dry_run_of_trainings_reports_time_memory_and_cost(store):
    before = snapshot(store.root)
    done = hnas(*TRAIN, "--dry-run", "--store", store.root)
    assert done.status == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()] == [
        "comparison",
        "searches",
        "time",
        "memory",
        "cost",
        "nothing",
    ]
    assert "4 to make, 0 are stored" in done.out
    assert snapshot(store.root) == before


# --- the command


def test_a_dry_run_with_a_table_counts_what_is_left(store):
    options = ("compare", "nasbench201", "--methods=random,hnas", "--seeds=4", "--queries=5", "--workers=1")
    hnas(*options[:3], "--seeds=1", *options[4:], "--store", store.root)
    done = hnas(*options, "--dry-run", "--store", store.root)
    assert "6 to make, 2 are stored" in done.out
    assert "looked up" in done.out
    assert "validation accuracy after 10 epochs on digits (csv)" in done.out


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv", "json"])
def test_every_format_has_every_method(store, form):
    done = hnas(
        "compare", "nasbench201", "--methods=random@3,hnas:trace", "--seeds=3", "--queries=4", "--workers=1", "-q",
        f"--format={form}", "--reference=random", "--store", store.root,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.err == ""
    assert all(word in done.out for word in ("random@3", "hnas:trace", "optimum"))
    if form == "csv":
        records = list(csv.DictReader(io.StringIO(done.out)))
        tested = {record["method"] for record in records if record["p"]}
        assert tested == {"hnas:trace"}


def test_conditions_averages_and_signals_match_hnas_search(store):
    done = hnas(
        "compare", "nasbench201", "--methods=random", "--seeds=2", "--queries=4", "--workers=1", "--dataset=digits",
        "--accuracy=test_accuracy", "--epochs=10", "--source=csv", "--max-params=1e6", "--where=kappa < 1e6",
        "--max-flops=1e12", "--partial", "--store", store.root,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "under (kappa < 1e6" in done.out.replace("\n", " ")
    assert "guided by test accuracy after 10 epochs on digits (csv)" in done.out
    assert "No validation accuracy guides the searches" in done.out
    (settings,) = connect(store).execute("SELECT condition FROM comparisons").fetchone()
    assert "params <= 1000000" in settings


def test_figure_2_is_drawn(store, tmp_path):
    path = tmp_path / "figure.svg"
    done = hnas(
        "compare", "nasbench201", "--methods=random@2000s,hnas:trace", "--seeds=3", "--queries=4", "--workers=1",
        "--plot", path, "--store", store.root,
    )  # fmt: skip
    assert done.status == 0, done.err
    text = path.read_text()
    assert all(word in text for word in ("budget (s)", "random@2000s", "hnas:trace", "optimum", "digits"))


def test_guiding_accuracies_are_shown_without_test_accuracies(tmp_path):
    store = make_store(tmp_path, architectures=20)
    table = store.read_table(None, "accuracies", "csv", "made-up.parquet")
    bare = [{**row, "test_accuracy": None, "seconds": None} for row in table.to_pylist()]
    store.write_table(pa.Table.from_pylist(bare, schema=SCHEMAS["accuracies"]), "accuracies", "csv", "made-up.parquet")
    results = results_of(store, comparison_of(store, "random", seeds=2, queries=3))
    table = results.table()
    assert table.datasets == ("digits valid",)
    assert "The store has no test accuracies" in table.notes[0]
    expected = (
        connect(store).execute("SELECT avg(m) FROM (SELECT max(performance) m FROM queries GROUP BY search)").fetchone()
    )
    assert table.rows[0].cells[0].mean == pytest.approx(expected[0])
    assert table.rows[0].cost is None
    curves, by_queries = results.curves()
    assert by_queries
    assert curves[0].budget.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "compare needs --methods"),
        (("--methods=nope",), "the search method 'nope' is unknown"),
        (("--methods=random,hnas:nope",), "nope"),
        (("--methods=random@0",), "a budget of 0 in 'random@0' evaluates nothing"),
        (("--methods=random", "--budget=0"), "budget must be a positive number of seconds, got 0"),
        (("--methods=random", "--queries=0"), "queries must be between 1 and 10000, got 0"),
        (("--methods=hnas,hnas:trace",), "--methods has hnas:trace twice"),
        (("--methods=random", "--seeds=0"), "--seeds must be between 1 and 10,000, got 0"),
        (("--methods=random", "--reference=rea"), "--reference 'rea' is not one of the compared methods"),
        (("--methods=random", "--plot=figure.doc"), "must end in .png"),
        (("--methods=random", "--workers=0"), "--workers must be between 1 and 1024"),
        (("--methods=random", "--workers=1", "--scheduler=tcp://127.0.0.1:1"), "exclude each other"),
        (("--methods=random", "--tls-ca=nowhere.pem"), "--tls-ca requires --scheduler"),
        (("--methods=random", "--where=nope < 3"), "nope"),
        (("--methods=random", "--where=params < 0"), "a search needs at least 2"),
        (("--methods=random", "--epochs=99"), "after 99 epochs"),
        (("--methods=random", "--run=ffff"), "the store has no run"),
    ],
)
def test_bad_input_gives_one_sentence_and_writes_nothing(store, options, words):
    before = snapshot(store.root)
    done = hnas("compare", "nasbench201", *options, "--store", store.root)
    assert done.status == 2
    assert words in done.last
    assert len(done.err.strip().splitlines()) == 1
    assert done.out == ""
    assert snapshot(store.root) == before


def test_a_method_that_does_not_fit_the_pool_writes_nothing(store, monkeypatch):
    from hnas.optim.methods.random import Random

    def refuse(self: Random, *_: object, **__: object) -> None:
        raise UsageError("the space cannot serve random")

    before = snapshot(store.root)
    monkeypatch.setattr(Random, "__init__", refuse)
    with pytest.raises(UsageError, match="the space cannot serve random"):
        results_of(store, comparison_of(store, "hnas:trace,random"))
    assert snapshot(store.root) == before
    assert missing(store, comparison_of(store, "hnas:trace"))


def test_a_comparison_whose_first_search_fails_leaves_nothing(store, monkeypatch):
    def refuse(self: RunPool, *_: object) -> None:
        raise HnasError("the table has no accuracy of it")

    before = snapshot(store.root)
    monkeypatch.setattr(RunPool, "__call__", refuse)
    with pytest.raises(HnasError, match="the table has no accuracy of it"):
        results_of(store, comparison_of(store, "hnas:trace,random"))
    assert snapshot(store.root) == before
    assert store.names("comparisons") == []


def test_searches_without_a_successful_evaluation_have_no_winner(store, monkeypatch, tmp_path):
    def fail(self: RunPool, arch: str, epochs: int | None = None) -> Evaluation:
        raise EvaluationError("the training diverged")

    monkeypatch.setattr(RunPool, "__call__", fail)
    comparison = comparison_of(store, "random,hnas:trace", seeds=2, queries=2)
    results = results_of(store, comparison)
    table = results.table()
    assert table.datasets == ("cifar10", "digits")
    assert [[cell and cell.mean for cell in row.cells] for row in table.rows[:2]] == [[None, None]] * 2
    assert all(cell is not None for cell in table.rows[-1].cells), "the optimum is known"
    assert any(note.startswith("4 of 4 searches have no winner") for note in table.notes)
    curves, by_queries = results.curves()
    assert all(np.isnan(curve.mean).all() for curve in curves)
    plot_curves(curves, results.datasets, 100 - results.optimum, tmp_path / "f.svg", by_queries=by_queries)
    assert comparison_sections(store, connect(store), comparison)


def test_a_running_comparison_is_not_removed(store):
    comparison = comparison_of(store, "random", seeds=1)
    results_of(store, comparison)
    with locked(store, "comparisons", comparison.name):
        done = hnas("rm", comparison.name, "--yes", "--store", store.root)
    assert done.status == 1
    assert f"a compare is using the comparison {comparison.name}; stop it" in done.err
    assert rows(store)
