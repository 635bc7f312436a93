"""`--parallel`: concurrent trainings in worker processes, and simulated concurrency for tables."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client

from hnas.errors import HnasError, UsageError
from hnas.optim.evaluations import Query
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.cluster.connection import connected
from hnas.pipeline.search.progress import TrainingBar
from hnas.pipeline.search.request import StartedSearch, new_search
from hnas.pipeline.search.saved import open_search, queries_table
from hnas.pipeline.search.session import run_search
from hnas.pipeline.search.settings import TrainingSettings
from hnas.pipeline.search.training import Trainer
from hnas.pipeline.search.workers import Cluster
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from hnas.threads import physical_cores, training_threads
from tests.support.command_line import hnas
from tests.support.stores import make_store

SPACE = search_spaces["nasbench201"]
TRAINING = TrainingSettings(epochs=1, batch_size=256, lr=0.1, threads=1, images="digits", channels=2, cells=1)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connected(2, None, "cpu") as client:
        yield client


@pytest.fixture
def cluster(client: Client, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    @contextmanager
    def shared(*_: object) -> Iterator[Client]:
        yield client

    monkeypatch.setattr("hnas.pipeline.cluster.executor.connected", shared)
    return Cluster(device="cpu")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("table"), architectures=40)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, architectures=12, accuracies=False)


def request(store: Store, **options: object) -> StartedSearch:
    options = {"training": TRAINING, "parallel": 2, **options}
    return new_search(connect(store), space="nasbench201", dataset="digits", **options)


def test_trainings_in_workers_equal_local_ones_and_none_is_lost(store: Store, cluster: Cluster, tmp_path: Path) -> None:
    seen: list[Query] = []

    def stop(query: Query) -> None:
        seen.append(query)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(
        HnasError, match=r"interrupted: 2 of 4 queries are saved; `hnas search --resume (\w+)`"
    ) as error:
        run_search(store, connect(store), request(store, queries=4), cluster=cluster, on_query=stop)
    name = re.findall(r"--resume (\w+)", str(error.value))[0]
    resumed = run_search(store, connect(store), open_search(connect(store), store, name), cluster=cluster)
    assert resumed.queries[:2] == seen
    assert len({query.arch for query in resumed.queries}) == 4
    here = Trainer(SPACE, TRAINING, channels=2, cells=1, store=Store(str(tmp_path / "other")))
    for query in resumed.queries:
        assert query.performance == here.train(query.arch).valid_accuracy
    assert connect(store).sql("SELECT count(*), count(DISTINCT arch) FROM accuracies").fetchall() == [(4, 4)]


class Vanishing:
    """A user-defined oracle whose first call kills its process."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __call__(self, arch: str, epochs: int | None = None) -> float:
        if not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 50.0 + len(arch) % 7


def test_a_lost_worker_loses_only_its_evaluation(store: Store, cluster: Cluster, tmp_path: Path) -> None:
    oracle = Vanishing(tmp_path / "mark")
    result = run_search(store, connect(store), request(store, queries=4), cluster=cluster, oracle=oracle)
    assert [query.performance for query in result.queries] == [50.0 + len(query.arch) % 7 for query in result.queries]
    assert len(result.queries) == 4


def test_a_table_simulates_parallel_time_and_parallel_can_change(
    table: Store,
) -> None:
    connection = connect(table)
    whole = run_search(table, connection, request(table, training=None, queries=12, parallel=4))
    assert whole.elapsed is not None
    assert whole.elapsed < 0.45 * whole.cost
    connection = connect(table)
    shown = connection.sql(f"SELECT parallel FROM searches WHERE search = '{whole.search}'").fetchall()
    assert shown == [(4,)]
    columns = connection.sql(f"SELECT asked, asks, elapsed FROM queries WHERE search = '{whole.search}'").fetchall()
    assert columns == [(query.asked, query.asks, query.elapsed) for query in whole.queries]
    assert sorted(asked for asked, *_ in columns) == list(range(1, 13))
    steps = [replace(query, seconds=0, own_seconds=0) for query in whole.queries]
    for parallel in (None, 6):
        saved = open_search(connection, table, whole.search, parallel=parallel)
        assert saved.settings.parallel == (parallel or 4)
        early = saved.history[:5]
        table.write_table(queries_table(early), "searches", whole.search, "queries.parquet")
        again = run_search(table, connection, replace(saved, history=early))
        assert [replace(query, seconds=0, own_seconds=0) for query in again.queries[:5]] == steps[:5]
        assert len(again.queries) == 12
        assert ([query.arch for query in again.queries] == [query.arch for query in whole.queries]) or parallel


