"""Precomputation on Dask: carry out a plan with local worker processes or on any existing cluster.

At most a few chunks a worker are in flight, whatever the size of the space; a chunk that is lost with its worker is
given to another; everything that finished stays. Progress goes to a callback, never to a terminal.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

import dask
import psutil
from distributed import Client, Future, as_completed
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.scheduler import KilledWorker
from filelock import FileLock, Timeout

from hnas.errors import HnasError, UsageError
from hnas.spaces import SearchSpace
from pipeline.devices import Numerics, visible_gpus
from pipeline.local_cluster import local_cluster
from pipeline.plan import Plan, open_arrays, record_request, refreshed
from pipeline.runs import now, open_run, record_session
from pipeline.spaces import flush_cache
from pipeline.store import Store
from pipeline.worker import WRITER, Chunk, Done, Job, batch_tensors, choose_device, measure, run_chunk

# Chunks handed out ahead for each worker thread: one in work, one waiting, so that no worker idles between two.
_AHEAD = 2
_RETRIES = 3


@dataclass(frozen=True)
class Progress:
    """How far a precomputation is: rows of this command, and those it found done."""

    done: int
    total: int
    already: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds left at this rate, or None before the first chunk."""
        return (self.total - self.done) / self.rate if self.done else None


class InterruptedRunError(HnasError):
    """The user stopped the work; what finished is stored."""


def precompute(
    store: Store,
    space: SearchSpace,
    plan: Plan,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
    keep_gram: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> str:
    """Carry out `plan` and return the run's name.

    `workers` local processes with one thread each (default: one for each physical core, or for each GPU where the
    device is CUDA; more share the GPUs in turn), or the cluster at the `scheduler` address. Raises `HnasError` where
    the scheduler does not answer, a chunk fails, another precompute writes the same run, or the disk is full,
    `InterruptedRunError` on Ctrl-C; the parts that finished stay.
    """
    if workers is not None and not 1 <= workers <= 1024:
        raise UsageError(f"--workers {workers} cannot be; give 1 to 1024")
    if workers is not None and scheduler is not None:
        raise UsageError("--workers and --scheduler exclude each other: an existing cluster has its own workers")
    if scheduler is None:
        choose_device(device)
    run = plan.settings.id
    started = now()
    begun: float | None = None
    total = plan.done + len(plan.todo)
    used: set[Numerics] = set()
    try:
        with ExitStack() as stack:
            # The cluster first: where none answers, nothing is written.
            client = stack.enter_context(_client(workers, scheduler, device)) if plan.todo else None
            store.prepare()
            flush_cache()
            stack.enter_context(_sole_writer(store, run))
            open_run(store, plan.settings, plan.batch)
            record_request(store, space, plan)
            if client is None:
                return run
            token = uuid.uuid4().hex
            store.write_bytes(token.encode(), "runs", run, WRITER)
            plan = refreshed(store, space, plan)  # another precompute may have come first
            arrays, block = open_arrays(store, plan, keep_gram=keep_gram)
            job = Job(_absolute(store), run, plan.settings, device, keep_gram, token)
            begun = time.perf_counter()
            computed = 0
            progress(Progress(0, len(plan.todo), plan.done, 0.0))
            for done in _results(client, job, plan.chunks(block)):
                computed += done.rows
                used |= {done.numerics} if done.numerics else set()
                progress(Progress(computed, len(plan.todo), plan.done, time.perf_counter() - begun))
            arrays.trim(plan.rows_needed(block))
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: {plan.done + _new_rows(store, plan)} of {total} rows are stored in run {run}; "
            "the same command goes on from there"
        ) from None
    finally:
        # Counted when the workers are gone: a chunk may have finished after the last one that was heard of.
        if begun is not None and (rows := _new_rows(store, plan)):
            session = {
                "started": started,
                "seconds": round(time.perf_counter() - begun, 1),
                "rows": rows,
                "workers": scheduler or workers or default_workers(device),
                "device": device,
                "devices": [asdict(numerics) for numerics in sorted(used)],
            }
            record_session(store, run, session)
    return run


def _new_rows(store: Store, plan: Plan) -> int:
    known = store.read_tables(["canonical"], "runs", plan.settings.id, "metrics", "*.parquet")
    return (known.num_rows if known else 0) - len(plan.used_rows)


