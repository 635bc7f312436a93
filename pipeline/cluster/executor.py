"""A cluster as a `concurrent.futures.Executor`, with messages from running tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from hnas.errors import HnasError
from hnas.pipeline.cluster.connection import connected
from hnas.pipeline.cluster.dask_api import KilledWorker, get_worker
from hnas.pipeline.cluster.tasks import count_workers
from hnas.pipeline.cluster.tls import Certificates
from hnas.pipeline.cluster.worker_plugin import prepared


@contextmanager
def cluster_executor(
    workers: int,
    scheduler: str | None,
    device: str,
    certificates: Certificates,
    *,
    prepare: Callable[[], None],
    topic: str,
    listen: Callable[[dict[str, Any]], None],
) -> Iterator[Executor]:
    """Yield an executor of `workers` local processes for `device`, or of the cluster at the `scheduler` address.

    Each worker calls `prepare` before its first task. `listen` is called in another thread with the messages that tasks
    `report` under `topic`. If a worker is lost, another one repeats its task. Raises the errors of `connected`, and
    `HnasError` if a task loses its worker repeatedly.
    """
    with (
        connected(None if scheduler else workers, scheduler, device, certificates) as client,
        prepared(client, prepare, topic),
    ):
        count_workers(client)
        client.subscribe_topic(topic, lambda event: listen(event[1]))
        executor: Executor = client.get_executor(pure=False)
        try:
            yield executor
        except KilledWorker as error:
            raise HnasError(
                f"an evaluation lost its worker {error.allowed_failures + 1} times, often for lack of memory; "
                "evaluate fewer at a time; finished evaluations are stored"
            ) from error
        finally:
            client.unsubscribe_topic(topic)


def report(topic: str, message: dict[str, Any]) -> None:
    """Send numbers and texts under `topic` from the running task to the command that submitted it."""
    get_worker().log_event(topic, message)
