"""Has all workers of a cluster do something before their first task, those that join or start again later too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hnas.errors import HnasError
from hnas.pipeline.cluster.dask_api import Client, Worker, WorkerPlugin

# The scheduler gives up a worker whose connection is lost within moments.
_TRIES, _PAUSE = 10, 0.2


class Preparation(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """Prepares the process of a worker before it takes its first task."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._prepare = prepare

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker."""
        self._prepare()


@contextmanager
def prepared(client: Client, prepare: Callable[[], None], name: str) -> Iterator[None]:
    """Have each worker of `client` call `prepare`, under a `name` of the command's own, until the end.

    Raises `HnasError` where one of them cannot be.
    """
    try:
        _prepare(client, prepare, name)
        yield
    finally:
        # Whatever happened: a worker that cannot load what the scheduler has for it does not start any more.
        with suppress(Exception):  # the cluster is gone
            client.unregister_worker_plugin(name)


def _prepare(client: Client, prepare: Callable[[], None], name: str) -> None:
    for _ in range(_TRIES):
        try:
            client.register_plugin(Preparation(prepare), name=name)
            return
        except OSError:  # of a worker that is lost meanwhile: it needs none, but hides what others answered
            time.sleep(_PAUSE)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise HnasError(
                f"a worker cannot compute: {reason}; the workers need the same hnas as this command"
            ) from error
