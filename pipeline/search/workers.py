"""Evaluations of a search in Dask workers: several trainings at a time, each identical to one in this process."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hnas.optim.evaluations import Evaluation, Oracle
from hnas.pipeline.cluster.executor import cluster_executor, report
from hnas.pipeline.cluster.tls import Certificates
from hnas.pipeline.search.settings import SearchSettings
from hnas.pipeline.store.space_cache import StoreCache
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from hnas.threads import wait_without_spinning

if TYPE_CHECKING:
    # It loads torch, which this process may not need.
    from hnas.pipeline.search.training import Trainer

# Seconds between two reports of a training.
_REPORT_EVERY = 0.5
_NO_CERTIFICATES = Certificates()


@dataclass(frozen=True)
class Cluster:
    """Where evaluations run: on the existing cluster at the address `scheduler`, or on local workers.

    `show` receives the reports of trainings: their `arch`, `epochs`, `done` of `total` steps and `loss`. `notice`
    receives sentences.
    """

    scheduler: str | None = None
    certificates: Certificates = _NO_CERTIFICATES
    device: str = "auto"
    show: Callable[[dict[str, Any]], None] = lambda message: None
    notice: Callable[[str], None] = lambda sentence: None

    def _listen(self, message: dict[str, Any]) -> None:
        if "notice" in message:
            self.notice(message["notice"])
        else:
            self.show(message)

    @contextmanager
    def executor(
        self, oracle: Oracle, store: Store, settings: SearchSettings, size: tuple[int, int, str] | None
    ) -> Iterator[tuple[Executor, Oracle]]:
        """Yield an executor for `settings.parallel` evaluations at a time, and the `oracle` to call there.

        If evaluations are trainings, `size` has the channels, cells and initialisation of the run's networks. Each
        worker then creates its own trainer once.
        """
        topic = f"hnas-{uuid.uuid4().hex[:10]}"
        if size is not None:
            place = store.root if store.local else store.location
            alone = replace(settings, parallel=1)
            oracle = RemoteTrainer(place, json.dumps(alone.as_dict()), *size, self.device, topic)
        if isinstance(search_spaces.cache, StoreCache):
            search_spaces.cache.flush()  # for the workers
        device = self.device if size is not None else "cpu"
        with cluster_executor(
            settings.parallel, self.scheduler, device, self.certificates,
            prepare=wait_without_spinning, topic=topic, listen=self._listen,
        ) as executor:  # fmt: skip
            yield executor, oracle


# A worker of a cluster may have several threads, but each training uses as many threads as requested.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class RemoteTrainer:
    """The training oracle for any process: the arguments of a `Trainer`."""

    store: str
    settings: str
    channels: int
    cells: int
    init: str
    device: str
    topic: str

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        """See `Trainer`."""
        with self._made(arch) as trainer:
            return trainer(arch, epochs)

    def continued(self, arch: str, since: int, epochs: int) -> Evaluation:
        """See `Trainer`."""
        with self._made(arch) as trainer:
            return trainer.continued(arch, since, epochs)

    @contextmanager
    def _made(self, arch: str) -> Iterator[Trainer]:
        with _one_at_a_time:
            trainer, reported = _trainer(self)
            reported.arch = arch
            yield trainer


class _Reported:
    """Reports the progress of consecutive trainings."""

    def __init__(self, topic: str) -> None:
        self._topic, self.arch = topic, ""

    def __call__(self, epochs: int) -> Callable[[int, int, float], None]:
        last = time.monotonic()

        def advance(done: int, total: int, loss: float) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= _REPORT_EVERY:
                last = now
                report(
                    self._topic,
                    {"arch": self.arch, "epochs": epochs, "done": done, "total": total, "loss": loss},
                )

        return advance

    def notice(self, sentence: str) -> None:
        report(self._topic, {"notice": sentence})


@lru_cache(maxsize=1)
def _trainer(job: RemoteTrainer) -> tuple[Trainer, _Reported]:
    """Return the trainer of a search, created once in this process."""
    from hnas.pipeline.search.training import Trainer

    settings = SearchSettings.from_dict(json.loads(job.settings))
    assert settings.training is not None
    store = Store(job.store)
    store.check_version()
    search_spaces.keep_in(StoreCache(store))  # read only
    reported = _Reported(job.topic)
    trainer = Trainer(
        search_spaces[settings.space],
        settings.training,
        channels=job.channels,
        cells=job.cells,
        init=job.init,
        seed=settings.seed,
        device=job.device,
        store=store,
        alike=settings.oracle == "table,train",
        progress=reported,
        notice=reported.notice,
    )
    return trainer, reported
