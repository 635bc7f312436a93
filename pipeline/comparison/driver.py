"""Runs the missing searches of a comparison, part by part, in this process or on Dask.

A small comparison is finished before workers would have started, so this process begins and hands over the rest.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue

import duckdb

from hnas.errors import HnasError
from hnas.pipeline.cluster.connection import check_cluster, connected
from hnas.pipeline.cluster.dask_api import Client, Future, KilledWorker
from hnas.pipeline.cluster.local_cluster import default_workers
from hnas.pipeline.cluster.tasks import count_workers, lost_workers, next_finished
from hnas.pipeline.cluster.tls import Certificates
from hnas.pipeline.cluster.worker_plugin import prepared
from hnas.pipeline.comparison.request import Comparison
from hnas.pipeline.comparison.worker import Job, Opened, run_part
from hnas.pipeline.store.comparisons import FOLDER, RECORD, Part, missing_parts, stored_parts
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.manifests import remove_file
from hnas.pipeline.store.run import now
from hnas.pipeline.store.space_cache import StoreCache
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.warm_starts import FILE as WARM
from hnas.pipeline.store.warm_starts import write_known
from hnas.spaces import search_spaces
from hnas.threads import wait_without_spinning

# Searches per part, unless the seeds of a method would then need more than twenty parts.
_BLOCK, _MOST_PARTS = 5, 20
# Seconds of work in this process before workers are started for the rest, which takes about as long.
_ALONE = 3.0
# Seconds between two updates of the record of finished parts.
_RECORD_EVERY = 2.0
_NO_CERTIFICATES = Certificates()


@dataclass(frozen=True)
class Progress:
    """The progress of a comparison: searches `done` of `total`, of which `already` were stored before.

    `lost` are the addresses of workers that disappeared during searches.
    """

    done: int
    total: int
    already: int
    seconds: float
    lost: tuple[str, ...] = ()

    @property
    def left(self) -> float | None:
        """Seconds left at the current rate; None before the first part and after the last."""
        made = self.done - self.already
        return (self.total - self.done) * self.seconds / made if 0 < made < self.total - self.already else None


def open_comparison(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    comparison: Comparison,
    *,
    device: str = "auto",
    partial: bool = False,
    notice: Callable[[str], None] = lambda sentence: None,
) -> Opened:
    """Return the opened pool of a comparison after checking that it can serve each of the methods.

    `notice` receives a sentence for each score that a part of the pool lacks. Writes nothing.

    Raises `UsageError` if it cannot, and the errors of `hnas.pipeline.search.prepared.prepare`.
    """
    work = Opened(_job(store, comparison, device, partial), store, connection, comparison.known)
    for k in range(len(comparison.methods)):
        work.prepared(k)
    for remark in work.pool.remarks():
        notice(remark)
    return work


def missing(store: Store, comparison: Comparison) -> list[Part]:
    """Return the parts that the store lacks, the first of each method first, for a better estimate of the time left."""
    stored = stored_parts(store, comparison.name)
    parts: list[Part] = []
    for k, settings in enumerate(comparison.methods):
        seeds = comparison.seeds_of(k)
        block = 1 if settings.evaluates else max(_BLOCK, -(-seeds // _MOST_PARTS))
        parts += missing_parts(stored, k, seeds, block)
    return sorted(parts, key=lambda part: (part.first, part.k))


def compare(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    comparison: Comparison,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    certificates: Certificates = _NO_CERTIFICATES,
    device: str = "auto",
    partial: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    notice: Callable[[str], None] = lambda sentence: None,
    task: Callable[[Job, Part], int] = run_part,
) -> Opened:
    """Make the searches of `comparison` that the store lacks, and return its pool.

    Uses `workers` local processes (default: one per core, or per GPU if trainings use them), or the cluster at the
    `scheduler` address. `partial` and `notice` are those of `open_comparison`; `task` is what a worker does with a
    part.

    Raises `UsageError` for a method that the pool cannot serve, and `HnasError` if the scheduler does not answer, a
    search fails, or the user interrupts; finished parts stay.
    """
    check_cluster(workers, scheduler, certificates)
    work = open_comparison(store, connection, comparison, device=device, partial=partial, notice=notice)
    if not missing(store, comparison):
        return work
    store.prepare()
    begun = time.perf_counter()
    lost: list[str] = []
    done, total = 0, comparison.searches
    try:
        # A second command making the same comparison waits, and then finds everything done.
        with locked(store, FOLDER, comparison.name):
            if comparison.known is not None:
                write_known(store, comparison.known, FOLDER, comparison.name)
            _record(store, comparison)
            todo = missing(store, comparison)
            already = done = total - sum(len(part.seeds) for part in todo)
            progress(Progress(done, total, already, 0.0))
            recorded = time.monotonic()
            try:
                for count in _made(work, todo, workers, scheduler, certificates, task, lost):
                    done += count
                    if time.monotonic() - recorded > _RECORD_EVERY:
                        _record(store, comparison)
                        recorded = time.monotonic()
                    progress(Progress(done, total, already, time.perf_counter() - begun, tuple(lost)))
            finally:
                # Workers of a cluster may outlive the command, and their results need the record.
                if scheduler is None and set(store.names(FOLDER, comparison.name)) <= {RECORD, WARM, ".lock"}:
                    for name in store.names(FOLDER, comparison.name):
                        if name != ".lock":
                            remove_file(store, FOLDER, comparison.name, name)
                else:
                    _record(store, comparison)
    except KeyboardInterrupt:
        raise HnasError(
            f"interrupted: {done} of {total} searches are stored in comparison {comparison.name}; run the same command "
            "again to resume"
        ) from None
    finally:
        if store.names(FOLDER, comparison.name) == [".lock"]:
            remove_file(store, FOLDER, comparison.name, ".lock")
    return work


def _job(store: Store, comparison: Comparison, device: str, partial: bool) -> Job:
    methods = json.dumps([settings.as_dict() for settings in comparison.methods])
    place = store.root if store.local else store.location
    return Job(place, comparison.name, methods, device, partial, token=uuid.uuid4().hex[:10])


def _record(store: Store, comparison: Comparison) -> None:
    """Write the comparison's settings, maximum number of seeds, and parts, unless they are already recorded."""
    place = (FOLDER, comparison.name, RECORD)
    before = store.read_json(*place) if store.exists(*place) else {}
    content = {
        "id": comparison.name,
        "created": before.get("created", now()),
        "seeds": max(comparison.seeds, before.get("seeds", 0)),
        "methods": [settings.as_dict() for settings in comparison.methods],
        "parts": [part.name for part in stored_parts(store, comparison.name)],
    }
    if content != before:
        store.write_json(content, *place)