def test_sequential_searches_are_saved_in_the_old_format(table: Store) -> None:
    assert "parallel" not in request(table, training=None, parallel=1).settings.as_dict()
    assert request(table, training=None, parallel=3).settings.as_dict()["parallel"] == 3


def test_a_saved_search_with_too_large_parallel_starts_no_workers(table: Store) -> None:
    content = {"id": "many", "created": "2026-01-01T00:00:00+00:00"}
    settings = request(table, training=None, parallel=3).settings.as_dict() | {"parallel": 10**6}
    table.write_json({**content, "settings": settings}, "searches", "many", "search.json")
    table.write_table(queries_table([]), "searches", "many", "queries.parquet")
    with pytest.raises(UsageError, match="parallel evaluations must be between 1 and 1024, got 1000000"):
        open_search(connect(table), table, "many")


def test_concurrent_trainings_share_the_cores() -> None:
    assert training_threads(None, 2) == max(1, min(8, physical_cores() // 2))
    assert training_threads(None, 1000) == 1
    assert training_threads(3, 1000) == 3


def test_the_command_reports_its_parallelism(table: Store) -> None:
    place = ("--store", table.root)
    searched = hnas("search", "nasbench201", "--dataset", "digits", "--queries", "8", "--parallel", "4", *place)
    assert searched.status == 0, searched
    assert re.search(r"charged, \d+ (s|min \d+ s|h \d+ min) with 4 at a time", searched.out)
    assert "oracle table, 4 at a time" in searched.err
    waits = hnas("search", "nasbench201", "--dataset", "digits", "--parallel", "4", "--method", "local-search", *place)
    assert "4 at a time (this method waits for the end of each generation)" in waits.err
    dry = hnas("search", "nasbench201", "--dataset", "digits", "--parallel", "4", "--dry-run", *place)
    assert "4 at a time" in dry.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parallel", "0"], "parallel evaluations must be between 1 and 1024, got 0"),
        (["--parallel", "2000"], "parallel evaluations must be between 1 and 1024, got 2000"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--scheduler requires --oracle train"),
        (["--oracle", "train", "--tls-ca", "nowhere.pem", "--parallel", "2"], "--tls-ca requires --scheduler"),
    ],
)
def test_invalid_parallelism_is_rejected_before_anything_starts(table: Store, options: list[str], message: str) -> None:
    outcome = hnas("search", "nasbench201", "--dataset", "digits", *options, "--store", table.root)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err


def test_a_log_has_one_line_for_all_running_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("hnas.pipeline.search.progress.time.monotonic", lambda: now[0])
    log = io.StringIO()
    bar = TrainingBar(log, quiet=False)
    for second in range(0, 24, 2):
        now[0] = float(second)
        if second <= 14:
            bar.show({"arch": "other", "epochs": 4, "done": 2 * second + 1, "total": 80, "loss": 1.5})
        if second == 14:
            bar.evaluated("other")
        bar.show({"arch": "one", "epochs": 4, "done": second + 1, "total": 80, "loss": 1.5})
    lines = [line.partition(" ")[2] for line in log.getvalue().splitlines()]
    assert lines == [
        "other epoch 2 of 4, loss 1.500, 30 s left; one epoch 1 of 4, loss 1.500, 1 min 29 s left",
        "one epoch 2 of 4, loss 1.500, 59 s left",
    ]


def test_a_search_with_a_table_rejects_a_cluster(table: Store) -> None:
    with pytest.raises(UsageError, match="between 1 and 1024, got -2"):
        request(table, training=None, parallel=-2)
