"""Brings `prepare_process` to all workers of a cluster, those that join or start again later too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hnas.errors import HnasError
from hnas.pipeline.precompute.dask_api import Client, Worker, WorkerPlugin
from hnas.pipeline.precompute.worker import prepare_process

# The scheduler gives up a worker whose connection is lost within moments.
_TRIES, _PAUSE = 10, 0.2


class Preparation(WorkerPlugin):  # type: ignore[misc, unused-ignore]
    """Prepares the process of a worker before it takes its first task."""

    def __init__(self, device: str) -> None:
        self._device = device

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker."""
        prepare_process(self._device)


@contextmanager
def prepared(client: Client, device: str, name: str) -> Iterator[None]:
    """Have the workers of `client` prepared for `device`, under a `name` of the command's own, until the end.

    Raises `HnasError` where one of them cannot be.
    """
    try:
        _prepare(client, device, name)
        yield
    finally:
        # Whatever happened: a worker that cannot load what the scheduler has for it does not start any more.
        with suppress(Exception):  # the cluster is gone
            client.unregister_worker_plugin(name)


def _prepare(client: Client, device: str, name: str) -> None:
    for _ in range(_TRIES):
        try:
            client.register_plugin(Preparation(device), name=name)
            return
        except OSError:  # of a worker that is lost meanwhile: it needs none, but hides what others answered
            time.sleep(_PAUSE)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise HnasError(
                f"a worker cannot compute: {reason}; the workers need the same hnas as this command"
            ) from error
