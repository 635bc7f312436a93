"""Dask's servers as a local cluster has them: none listens for anybody who has not the cluster's certificate.

A module of its own, for each worker process imports it before it has anything to do.
"""

from __future__ import annotations

from typing import Any

from hnas.pipeline.cluster.dask_api import Nanny, Worker


class QuietWorker(Worker):  # type: ignore[misc, unused-ignore]
    """A worker without the HTTP server that Dask gives each, which knows neither TLS nor passwords."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Start none."""


class QuietNanny(Nanny):  # type: ignore[misc, unused-ignore]
    """Starts a `QuietWorker` in a process of its own, and another where that one dies."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, worker_class=QuietWorker, **options)
