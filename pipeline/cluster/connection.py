"""Connection to Dask: local worker processes, or an existing cluster, behind one client."""

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
from hnas.pipeline.cluster.dask_api import Client, dask, get_address_host
from hnas.pipeline.cluster.dask_scratch import scratch_folder
from hnas.pipeline.cluster.local_cluster import default_workers, disable_http, gpus, local_cluster, settings
from hnas.pipeline.cluster.tls import Certificates, await_greeting, complete_address

_NO_CERTIFICATES = Certificates()


def check_cluster(workers: int | None, scheduler: str | None, certificates: Certificates = _NO_CERTIFICATES) -> None:
    """Check what `connected` takes, and connect to nothing.

    Raises `UsageError` for an invalid number of local `workers`, an invalid `scheduler` address, both of these, and
    `certificates` that cannot be used.
    """
    if workers is not None and not 1 <= workers <= 1024:
        raise UsageError(f"--workers must be between 1 and 1024, got {workers}")
    if workers is not None and scheduler is not None:
        raise UsageError("--workers and --scheduler exclude each other: an existing cluster has its own workers")
    certificates.check(scheduler)
    if scheduler is not None:
        try:
            get_address_host(complete_address(scheduler, certificates))
        except ValueError as error:
            raise _invalid(scheduler) from error


def _invalid(scheduler: str) -> UsageError:
    return UsageError(f"--scheduler {scheduler!r} is not a valid address; give one such as tcp://127.0.0.1:8786")


@contextmanager
def connected(
    workers: int | None, scheduler: str | None, device: str, certificates: Certificates = _NO_CERTIFICATES
) -> Iterator[Client]:
    """Yield a client of `workers` local processes for `device`, or of the cluster at the `scheduler` address.

    Raises `HnasError` if no scheduler answers within 10 s, if it rejects the `certificates`, or if local workers cannot
    be started, and `UsageError` for an invalid address.
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
        # In force for the whole session: a replacement for a lost worker reads the settings at that moment.
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
            "tcp:// address, or its tls:// address if it requires certificates"
        ) from error
    except ValueError as error:
        raise _invalid(scheduler) from error
    except RuntimeError as error:
        raise HnasError(f"cannot connect to Dask at {scheduler}: {str(error).strip().splitlines()[0]}") from error


def _start(make: Callable[[], Any]) -> Any:
    """Return the cluster that `make` starts, in a separate thread so that an interrupt ends a start that hangs.

    A terminal sends Ctrl-C and its hang-up to every process of the command. Workers must not receive them, because the
    driver ends the workers. They inherit this thread's blocked signals, as do their replacements, which also descend
    from it.
    """
    before = set(active_children())
    # The resource tracker of `multiprocessing` unblocks Ctrl-C in the thread that starts it, so start it here.
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
        # When a worker dies during the start, Dask gives up the cluster and closes what exists of it.
        while not outcome.done():
            for process in set(active_children()) - before:
                process.kill()
            wait([outcome], timeout=0.05)
        if outcome.exception() is None:
            outcome.result().close()
        raise


@contextmanager
def _closing(server: Any) -> Iterator[Any]:
    """Close the server at the end. A failure to close, such as a timeout on a busy machine, must not hide an error.

    Local workers that are left over end with this process.
    """
    try:
        yield server
    finally:
        with suppress(Exception):
            server.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's loggers: a lost worker is reported by what happens to its chunk."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in ("distributed", "tornado")]
    loggers = [logging.getLogger(name) for name in ("asyncio", "distributed", *names)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
