"""Carries out a precomputation plan on Dask, with local worker processes or on an existing cluster.

Chunks are cut during the work, the most expensive networks first. At most a few chunks per worker are in flight,
whatever the size of the space. If a worker is lost, another one repeats its chunk; finished chunks stay stored.
Progress goes to a callback, never to a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from queue import SimpleQueue

from hnas.devices import Numerics, choose_device, use_float32
from hnas.errors import HnasError
from hnas.pipeline.cluster.connection import check_cluster, connected
from hnas.pipeline.cluster.dask_api import Client, Future, KilledWorker
from hnas.pipeline.cluster.local_cluster import default_workers
from hnas.pipeline.cluster.tasks import count_workers, lost_workers, next_finished
from hnas.pipeline.cluster.tls import Certificates
from hnas.pipeline.cluster.worker_plugin import prepared
from hnas.pipeline.images import Batch
from hnas.pipeline.io.checksums import GRAM_KEPT, metadata_of
from hnas.pipeline.precompute.chunking import ChunkSizes
from hnas.pipeline.precompute.claims import Claims, joined
from hnas.pipeline.precompute.plan import Plan, adopted, is_recorded, record_request, relative_costs
from hnas.pipeline.precompute.worker import (
    Chunk,
    Done,
    Job,
    Tensors,
    batch_tensors,
    measure_all,
    prepare_process,
    run_chunk,
    run_chunks,
)
from hnas.pipeline.store.claim_log import sweep_drivers
from hnas.pipeline.store.run import Run, now
from hnas.pipeline.store.store import Store
from hnas.spaces import SearchSpace
from hnas.threads import torch_threads

_RETRIES = 3
# Seconds between two counts of the workers of a growing cluster.
_RECOUNT = 15.0
_NO_CERTIFICATES = Certificates()


@dataclass(frozen=True)
class Progress:
    """The progress of a precomputation.

    `done` of `total` rows are stored, by this command and others running at the same time; `already` were stored
    before. `lost` are the addresses of workers that disappeared while computing.
    """

    done: int
    total: int
    already: int
    seconds: float
    lost: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Rows per second so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left at this rate; None before the first chunk."""
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass(frozen=True)
class Outcome:
    """The result of a precomputation: the name of the `run` and the number of rows that it `computed`.

    `elsewhere` counts the rows of its plan that other commands stored in the meantime, and `without_gram` with
    `keep_gram` the rows of the run whose matrices were not kept.
    """

    run: str
    computed: int = 0
    elsewhere: int = 0
    without_gram: int = 0


class InterruptedRunError(HnasError):
    """The user interrupted the work; finished rows are stored."""


def precompute(
    store: Store,
    space: SearchSpace,
    plan: Plan,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    certificates: Certificates = _NO_CERTIFICATES,
    device: str = "auto",
    keep_gram: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    task: Callable[[Job, Chunk], Done] = run_chunk,
) -> Outcome:
    """Carry out `plan`.

    Uses `workers` local processes with one thread each (default: one per physical core, or one per GPU on CUDA; more
    workers share the GPUs in turn), or the cluster at the `scheduler` address, which may require `certificates`.
    Commands working on one run at the same time share its chunks; this one returns when all rows of its plan are
    stored, by whichever command. `task` is what a worker does with a chunk.

    Raises `HnasError` if the scheduler does not answer, a chunk fails, or the disk is full, and `InterruptedRunError`
    on Ctrl-C; finished parts stay.
    """
    check_cluster(workers, scheduler, certificates)
    if scheduler is None:
        choose_device(device)
    run = Run(store, plan.settings.id)
    if is_recorded(store, space, plan):
        return Outcome(run.name, without_gram=_without_gram(run, keep_gram))
    started = now()
    begun: float | None = None
    claims: Claims | None = None
    used: set[Numerics] = set()
    try:
        with ExitStack() as stack:
            # Connect first: if no cluster answers, nothing is written.
            working = connected(workers, scheduler, device, certificates)
            client = stack.enter_context(working) if plan.todo or plan.repairs else None
            store.prepare()
            plan = adopted(store, plan)
            run.create(plan.settings, plan.batch)
            record_request(store, space, plan)
            if client is None:
                sweep_drivers(run)
                return Outcome(run.name, without_gram=_without_gram(run, keep_gram))
            claims = Claims(run, plan, relative_costs(store, space, plan), keep_gram=keep_gram)
            stack.enter_context(joined(claims))
            job = Job(_absolute(store), run.name, plan.settings, device, keep_gram, claims.token, _digest(plan.further))
            stack.enter_context(prepared(client, partial(prepare_process, device), f"hnas-{claims.token}"))
            begun = time.perf_counter()
            lost = lost_workers(client, _prefix(job))
            progress(_progress(claims, plan, 0.0, lost))
            _repair(client, plan, job, task)
            for _ in _results(client, claims, ChunkSizes(plan.chunk_size, claims.block), job, task, used, lost):
                progress(_progress(claims, plan, time.perf_counter() - begun, lost))
    except KeyboardInterrupt:
        stored = plan.done + (claims.computed + claims.elsewhere if claims else 0)
        raise InterruptedRunError(
            f"interrupted: {stored} of {plan.done + len(plan.todo)} rows are stored in run {run.name}; "
            "run the same command again to resume"
        ) from None
    finally:
        if claims and begun is not None and claims.computed:
            session = {
                "started": started,
                "seconds": round(time.perf_counter() - begun, 1),
                "rows": claims.computed,
                "workers": scheduler or workers or default_workers(device),
                "device": device,
                "devices": [asdict(numerics) for numerics in sorted(used)],
            }
            run.add_session(session)
    return Outcome(run.name, claims.computed, claims.elsewhere, _without_gram(run, keep_gram))


