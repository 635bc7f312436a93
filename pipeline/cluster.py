"""Dask: local worker processes, or a cluster that exists, behind one client."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dask
from distributed import Client
from distributed.comm.addressing import parse_address, parse_host_port

from hnas.errors import HnasError, UsageError
from pipeline.local_cluster import HOUSEKEEPING, default_workers, gpus, local_cluster


@contextmanager
def connected(workers: int | None, scheduler: str | None, device: str) -> Iterator[Client]:
    """A client of `workers` local processes for `device`, or of the cluster at the `scheduler` address.

    Raises `HnasError` where no scheduler answers within 10 seconds, `UsageError` for what is no address.
    """
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": "10s"}))
        # A worker that goes away is reported by what becomes of its chunk, not by a log of the network layer.
        for name in ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler", "asyncio"):
            stack.enter_context(_quiet(logging.getLogger(name)))
        if scheduler is None:
            # Not only while they start: a worker that takes a lost one's place reads the settings of that moment.
            stack.enter_context(dask.config.set(HOUSEKEEPING))
            with _workers_ignore_interrupts():
                cluster = local_cluster(workers or default_workers(device), gpus(device))
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
