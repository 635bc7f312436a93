"""Tasks on a cluster: who works on them, who went away, which of them finished."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from hnas.errors import HnasError
from hnas.pipeline.cluster.dask_api import Client, Future

# Seconds that `next_finished` waits, after which a command looks at what others left.
_LOOK = 1.0


def count_workers(client: Client) -> int:
    """The threads of all workers, once there is one.

    Raises `HnasError` where none comes within a minute, or the scheduler is gone.
    """
    try:
        client.wait_for_workers(1, timeout=60)
        threads: dict[str, int] = client.nthreads()
    except TimeoutError:
        raise HnasError(
            "the Dask scheduler has no worker, and none came within 60 seconds; start `dask worker`"
        ) from None
    except OSError as error:
        raise HnasError(f"the Dask scheduler is gone: {error}; what finished is stored") from error
    return max(1, sum(threads.values()))


def lost_workers(client: Client, prefix: str) -> list[str]:
    """A list to which the address of each worker is added that goes away with tasks in work whose key has `prefix`."""
    lost: list[str] = []

    def note(event: tuple[float, dict[str, Any]]) -> None:
        _, said = event
        in_work = any(str(key).startswith(prefix) for key in said.get("processing-tasks", ()))
        if in_work and said.get("action") == "remove-worker" and not said.get("expected"):
            lost.append(str(said.get("worker")))

    client.subscribe_topic("all", note)
    return lost


def next_finished(finished: SimpleQueue[Future]) -> Iterator[Future]:
    """The futures that finished, after the first of them or a second."""
    try:
        yield finished.get(timeout=_LOOK)
        while True:
            yield finished.get_nowait()
    except Empty:
        return
