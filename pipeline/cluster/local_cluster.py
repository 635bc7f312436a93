"""The local cluster: worker processes on this machine's cores or GPUs.

Whoever can reach a Dask server can make it run arbitrary code, and the loopback interface is open to all users of a
machine. Every listening socket therefore requires a certificate, which is created anew for each cluster and never
leaves its processes.
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

#: Everything listens on the loopback interface, without a dashboard.
OPTIONS: dict[str, Any] = {
    "threads_per_worker": 1,
    "host": "127.0.0.1",
    "dashboard_address": "127.0.0.1:0",
    "scheduler_kwargs": {"dashboard": False},
    "worker_class": QuietNanny,
    "silence_logs": logging.CRITICAL,
}

#: Settings that limit Dask's housekeeping. With its defaults it takes 8 % of two cores: it samples stacks 100 times a
#: second for a dashboard that does not exist, and checks event loops every 20 ms and memory every 100 ms.
HOUSEKEEPING: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    # One heap for all threads of a worker. With separate heaps of 64 MiB, the computing thread leaves gaps.
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": "1",
    # No estimates of message sizes. Dask takes them from random samples twice a second in each worker, and a forward
    # pass during which random numbers were drawn is repeated to check that the network drew none.
    "distributed.nanny.pre-spawn-environ.DASK_DISTRIBUTED__COMM__OFFLOAD": "False",
    # Chunks return only a few numbers, so there is nothing to spill, and a paused worker would wait forever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # Pages of the HTTP server that `disable_http` closes.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def settings(scratch: str) -> dict[str, Any]:
    """Return Dask's settings for a local cluster that writes to the folder `scratch`, without any of the user's.

    The user's settings are meant for other clusters: certificates of a login node, lifetimes and resources of a queue's
    workers, modules to load, variables that give each worker more threads. Rows must not depend on them.
    """
    defaults = copy.deepcopy(dask.config.merge(*dask.config.defaults))
    return {**defaults, "scheduler-address": None, "temporary-directory": scratch, **HOUSEKEEPING}


def disable_http(cluster: Any) -> None:
    """Close the HTTP server of the cluster's scheduler, which Dask always starts."""

    async def close() -> None:
        cluster.scheduler.http_server.stop()

    cluster.sync(close)


def gpus(device: str) -> list[str]:
    """Return this machine's GPUs if `device` is or resolves to CUDA, otherwise an empty list."""
    if device == "cpu":  # avoids importing torch, which takes longer than many tasks
        return []
    from hnas.devices import choose_device, visible_gpus

    return visible_gpus() if choose_device(device) == "cuda" else []


def default_workers(device: str) -> int:
    """Return the default number of local workers: one per GPU if `device` resolves to CUDA, otherwise one per core."""
    return len(gpus(device)) or physical_cores()


def local_cluster(workers: int, gpus: Sequence[str], cuda_cluster: ClusterFactory | None = None) -> Any:
    """Start a cluster of `workers` processes with one thread each.

    Without `gpus`, workers compute on the cores. With several GPUs and at most one worker per GPU, dask-cuda starts
    them if it is installed, each on its own GPU and the cores next to it. Otherwise worker i sees GPU i modulo the
    number of GPUs, so several workers may share one. `cuda_cluster` replaces dask-cuda's `LocalCUDACluster`.
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
    """`workers` local processes, the i-th of which sees only the GPU `gpus[i % len(gpus)]`.

    A worker that is restarted after a crash sees the same GPU.
    """

    def __init__(self, workers: int, gpus: Sequence[str], security: Security) -> None:
        self._gpus = list(gpus)
        # The limit that `LocalCluster` computes itself when it knows the number of workers.
        limit = parse_memory_limit("auto", 1, workers, logger=logging.getLogger(__name__))
        super().__init__(n_workers=0, processes=True, memory_limit=limit, security=security, **OPTIONS)
        self.scale(workers)
        self.sync(self._correct_state)

    def new_worker_spec(self) -> dict[int, dict[str, Any]]:
        """Return the name of the next worker, a number from 0, and how to start it."""
        ((name, spec),) = super().new_worker_spec().items()
        gpu = self._gpus[name % len(self._gpus)]
        return {name: {**spec, "options": {**spec["options"], "env": {"CUDA_VISIBLE_DEVICES": gpu}}}}