def _without_gram(run: Run, keep_gram: bool) -> int:
    """Return with `keep_gram` the number of stored rows that were computed without it, else 0."""
    if not keep_gram:
        return 0
    return sum(
        run.read_part(["canonical"], name).num_rows
        for name in run.parts()
        if GRAM_KEPT not in metadata_of(run.store.verified(*run.place("metrics", name)))
    )


def _progress(claims: Claims, plan: Plan, seconds: float, lost: list[str]) -> Progress:
    done = claims.computed + claims.elsewhere
    return Progress(done, len(plan.todo), plan.done, seconds, tuple(lost))


def _prefix(job: Job) -> str:
    return f"hnas-{job.token}-"


def estimate(plan: Plan, *, device: str = "auto", networks: int = 3) -> float | None:
    """Estimate the seconds that one worker needs for the plan from `networks` networks computed here; write nothing.

    None if nothing is left to do.
    """
    if not plan.todo:
        return None
    job = Job("", plan.settings.id, plan.settings, device, keep_gram=False)
    use_float32(choose_device(device))
    batches = [plan.batch] if plan.further is None else [plan.batch, plan.further]
    batch = batch_tensors(job, *((images.images, images.labels) for images in batches))
    step = max(1, len(plan.todo) // networks)
    chosen = plan.todo[::step][:networks]
    with torch_threads(1):
        _measure(job, batch, plan, *chosen[0])  # the first call includes the libraries' start-up
        begun = time.perf_counter()
        for canonical, arch in chosen:
            _measure(job, batch, plan, canonical, arch)
        seconds = time.perf_counter() - begun
    return seconds / len(chosen) * len(plan.todo)


def _measure(job: Job, batch: Tensors, plan: Plan, canonical: str, arch: str) -> None:
    keys = plan.scored.lacking([score.key for score in plan.scores], canonical)
    measure_all(job, [arch], batch, keys, metrics=canonical not in plan.stored.classes)


def _digest(batch: Batch | None) -> str:
    return "" if batch is None else batch.digest


def _absolute(store: Store) -> str:
    return store.root if store.local else store.location


def _results(
    client: Client,
    claims: Claims,
    sizes: ChunkSizes,
    job: Job,
    task: Callable[[Job, Chunk], Done],
    used: set[Numerics],
    lost: list[str],
) -> Iterator[None]:
    """Compute all free chunks, a bounded number at a time; yields when rows are stored or workers `lost`.

    Adds to `used` the numerics of the devices that computed them.

    Ends when nothing is free and no other command holds any of it; the claims of a command that dies become free.
    """
    workers, counted = count_workers(client), time.monotonic()
    finished: SimpleQueue[Future] = SimpleQueue()
    running: dict[str, tuple[list[Chunk], Future]] = {}
    seen = claims.computed + claims.elsewhere, len(lost)
    while True:
        while len(running) < sizes.in_flight(workers):
            chunks = claims.claim(sizes.budget(claims.free_cost, workers * claims.commands), sizes.together)
            if not chunks:
                break
            key = _prefix(job) + chunks[0].name
            future = client.submit(run_chunks, task, job, chunks, key=key, pure=False, retries=_RETRIES)
            running[key] = chunks, future
            future.add_done_callback(finished.put)
        if not running and not claims.waiting:
            return
        for future in next_finished(finished):
            chunks, _ = running.pop(future.key)
            outcomes = list(zip(chunks, _result(future), strict=True))
            future.release()
            claims.done([chunk for chunk, done in outcomes if done.rows])
            for chunk, done in outcomes:
                used |= {done.numerics} if done.numerics else set()
                sizes.learn(done.rows, claims.cost(chunk), done.seconds)
        if (now := (claims.computed + claims.elsewhere, len(lost))) != seen:
            seen = now
            yield
        if time.monotonic() - counted > _RECOUNT:
            workers, counted = count_workers(client), time.monotonic()


def _repair(client: Client, plan: Plan, job: Job, task: Callable[[Job, Chunk], Done]) -> None:
    """Recompute the lost eigenvalues of stored rows. Two commands that do so write the same values."""
    keys = [f"hnas-{job.token}-repair-{chunk.part}" for chunk in plan.repairs]
    futures = [
        client.submit(run_chunks, task, job, [chunk], key=key, pure=False, retries=_RETRIES)
        for key, chunk in zip(keys, plan.repairs, strict=True)
    ]
    for future in futures:
        _result(future)


def _result(future: Future) -> list[Done]:
    try:
        done: list[Done] = future.result()
    except HnasError:
        raise
    except KilledWorker as error:
        raise HnasError(
            f"a chunk lost its worker {error.allowed_failures + 1} times, often for lack of memory; "
            "use fewer --workers or a smaller --batch-size; finished rows are stored"
        ) from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HnasError(f"a chunk failed on its worker: {reason}; finished rows are stored") from error
    return done