def estimate(plan: Plan, *, device: str = "auto", networks: int = 3) -> float | None:
    """Seconds that one worker needs for the plan, from `networks` of its architectures computed here; writes nothing.

    None where nothing is left to do.
    """
    if not plan.todo:
        return None
    job = Job("", plan.settings.id, plan.settings, device, keep_gram=False)
    images, labels = batch_tensors(job, plan.batch.images, plan.batch.labels)
    step = max(1, len(plan.todo) // networks)
    chosen = [arch for _, arch in plan.todo[::step][:networks]]
    measure(job, chosen[0], images, labels)  # the first call pays for the libraries' start
    begun = time.perf_counter()
    for arch in chosen:
        measure(job, arch, images, labels)
    return (time.perf_counter() - begun) / len(chosen) * len(plan.todo)


def physical_cores() -> int:
    """The number of physical cores that this process may use."""
    allowed = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
    return max(1, min(allowed or 1, psutil.cpu_count(logical=False) or 1))


def default_workers(device: str) -> int:
    """The number of local workers where none is given: one for each GPU if `device` is CUDA, else for each core."""
    return len(_gpus(device)) or physical_cores()


def _gpus(device: str) -> list[str]:
    return visible_gpus() if choose_device(device) == "cuda" else []


def _absolute(store: Store) -> str:
    return store.root if store.local else store.location


@contextmanager
def _sole_writer(store: Store, run: str) -> Iterator[None]:
    if not store.local:
        yield
        return
    path = store.path("runs", run, ".lock")
    with store.writing(path):
        store.fs.makedirs(store.path("runs", run), exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise HnasError(
                f"another precompute is writing run {run} in {store.location}; wait for it, or stop it first"
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _client(workers: int | None, scheduler: str | None, device: str) -> Iterator[Client]:
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": "10s"}))
        # A worker that goes away is reported by what becomes of its chunk, not by a log of the network layer.
        for name in ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler", "asyncio"):
            stack.enter_context(_quiet(logging.getLogger(name)))
        if scheduler is None:
            with _workers_ignore_interrupts():
                cluster = local_cluster(workers or default_workers(device), _gpus(device))
            address: object = stack.enter_context(cluster)
        else:
            address = scheduler
        try:
            if scheduler is not None:
                _await_greeting(scheduler)
            client = Client(address, timeout="10s")
        except (OSError, TimeoutError) as error:
            raise HnasError(
                f"no Dask scheduler answers at {scheduler} within 10 seconds; start one with `dask scheduler` and give "
                "its tcp:// address"
            ) from error
        except ValueError as error:
            raise UsageError(
                f"--scheduler {scheduler!r} is no address; give one such as tcp://127.0.0.1:8786"
            ) from error
        yield stack.enter_context(client)


def _await_greeting(address: str) -> None:
    """Return once the scheduler at a tcp:// `address` has sent a byte: it speaks first, and `Client` waits for ever.

    Raises `OSError` where it cannot be reached or keeps silent for 10 seconds, `ValueError` for what is no address.
    """
    scheme, _ = parse_address(address, strict=False)
    if scheme != "tcp":
        return
    with socket.create_connection(parse_host_port(address), timeout=10) as connection:
        if not connection.recv(1):
            raise ConnectionError("it hung up")


@contextmanager
def _workers_ignore_interrupts() -> Iterator[None]:
    """Processes started within ignore Ctrl-C, which a terminal sends to them too: ending them is the driver's part."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _results(client: Client, job: Job, chunks: Iterator[Chunk]) -> Iterator[Done]:
    """The chunks' results as they finish, keeping a bounded number of them in flight."""

    def submit(chunk: Chunk) -> Future:
        return client.submit(run_chunk, job, chunk, key=f"hnas-{job.token}-{chunk.part}", pure=False, retries=_RETRIES)

    try:
        client.wait_for_workers(1, timeout=60)
    except TimeoutError:
        raise HnasError(
            "the Dask scheduler has no worker, and none came within 60 seconds; start `dask worker`"
        ) from None
    ahead = _AHEAD * max(1, sum(client.nthreads().values()))
    running = as_completed()
    for _, chunk in zip(range(ahead), chunks, strict=False):
        running.add(submit(chunk))
    for future in running:
        try:
            yield future.result()
        except HnasError:
            raise
        except KilledWorker as error:
            raise HnasError(
                f"a chunk was lost with its worker {error.allowed_failures + 1} times, as happens for lack of memory; "
                "use fewer --workers or a smaller --batch-size; what finished is stored"
            ) from error
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise HnasError(f"a chunk failed on its worker: {reason}; what finished is stored") from error
        future.release()
        following = next(chunks, None)
        if following is not None:
            running.add(submit(following))
