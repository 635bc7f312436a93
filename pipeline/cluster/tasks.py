"""Tasks on a cluster: counting workers, noticing lost ones, and waiting for results."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from hnas.errors import HnasError
from hnas.pipeline.cluster.dask_api import Client, Future

# Seconds that `next_finished` waits before a command looks at what other commands left.
_LOOK = 1.0


def count_workers(client: Client) -> int:
    """Return the number of threads of all workers, once there is at least one worker.

    Raises `HnasError` if none joins within a minute, or the scheduler is gone.
    """
    try:
        client.wait_for_workers(1, timeout=60)
        threads: dict[str, int] = client.nthreads()
    except TimeoutError:
        raise HnasError(
            "the Dask scheduler has no worker, and none joined within 60 seconds; start `dask worker`"
        ) from None
    except OSError as error:
        raise HnasError(f"the Dask scheduler is gone: {error}; finished work is stored") from error
    return max(1, sum(threads.values()))


def lost_workers(client: Client, prefix: str) -> list[str]:
    """Return a list that grows by the address of each worker lost while it processes tasks with the key `prefix`."""
    lost: list[str] = []

    def note(event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        in_work = any(str(key).startswith(prefix) for key in message.get("processing-tasks", ()))
        if in_work and message.get("action") == "remove-worker" and not message.get("expected"):
            lost.append(str(message.get("worker")))

    client.subscribe_topic("all", note)
    return lost


def next_finished(finished: SimpleQueue[Future]) -> Iterator[Future]:
    """Yield the finished futures: waits for the first of them, but at most one second."""
    try:
        yield finished.get(timeout=_LOOK)
        while True:
            yield finished.get_nowait()
    except Empty:
        return
