"""Runs a function in every worker of a cluster before its first task, also in workers that join or restart later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hnas.errors import HnasError
from hnas.pipeline.cluster.dask_api import Client, Worker, WorkerPlugin

# The scheduler drops a worker with a lost connection within moments.
_TRIES, _PAUSE = 10, 0.2


class Preparation(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """Prepares a worker process before its first task."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._prepare = prepare

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker."""
        self._prepare()


@contextmanager
def prepared(client: Client, prepare: Callable[[], None], name: str) -> Iterator[None]:
    """Make each worker of `client` call `prepare`, registered under a `name` unique to the command, until the end.

    Raises `HnasError` if `prepare` fails in a worker.
    """
    try:
        _prepare(client, prepare, name)
        yield
    finally:
        # Always unregister: a worker that cannot load a plugin of the scheduler can no longer start.
        with suppress(Exception):  # the cluster is gone
            client.unregister_worker_plugin(name)


def _prepare(client: Client, prepare: Callable[[], None], name: str) -> None:
    for _ in range(_TRIES):
        try:
            client.register_plugin(Preparation(prepare), name=name)
            return
        except OSError:  # a worker was lost in the meantime, which hides the others' answers
            time.sleep(_PAUSE)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise HnasError(
                f"a worker cannot compute: {reason}; the workers need the same hnas as this command"
            ) from error
