"""The local cluster: worker processes on this machine's cores, or on its GPUs.

Whoever reaches a Dask server may have it run any code, and the loopback interface is open to all users of a machine. So
everything that listens demands a certificate that is made anew for each cluster and leaves no process but its own.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

from hnas.pipeline.cluster.dask_api import LocalCluster, Security, dask, parse_memory_limit
from hnas.pipeline.cluster.dask_servers import QuietNanny
from hnas.threads import physical_cores

ClusterFactory = Callable[..., Any]

#: Everything listens on the loopback interface, and nothing shows a dashboard.
OPTIONS: dict[str, Any] = {
    "threads_per_worker": 1,
    "host": "127.0.0.1",
    "dashboard_address": "127.0.0.1:0",
    "scheduler_kwargs": {"dashboard": False},
    "worker_class": QuietNanny,
    "silence_logs": logging.CRITICAL,
}

#: Dask's settings for what its processes do beside the work. At its defaults that is 8 % of two cores: stacks sampled a
#: hundred times a second for a dashboard that is not there, event loops timed every 20 ms, memory looked at every 100.
HOUSEKEEPING: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    # One heap for all threads of a worker. In those of its own, of 64 MiB each, the thread that computes leaves gaps.
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": "1",
    # No sizes of messages: Dask estimates them from random samples, twice a second in each worker, and a forward pass
    # during which numbers were drawn is done again, to find out that the network drew none.
    "distributed.nanny.pre-spawn-environ.DASK_DISTRIBUTED__COMM__OFFLOAD": "False",
    # Chunks give back a few numbers: nothing is there to spill, and a worker that paused would wait for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # Pages of an HTTP server that `disable_http` closes.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def settings(scratch: str) -> dict[str, Any]:
    """Dask's settings for a local cluster that writes to the folder `scratch`: none of them is the user's.

    Those are made for other clusters: certificates that a login node demands, lifetimes and resources of a queue's
    workers, modules to load, variables that give each worker more threads. A row must not depend on them.
    """
    defaults = copy.deepcopy(dask.config.merge(*dask.config.defaults))
    return {**defaults, "scheduler-address": None, "temporary-directory": scratch, **HOUSEKEEPING}


def disable_http(cluster: Any) -> None:
    """Close the HTTP server of the cluster's scheduler, which Dask always starts."""

    async def close() -> None:
        cluster.scheduler.http_server.stop()

    cluster.sync(close)


def gpus(device: str) -> list[str]:
    """The GPUs that local workers compute on: those of this machine if `device` is or becomes CUDA, else none."""
    if device == "cpu":  # without torch, whose import takes longer than many a task
        return []
    from hnas.devices import choose_device, visible_gpus

    return visible_gpus() if choose_device(device) == "cuda" else []


def default_workers(device: str) -> int:
    """The number of local workers where none is given: one for each GPU if `device` is CUDA, else for each core."""
    return len(gpus(device)) or physical_cores()


def local_cluster(workers: int, gpus: Sequence[str], cuda_cluster: ClusterFactory | None = None) -> Any:
    """A cluster of `workers` processes with one thread each.

    Without `gpus` they compute on the cores. With several GPUs and a worker for each at most, dask-cuda starts them
    where it is installed, each on a GPU of its own with the cores next to it; otherwise worker i sees GPU i modulo
    their number, and several may share one. `cuda_cluster` stands in for dask-cuda's `LocalCUDACluster`.
    """
    security = Security.temporary()
    if not gpus:
        return LocalCluster(n_workers=workers, processes=True, security=security, **OPTIONS)
    if len(gpus) > 1 and workers <= len(gpus):
        factory = cuda_cluster or _dask_cuda()
        if factory is not None:
            return factory(CUDA_VISIBLE_DEVICES=list(gpus[:workers]), n_workers=workers, security=security, **OPTIONS)
    return SharedGPUCluster(workers, gpus, security)


def _dask_cuda() -> ClusterFactory | None:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        return None
    factory: ClusterFactory = LocalCUDACluster
    return factory


class SharedGPUCluster(LocalCluster):  # type: ignore[misc, unused-ignore]
    """`workers` local processes, of which the i-th sees only the GPU `gpus[i % len(gpus)]`.

    A worker that is started again after it died sees the same GPU.
    """

    def __init__(self, workers: int, gpus: Sequence[str], security: Security) -> None:
        self._gpus = list(gpus)
        # What `LocalCluster` gives each worker where it is told their number.
        limit = parse_memory_limit("auto", 1, workers, logger=logging.getLogger(__name__))
        super().__init__(n_workers=0, processes=True, memory_limit=limit, security=security, **OPTIONS)
        self.scale(workers)
        self.sync(self._correct_state)

    def new_worker_spec(self) -> dict[int, dict[str, Any]]:
        """The name of the next worker, a number from 0, and how to start it."""
        ((name, spec),) = super().new_worker_spec().items()
        gpu = self._gpus[name % len(self._gpus)]
        return {name: {**spec, "options": {**spec["options"], "env": {"CUDA_VISIBLE_DEVICES": gpu}}}}
