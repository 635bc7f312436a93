"""Dask: local worker processes, or a cluster that exists, behind one client."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import active_children, resource_tracker
from typing import Any

from hnas.errors import HnasError, UsageError
from hnas.pipeline.cluster.dask_api import Client, dask
from hnas.pipeline.cluster.dask_scratch import scratch_folder
from hnas.pipeline.cluster.local_cluster import default_workers, disable_http, gpus, local_cluster, settings
from hnas.pipeline.cluster.tls import Certificates, await_greeting, complete_address

_NO_CERTIFICATES = Certificates()


def check_workers(workers: int | None, scheduler: str | None) -> None:
    """Raise `UsageError` where so many local `workers` cannot be, or a `scheduler` is named beside them."""
    if workers is not None and not 1 <= workers <= 1024:
        raise UsageError(f"--workers {workers} cannot be; give 1 to 1024")
    if workers is not None and scheduler is not None:
        raise UsageError("--workers and --scheduler exclude each other: an existing cluster has its own workers")


@contextmanager
def connected(
    workers: int | None, scheduler: str | None, device: str, certificates: Certificates = _NO_CERTIFICATES
) -> Iterator[Client]:
    """A client of `workers` local processes for `device`, or of the cluster at the `scheduler` address.

    Raises `HnasError` where no scheduler answers within 10 seconds or it refuses the `certificates`, and where local
    workers cannot be started; `UsageError` for what is no address.
    """
    certificates.check(scheduler)
    with ExitStack() as stack:
        if scheduler is None:
            yield stack.enter_context(_local_client(workers or default_workers(device), gpus(device)))
            return
        stack.enter_context(_quiet())
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": "10s"}))
        yield stack.enter_context(_closing(_remote_client(scheduler, certificates)))


@contextmanager
def _local_client(workers: int, visible: list[str]) -> Iterator[Client]:
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        scratch = stack.enter_context(scratch_folder())
        # Not only while they start: a worker that takes a lost one's place reads the settings of that moment.
        stack.enter_context(dask.config.set(settings(scratch)))
        try:
            cluster = stack.enter_context(_closing(_start(lambda: local_cluster(workers, visible))))
            disable_http(cluster)
            client = Client(cluster, timeout="60s")
        except (OSError, RuntimeError, TimeoutError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise HnasError(f"the local workers could not be started: {reason}; try fewer --workers") from error
        yield stack.enter_context(_closing(client))


def _remote_client(scheduler: str, certificates: Certificates) -> Client:
    try:
        address = complete_address(scheduler, certificates)
        security = certificates.security()
        await_greeting(address, security)
        return Client(address, timeout="10s", security=security)
    except (OSError, TimeoutError) as error:
        raise HnasError(
            f"no Dask scheduler answers at {scheduler} within 10 seconds; start one with `dask scheduler` and give its "
            "tcp:// address, or its tls:// address where it demands certificates"
        ) from error
    except ValueError as error:
        raise UsageError(f"--scheduler {scheduler!r} is no address; give one such as tcp://127.0.0.1:8786") from error
    except RuntimeError as error:
        raise HnasError(f"Dask does not connect to {scheduler}: {str(error).strip().splitlines()[0]}") from error


def _start(make: Callable[[], Any]) -> Any:
    """The cluster that `make` starts, in a thread of its own: an interrupt ends the start, whatever it waits for.

    A terminal sends Ctrl-C and its own end to every process of the command. The workers are not to hear of them, for
    ending them is the driver's part: they inherit the signals that this thread blocks, as do those that take a lost
    one's place, which descend from it too.
    """
    before = set(active_children())
    # `multiprocessing` has a process beside them, whose start unblocks Ctrl-C in the thread that first needs it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    outcome: Future[Any] = Future()

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            outcome.set_result(make())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=start, name="start of the local cluster", daemon=True).start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        # A worker that dies while it starts has Dask give up the cluster and close what there is of it.
        while not outcome.done():
            for process in set(active_children()) - before:
                process.kill()
            wait([outcome], timeout=0.05)
        if outcome.exception() is None:
            outcome.result().close()
        raise


@contextmanager
def _closing(server: Any) -> Iterator[Any]:
    """Close it at the end; a failure to do so, such as a timeout on a busy machine, hides nothing of what went before.

    Local workers that it leaves end with this process.
    """
    try:
        yield server
    finally:
        with suppress(Exception):
            server.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """A worker that goes away is reported by what becomes of its chunk, not by a log of the network layer."""
    known = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in ("distributed", "tornado")]
    loggers = [logging.getLogger(name) for name in ("asyncio", "distributed", *known)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
