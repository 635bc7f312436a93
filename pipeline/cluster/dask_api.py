"""The only place that imports Dask, because importing it reads the user's configuration, which may be invalid."""

from __future__ import annotations

from hnas.errors import HnasError

try:
    import dask
    from distributed import Client, Future, LocalCluster, Nanny, Security, Worker, WorkerPlugin, get_worker
    from distributed.comm.addressing import get_address_host, parse_address, parse_host_port
    from distributed.scheduler import KilledWorker
    from distributed.worker_memory import parse_memory_limit
except ImportError:
    raise
except Exception as error:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    raise HnasError(
        f"Dask rejects its configuration: {reason}; correct that file, or the DASK_ environment variable"
    ) from error

__all__ = [
    "Client",
    "Future",
    "KilledWorker",
    "LocalCluster",
    "Nanny",
    "Security",
    "Worker",
    "WorkerPlugin",
    "dask",
    "get_address_host",
    "get_worker",
    "parse_address",
    "parse_host_port",
    "parse_memory_limit",
]
