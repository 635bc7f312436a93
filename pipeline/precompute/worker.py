"""What a worker does: compute the metrics of one chunk of canonical architectures and write its part of the run.

The chunk's eigenvalues are written first and its Parquet part last, in one rename: the part is the record that the
chunk is done, so a worker that dies leaves nothing that counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch

from hnas.allocator import give_back_freed_memory, keep_freed_memory
from hnas.devices import Numerics, choose_device, numerics, use_float32
from hnas.errors import HnasError
from hnas.metrics import COLUMNS, Metrics, Pending, queue_metrics
from hnas.pipeline.io.checksums import GRAM_KEPT
from hnas.pipeline.store.claim_log import standing
from hnas.pipeline.store.run import Run, RunSettings
from hnas.pipeline.store.store import Store, digest
from hnas.spaces import search_spaces

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Job:
    """What the chunks of one `precompute` have in common; sent with each of them.

    `token` names the command, which a worker of a cluster may outlive: then another may have claimed its chunk.
    """

    store: str
    run: str
    settings: RunSettings
    device: str
    keep_gram: bool
    token: str = ""


@dataclass(frozen=True)
class Chunk:
    """A share of the work: (canonical, arch) pairs, and the first of its rows in `ntk.zarr`.

    `spectra_only` is for rows that are stored and have lost their eigenvalues: it writes these, and no part.
    """

    members: tuple[tuple[str, str], ...]
    ntk_row: int
    spectra_only: bool = False

    @property
    def part(self) -> str:
        """The name of the chunk's Parquet part: the same members, the same name."""
        return digest(*(canonical for canonical, _ in self.members)) + ".parquet"


@dataclass(frozen=True)
class Done:
    """What a finished chunk tells the driver: the rows that are stored, none where its claim was revoked.

    `numerics` is None where nothing was computed.
    """

    rows: int
    seconds: float
    numerics: Numerics | None = None


def prepare_process(device: str) -> None:
    """Have this process compute as all workers do: in one thread and in full float32, keeping freed memory.

    Results do not depend on how a sum is split, and processes, not threads, fill the machine.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    use_float32("cuda" if device == "auto" and torch.cuda.is_available() else device)


def measure(job: Job, arch: str, images: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """The metrics of one architecture on the run's batch."""
    with _naming(arch):
        return _queue(job, arch, images, labels).result()


def measure_all(
    job: Job, architectures: Sequence[str], images: torch.Tensor, labels: torch.Tensor
) -> tuple[list[Metrics], list[float]]:
    """The metrics of several architectures on the run's batch, and the seconds that each took.

    All are queued before the first result is read, so that a GPU has work while the host builds the next network. The
    seconds are those of building and queueing, plus an equal share of the wait for the results: together, the time of
    the call. On the CPU, where queueing is computing, each row has its own time.
    """
    pending: list[Pending] = []
    seconds: list[float] = []
    for arch in architectures:
        begun = time.perf_counter()
        with _naming(arch):
            pending.append(_queue(job, arch, images, labels))
        seconds.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    results = []
    for arch, queued in zip(architectures, pending, strict=True):
        with _naming(arch):
            results.append(queued.result())
    share = (time.perf_counter() - begun) / max(1, len(results))
    return results, [own + share for own in seconds]


def _queue(job: Job, arch: str, images: torch.Tensor, labels: torch.Tensor) -> Pending:
    settings = job.settings
    network = search_spaces[settings.space].network(
        arch, classes=settings.classes, channels=settings.channels, cells=settings.cells, seed=settings.seed
    )
    # Drawn on the CPU whatever the device, for the same weights everywhere; to a GPU without waiting for the networks
    # before it. The memory is pageable, so that the driver has copied it aside when a call returns.
    network = network.to(device=images.device, dtype=images.dtype, non_blocking=True)
    return queue_metrics(network, images, labels, ntk=settings.ntk)


@contextmanager
def _naming(arch: str) -> Iterator[None]:
    """What fails within is told with the architecture. Raises `HnasError`."""
    try:
        yield
    except HnasError as error:
        raise type(error)(f"the metrics of {arch} could not be computed: {error}") from error
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HnasError(f"the metrics of {arch} could not be computed: {reason}") from error


def batch_tensors(job: Job, images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch on the job's device in the run's precision."""
    device = choose_device(job.device)
    dtype = DTYPES[job.settings.dtype]
    return torch.from_numpy(images).to(device, dtype), torch.from_numpy(labels).to(device)


def resident_batch(job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    """The run's batch as `batch_tensors` gives it, read and moved to the device once for this process."""
    return _resident_batch(replace(job, token="", keep_gram=False, device=choose_device(job.device)))


@lru_cache(maxsize=2)
def _resident_batch(job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    return batch_tensors(job, *_run_of(job).batch(job.settings.batch))


def _run_of(job: Job) -> Run:
    return Run(Store(job.store), job.run)


def run_chunk(job: Job, chunk: Chunk) -> Done:
    """Compute and store one chunk. Done twice, it stores the same part once; it stores none that nobody claims now."""
    started = time.perf_counter()
    run = _run_of(job)
    if not chunk.spectra_only and run.has_part(chunk.part):
        return Done(len(chunk.members), 0.0)
    images, labels = resident_batch(job)
    torch.set_num_threads(1)  # not only the process: oneDNN asks the thread that computes
    results, seconds = measure_all(job, [arch for _, arch in chunk.members], images, labels)
    give_back_freed_memory()
    eigenvalues = np.stack([m.eigenvalues.numpy() for m in results])
    gram = np.stack([m.ntk.numpy() for m in results]) if job.keep_gram else None
    with standing(run, job.token) as stands:
        if not stands:
            return Done(0, time.perf_counter() - started)
        run.ntk.write(chunk.ntk_row, eigenvalues, gram)
        if not chunk.spectra_only:
            notes = {GRAM_KEPT: b"yes"} if job.keep_gram else None
            run.write_part(_table(chunk, results, seconds), chunk.part, notes)
    return Done(len(chunk.members), time.perf_counter() - started, numerics(images.device.type))


def run_chunks(task: Callable[[Job, Chunk], Done], job: Job, chunks: list[Chunk]) -> list[Done]:
    """Do `task` with each of the chunks, which are one Dask task."""
    return [task(job, chunk) for chunk in chunks]


def _table(chunk: Chunk, results: list[Metrics], seconds: list[float]) -> pa.Table:
    return pa.table(
        {
            "canonical": [canonical for canonical, _ in chunk.members],
            **{name: [m.columns()[name] for m in results] for name in COLUMNS},
            "status": [m.status for m in results],
            "seconds": pa.array(seconds, pa.float32()),
            "ntk_row": pa.array(range(chunk.ntk_row, chunk.ntk_row + len(results)), pa.int32()),
        }
    )
