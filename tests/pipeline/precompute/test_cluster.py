"""A Dask cluster started by hand: `dask scheduler` and `dask worker` in separate processes, on loopback.

The tests at the end check the housekeeping that the local cluster turns off.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path

import dask
import pytest
from distributed import Client, Worker
from distributed.comm.core import CommClosedError

from hnas.errors import HnasError, UsageError
from hnas.metrics import COLUMNS
from hnas.pipeline.catalog import views as catalog
from hnas.pipeline.cluster.connection import connected
from hnas.pipeline.cluster.tasks import count_workers
from hnas.pipeline.cluster.worker_plugin import prepared
from hnas.pipeline.precompute.driver import Outcome, Progress, precompute
from hnas.pipeline.precompute.worker import prepare_process
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.store import Store
from tests.support.contents import matching, snapshot
from tests.support.runs import SPACE, Row, exact_table, fill

pytestmark = pytest.mark.slow

DASK = Path(sys.executable).with_name("dask")
WAIT = 240


class Cluster:
    """A scheduler and its workers, each a process; `stop` ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.address = ""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        options = ["--host=127.0.0.1", f"--port={port}", "--no-dashboard", "--dashboard-address=127.0.0.1:0"]
        self.scheduler = self._start("scheduler", *options)
        self.address = f"tcp://127.0.0.1:{port}"
        self.client = Client(self.address, timeout=WAIT)

    def _start(self, role: str, *options: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{role} {len(self.processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [str(DASK), role, *options], cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        return process

    def start_worker(self) -> subprocess.Popen[bytes]:
        known = len(self.client.scheduler_info(n_workers=-1)["workers"])
        options = ["--host=127.0.0.1", "--nthreads=1", "--no-nanny", "--no-dashboard", "--memory-limit=0"]
        process = self._start("worker", self.address, *options, f"--local-directory={self.folder}")
        self.client.wait_for_workers(known + 1, timeout=WAIT)
        return process

    def stop(self) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            self.client.close(timeout=5)
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start_worker()
        yield made
    finally:
        made.stop()


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler without workers, for a test that ends it."""
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, small_plan) -> dict[str, Row]:
    """The table of 60 architectures, computed here without Dask."""
    store = Store(str(tmp_path_factory.mktemp("expected") / "store"))
    return exact_table(store, fill(store, small_plan(store, sample=60)))


def wait_until(condition: Callable[[], bool], work: Future[Outcome]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert not work.done(), work.result()
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def test_a_killed_worker_loses_no_finished_chunk(cluster, tmp_path, monkeypatch, small_plan, expected):
    # A relative path is relative to the driver's folder, not the workers'.
    monkeypatch.chdir(tmp_path)
    store = Store("a store")
    victim = cluster.start_worker()
    plan = small_plan(store, sample=60, chunk_size=2)
    parts = ("runs", plan.settings.id, "metrics", "*.parquet")
    seen: list[Progress] = []
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(precompute, store, SPACE, plan, scheduler=cluster.address, progress=seen.append)
        wait_until(lambda: len(matching(store, *parts)) >= plan.most_chunks // 3, work)
        victim.kill()
        before = snapshot(tmp_path, "a store/runs/*/metrics/*.parquet")
        run = work.result(timeout=WAIT).run
    assert victim.wait(timeout=WAIT) == -signal.SIGKILL
    assert len(before) < plan.most_chunks, "the work ended before the worker was killed"
    assert before.items() <= snapshot(tmp_path, "a store/runs/*/metrics/*.parquet").items()
    assert exact_table(store, run) == expected
    assert len(matching(store, *parts)) == plan.most_chunks
    assert seen[-1].done == len(expected)
    (session,) = store.read_json("runs", run, "run.json")["sessions"]
    assert (session["workers"], session["rows"]) == (cluster.address, len(expected))


def test_cluster_workers_keep_gram_matrices_and_add_what_is_missing(cluster, tmp_path, small_plan, expected):
    store = Store(str(tmp_path / "store"))
    first = small_plan(store, sample=20)
    run = precompute(store, SPACE, first, scheduler=cluster.address, keep_gram=True).run
    before = snapshot(store.root, "runs/*/metrics/*")
    rest = small_plan(store, sample=60, chunk_size=16)
    assert rest.done > 0
    precompute(store, SPACE, rest, scheduler=cluster.address)
    assert before.items() <= snapshot(store.root, "runs/*/metrics/*").items()
    table = exact_table(store, run)
    assert {key: table[key] for key in expected} == expected
    assert store.exists("runs", run, "ntk.zarr", "gram")


def test_one_cluster_fills_two_stores_at_once(cluster, tmp_path, small_plan, expected):
    stores = [Store(str(tmp_path / name)) for name in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        plans = [small_plan(store, sample=60, chunk_size=8) for store in stores]
        works = [
            pool.submit(precompute, store, SPACE, plan, scheduler=cluster.address)
            for store, plan in zip(stores, plans, strict=True)
        ]
        runs = [work.result(timeout=WAIT).run for work in works]
    for store, run in zip(stores, runs, strict=True):
        assert exact_table(store, run) == expected


def test_work_resumes_at_once_while_interrupted_chunks_still_run(cluster, tmp_path, small_plan, expected):
    store = Store(str(tmp_path / "store"))
    second_worker = cluster.start_worker()

    def interrupt(progress: Progress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    try:
        with pytest.raises(HnasError, match="run the same command again to resume"):
            precompute(
                store, SPACE, small_plan(store, sample=60, chunk_size=16), scheduler=cluster.address, progress=interrupt
            )
        # The other worker is still computing its chunk of 16 and stores it at any time.
        run = precompute(store, SPACE, small_plan(store, sample=60, chunk_size=1), scheduler=cluster.address).run
        time.sleep(1)
    finally:
        second_worker.kill()
    rows = catalog.connect(store).execute(f"SELECT canonical, ntk_row, {', '.join(COLUMNS)} FROM metrics").fetchall()
    eigenvalues = NTKArrays(store, run).read()
    assert sorted(row[0] for row in rows) == sorted(expected)
    for canonical, ntk_row, *columns in rows:
        numbers = [value.hex() for value in (*columns, *eigenvalues[ntk_row].tolist())]
        assert numbers == [*expected[canonical][:8], *expected[canonical][9:]], canonical


def test_an_outdated_plan_computes_only_what_is_left(cluster, tmp_path, small_plan, expected):
    store = Store(str(tmp_path / "store"))
    overtaken = small_plan(store, sample=60, chunk_size=8)
    run = precompute(store, SPACE, small_plan(store, sample=20, chunk_size=3), scheduler=cluster.address).run
    before = snapshot(store.root, "runs/*/metrics/*")
    precompute(store, SPACE, overtaken, scheduler=cluster.address)
    assert before.items() <= snapshot(store.root, "runs/*/metrics/*").items()
    table = exact_table(store, run)
    assert {key: table[key] for key in expected} == expected


@pytest.mark.timeout(120)
@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_silent_scheduler_is_reported(tmp_path, small_plan, hangs_up, impatient):
    store = Store(str(tmp_path / "store"))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with ThreadPoolExecutor(1) as pool:
            if hangs_up:
                pool.submit(lambda: silent.accept()[0].close())
            with pytest.raises(HnasError, match=f"no Dask scheduler answers at {address} within 10 seconds"):
                precompute(store, SPACE, small_plan(store, sample=2), scheduler=address)
    assert not (tmp_path / "store").exists()


def test_an_unreachable_scheduler_is_reported(tmp_path, small_plan):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    store = Store(str(tmp_path / "store"))
    with pytest.raises(HnasError) as error:
        precompute(store, SPACE, small_plan(store, sample=2), scheduler=closed)
    assert str(error.value).startswith(f"no Dask scheduler answers at {closed} within 10 seconds; start one")
    assert error.value.exit_code == 1
    assert not store.exists("runs")


@pytest.mark.parametrize("address", ["nosuchprotocol://127.0.0.1:8786", "tcp://", "http://127.0.0.1:80", ""])
def test_an_invalid_scheduler_address_is_reported(tmp_path, small_plan, address):
    store = Store(str(tmp_path / "store"))
    with pytest.raises(HnasError) as error:
        precompute(store, SPACE, small_plan(store, sample=2), scheduler=address)
    assert isinstance(error.value, UsageError) or "no Dask scheduler answers" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_scheduler_without_workers_is_reported(short_lived, tmp_path, small_plan, monkeypatch):
    patient = Client.wait_for_workers
    monkeypatch.setattr(Client, "wait_for_workers", lambda self, n, timeout: patient(self, n, timeout=timeout / 60))
    store = Store(str(tmp_path / "store"))
    with pytest.raises(HnasError, match="the Dask scheduler has no worker, and none joined within 60 seconds; start"):
        precompute(store, SPACE, small_plan(store, sample=2), scheduler=short_lived.address)


def test_a_dying_scheduler_gives_one_sentence_and_loses_nothing(short_lived, tmp_path, small_plan, expected):
    store = Store(str(tmp_path / "store"))
    short_lived.start_worker()
    plan = small_plan(store, sample=60, chunk_size=2)
    parts = ("runs", plan.settings.id, "metrics", "*.parquet")
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(precompute, store, SPACE, plan, scheduler=short_lived.address)
        wait_until(lambda: len(matching(store, *parts)) >= 5, work)
        os.kill(short_lived.scheduler.pid, signal.SIGKILL)
        with pytest.raises(HnasError) as error:
            work.result(timeout=60)
    assert "\n" not in str(error.value)
    assert "finished work is stored" in str(error.value) or "finished rows are stored" in str(error.value)
    table = exact_table(store, plan.settings.id)
    assert 0 < len(table) < len(expected)
    assert table.items() <= expected.items()
    fill(store, small_plan(store, sample=60))
    assert exact_table(store, plan.settings.id) == expected


def test_a_scheduler_that_dies_while_counting_workers_is_reported(monkeypatch):
    def closed(*_: object, **__: object) -> None:
        raise CommClosedError("in <TCP>: Connection reset by peer")

    monkeypatch.setattr(Client, "wait_for_workers", closed)
    with pytest.raises(HnasError, match=r"scheduler is gone: .* reset by peer; finished work is stored"):
        count_workers(Client.__new__(Client))


def test_workers_that_join_during_a_command_are_prepared_too(cluster):
    def state(dask_worker: Worker) -> tuple[int, bool]:
        import torch

        return torch.get_num_threads(), "hnas-x" in dask_worker.plugins

    with prepared(cluster.client, partial(prepare_process, "cpu"), "hnas-x"):
        joined = cluster.start_worker()
        found = cluster.client.run(state)
    assert len(found) > 1
    assert set(found.values()) == {(1, True)}
    assert set(cluster.client.run(state).values()) == {(1, False)}
    joined.kill()


class _OfAnotherVersion:
    """Something that no worker can load, as with an older hnas on the worker."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return import_module, ("hnas.of_another_version",)


def test_a_failed_preparation_leaves_nothing_on_the_scheduler(cluster):
    with (
        pytest.raises(
            HnasError, match=r"a worker cannot compute: .*of_another_version.*; the workers need the same hnas"
        ),
        prepared(cluster.client, _OfAnotherVersion(), "hnas-x"),
    ):
        pytest.fail("the workers count as prepared")
    assert "hnas-x" not in cluster.client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.worker_plugins))


def settings_of(dask_worker: Worker) -> tuple[bool, bool, str | None]:
    """Whether a worker samples its stacks and its event loop's, and the number of heaps of its allocator."""
    sampled = "profile" in dask_worker.periodic_callbacks, len(dask_worker.io_loop.profile) > 0
    return *sampled, os.environ.get("MALLOC_ARENA_MAX")


def draws() -> bool:
    """Whether anything draws from Python's random generator within two heartbeats."""
    before = random.getstate()
    time.sleep(1.2)
    return random.getstate() != before


def test_nothing_draws_random_numbers_in_a_local_worker():
    with connected(1, None, "cpu") as client:
        assert client.submit(draws).result() is False


def test_local_workers_and_replacements_do_no_sampling_and_have_one_heap():
    with connected(1, None, "cpu") as client, prepared(client, partial(prepare_process, "cpu"), "hnas-x"):
        ((pid, before),) = client.run(lambda dask_worker: (os.getpid(), settings_of(dask_worker))).values()
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + WAIT
        # Until the scheduler drops the lost worker, it asks that one too, without an answer.
        while not (pids := client.run(os.getpid, on_error="ignore").values()) or pid in pids:
            assert time.monotonic() < deadline, "no worker replaced it"
            time.sleep(0.1)
        (after,) = client.run(settings_of).values()
        assert all(client.run(lambda dask_worker: "hnas-x" in dask_worker.plugins).values())
        scheduler = client.cluster.scheduler.io_loop.profile
    assert before == after == (False, False, "1")
    assert not scheduler
    assert dask.config.get("distributed.worker.profile.enabled"), "the user's settings are unchanged"
