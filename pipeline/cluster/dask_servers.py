"""Dask servers for a local cluster, none of which serves clients without the cluster's certificate.

A separate module, because every worker process imports it before anything else.
"""

from __future__ import annotations

from typing import Any

from hnas.pipeline.cluster.dask_api import Nanny, Worker


class QuietWorker(Worker):  # type: ignore[misc, unused-ignore]
    """A worker without Dask's HTTP server, which supports neither TLS nor passwords."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Start no HTTP server."""


class QuietNanny(Nanny):  # type: ignore[misc, unused-ignore]
    """Starts a `QuietWorker` in its own process, and restarts it if it dies."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, worker_class=QuietWorker, **options)