def _made(
    work: Opened,
    todo: Sequence[Part],
    workers: int | None,
    scheduler: str | None,
    certificates: Certificates,
    task: Callable[[Job, Part], int],
    lost: list[str],
) -> Iterator[int]:
    """Make all parts; yields the number of searches of each part as it is stored, and 0 when a worker is `lost`."""
    job, trained = work.job, work.settings[0].evaluates
    count = workers or (default_workers(job.device) if scheduler is None else 0)
    left = list(todo)
    if scheduler is None and (count == 1 or not trained):
        begun = time.perf_counter()
        while left and (count == 1 or time.perf_counter() - begun < _ALONE):
            part = left.pop(0)
            work.run(part)
            yield len(part.seeds)
    if not left:
        return
    if isinstance(search_spaces.cache, StoreCache):
        search_spaces.cache.flush()  # for the workers
    with ExitStack() as stack:
        client = stack.enter_context(connected(workers, scheduler, job.device if trained else "cpu", certificates))
        stack.enter_context(prepared(client, wait_without_spinning, f"hnas-{job.token}"))
        count_workers(client)
        gone = lost_workers(client, f"hnas-{job.token}-")
        yield from _on_cluster(client, job, left, task, gone, lost)


def _on_cluster(
    client: Client,
    job: Job,
    parts: Sequence[Part],
    task: Callable[[Job, Part], int],
    gone: list[str],
    lost: list[str],
) -> Iterator[int]:
    finished: SimpleQueue[Future] = SimpleQueue()
    running: dict[str, Future] = {}
    for part in parts:
        key = f"hnas-{job.token}-{part.name}"
        running[key] = client.submit(task, job, part, key=key, pure=False)
        running[key].add_done_callback(finished.put)
    try:
        while running:
            for future in next_finished(finished):
                del running[future.key]
                yield _result(future)
                future.release()
            if len(gone) > len(lost):
                lost[:] = gone
                yield 0
    finally:
        # On a cluster that lives on, they would otherwise be computed for nobody.
        client.cancel(list(running.values()))


def _result(future: Future) -> int:
    try:
        return int(future.result())
    except HnasError:
        raise
    except KilledWorker as error:
        raise HnasError(
            f"searches lost their worker {error.allowed_failures + 1} times, often for lack of memory; "
            "use fewer --workers; finished searches are stored"
        ) from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HnasError(f"a search failed on its worker: {reason}; finished searches are stored") from error
