"""The processes of a cluster as a `concurrent.futures.Executor`, and what they tell while they work."""

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
    """An executor of `workers` local processes for `device`, or of the cluster at the `scheduler` address.

    Each worker calls `prepare` before its first task; `listen` is called, in another thread, with what tasks `report`
    under the `topic`. A task whose worker is lost is done by another one. Raises what `connected` raises, and
    `HnasError` where a task lost its worker again and again.
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
                f"an evaluation was lost with its worker {error.allowed_failures + 1} times, as happens for lack of "
                "memory; evaluate fewer at a time; what finished is stored"
            ) from error
        finally:
            client.unsubscribe_topic(topic)


def report(topic: str, message: dict[str, Any]) -> None:
    """Tell the command that submitted the task of this process something, numbers and texts, under its `topic`."""
    get_worker().log_event(topic, message)
