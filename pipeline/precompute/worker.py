"""The work of a worker: compute the metrics and scores of a chunk of canonical architectures and write its parts.

A chunk's scores and eigenvalues are written first, and the part of its metrics last, by a single rename. The part is
the record that its rows are done, so a worker that dies leaves nothing that counts. A chunk that has only scores has no
other part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from hnas.allocator import give_back_freed_memory, keep_freed_memory
from hnas.devices import Numerics, choose_device, numerics, use_float32
from hnas.errors import HnasError
from hnas.metrics import COLUMNS, Metrics, Pending, queue_metrics
from hnas.metrics.compute import PendingStatistics, queue_statistics
from hnas.pipeline.io.checksums import GRAM_KEPT
from hnas.pipeline.store.claim_log import standing
from hnas.pipeline.store.run import Run, RunSettings
from hnas.pipeline.store.scores import FURTHER, has_part, part_name, stored_row, write_part
from hnas.pipeline.store.store import Store, digest
from hnas.scores.compute import own_score
from hnas.scores.protocol import OwnScore, Score, SharedScore, Subject
from hnas.scores.registry import scores
from hnas.spaces import search_spaces
from hnas.spaces.initialise import redrawn

Images = tuple[np.ndarray, np.ndarray]
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Job:
    """The common settings of all chunks of one `precompute`, sent with each of them.

    `token` names the command. A worker on a cluster may outlive its command, and another command may then have claimed
    its chunk. `further` is the digest of the images beside the batch, empty if there are none.
    """

    store: str
    run: str
    settings: RunSettings
    device: str
    keep_gram: bool
    token: str = ""
    further: str = ""


@dataclass(frozen=True)
class Chunk:
    """A share of the work: (canonical, arch) pairs, the first of their rows in `ntk.zarr`, and the scores to compute.

    The row is −1 for a chunk of scores alone, whose classes have their metrics stored. With `spectra_only`, the rows
    are stored but have lost their eigenvalues; such a chunk writes only these, no part.
    """

    members: tuple[tuple[str, str], ...]
    ntk_row: int
    spectra_only: bool = False
    #: The scores' keys, `name@version`.
    scores: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """The name of the part with its metrics; the same members give the same name."""
        return digest(*self._classes) + ".parquet"

    @property
    def scores_part(self) -> str:
        """The name of the part with its scores."""
        return part_name(self._classes, self.scores)

    @property
    def name(self) -> str:
        """Its unique name among the chunks of a command."""
        return self.part if self.ntk_row >= 0 else self.scores_part

    @property
    def _classes(self) -> tuple[str, ...]:
        return tuple(canonical for canonical, _ in self.members)


@dataclass(frozen=True)
class Done:
    """The result of a chunk, for the driver: the number of stored rows, 0 if its claim was revoked.

    `numerics` is None if nothing was computed.
    """

    rows: int
    seconds: float
    numerics: Numerics | None = None


def prepare_process(device: str) -> None:
    """Make this process compute as all workers do: with one thread, in full float32, and keeping freed memory.

    Results do not depend on how a sum is split, and processes rather than threads fill the machine.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    use_float32("cuda" if device == "auto" and torch.cuda.is_available() else device)


class Tensors(NamedTuple):
    """A run's batch on a device, and the images beside it, if any."""

    images: torch.Tensor
    labels: torch.Tensor
    further: tuple[torch.Tensor, torch.Tensor] | None = None


class Measured(NamedTuple):
    """The results for several architectures, each list in their order.

    `seconds` are the times of the metrics, or without metrics those of the scores' shared passes. `scores` hold the
    numbers by their names in a part, with the seconds of each; a score that shares passes counts all of them.
    """

    metrics: list[Metrics]
    seconds: list[float]
    scores: list[dict[str, float]]


def measure(job: Job, arch: str, batch: Tensors, scores: Sequence[str] = ()) -> Metrics:
    """Return the metrics of one architecture on the run's batch; its scores are computed and discarded."""
    return measure_all(job, [arch], batch, scores).metrics[0]


def measure_all(
    job: Job, architectures: Sequence[str], batch: Tensors, keys: Sequence[str] = (), *, metrics: bool = True
) -> Measured:
    """Return the metrics and scores of several architectures on the run's batch, and the seconds that each took.

    All networks are queued before the first result is read, so that a GPU has work while the host builds the next
    network. The seconds are those of building and queueing, plus an equal share of the wait for the results, so they
    add up to the time of the call. On the CPU, where queueing computes, each row has its own processor time. Scores
    with passes of their own wait for the device.

    Without `metrics`, only the scores are computed, bit-identical to those computed with metrics.
    """
    requested = {key: _score(key) for key in keys}
    shared = {key: cast("SharedScore", score) for key, score in requested.items() if score.shared}
    own = {key: cast("OwnScore", score) for key, score in requested.items() if not score.shared}
    needs = sorted({name for score in shared.values() for name in score.needs})
    clock = _clock(batch.images)
    pending: list[Pending | PendingStatistics] = []
    seconds: list[float] = []
    rows: list[dict[str, float]] = []
    for arch in architectures:
        begun = clock()
        with _naming(arch):
            network = _network(job, arch, batch.images)
            if metrics:
                pending.append(queue_metrics(network, *batch[:2], ntk=job.settings.ntk, statistics=needs))
            elif shared:
                pending.append(queue_statistics(network, *batch[:2], needs, ntk=job.settings.ntk))
        seconds.append(clock() - begun)
        rows.append(_own_scores(job, arch, network, batch, own))
    begun = clock()
    results = []
    for arch, queued in zip(architectures, pending, strict=bool(pending)):
        with _naming(arch):
            results.append(queued.result())
    share = (clock() - begun) / max(1, len(results))
    seconds = [own + share for own in seconds]
    for arch, row, result, spent in zip(architectures, rows, results, seconds, strict=False):
        seen = result.statistics if isinstance(result, Metrics) else result
        for key, score in shared.items():
            with _naming(arch, _called(key)):
                row |= stored_row(key, score.columns, score(seen), spent)
    return Measured([result for result in results if isinstance(result, Metrics)], seconds, rows)


def _clock(images: torch.Tensor) -> Callable[[], float]:
    """Return a clock in seconds: on the CPU this thread's, so that other load on the machine does not count.

    If torch computes in several threads, a thread's clock would miss the others, so wall time is used.
    """
    alone = images.device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def _called(key: str) -> str:
    return f"the score {key.partition('@')[0]}"


def _network(job: Job, arch: str, images: torch.Tensor, **sizes: int) -> nn.Module:
    settings = job.settings
    standard = {name: getattr(settings, name) for name in ("classes", "channels", "cells", "seed")}
    made = {**standard, **sizes}
    network = redrawn(search_spaces[settings.space].network(arch, **made), made["seed"], settings.init)
    # Weights are drawn on the CPU so that they are the same on every device, and copied to a GPU without waiting for
    # the previous networks. The memory is pageable, so the driver has made its own copy by the time a call returns.
    return network.to(device=images.device, dtype=images.dtype, non_blocking=True)


@lru_cache(maxsize=256)
def _score(key: str) -> Score:
    """Return the score that a key names. Raises `HnasError` if this process has another version of it."""
    name, _, version = key.partition("@")
    score = scores[name]
    if score.version != int(version):
        raise HnasError(
            f"the score {name} has version {score.version} on a worker, but version {version} in the command; "
            "install the same hnas on all workers"
        )
    return score


def _own_scores(
    job: Job, arch: str, network: nn.Module, batch: Tensors, own: Mapping[str, OwnScore]
) -> dict[str, float]:
    """Return the numbers and seconds of the scores with passes of their own, by their names in a part."""
    if not own:
        return {}
    build = partial(_network, job, arch, batch.images)
    # Copies, because the images serve all networks of this process, and a score may be third-party code.
    images, labels = batch.images.clone(), batch.labels.clone()
    further = None if batch.further is None else (batch.further[0].clone(), batch.further[1].clone())
    subject = Subject(network, images, labels, further, build, job.settings.seed)
    clock = _clock(batch.images)
    scores_found: dict[str, float] = {}
    for key, score in own.items():
        begun = clock()
        with _naming(arch, _called(key)):
            numbers = own_score(score, subject)
            scores_found |= stored_row(key, score.columns, numbers, clock() - begun)
    return scores_found


@contextmanager
def _naming(arch: str, what: str = "the metrics") -> Iterator[None]:
    """Re-raise errors as `HnasError` with the architecture's name."""
    try:
        yield
    except HnasError as error:
        raise type(error)(f"{what} of {arch} could not be computed: {error}") from error
    except (Exception, SystemExit) as error:  # a score may be third-party code
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, SystemExit):
            reason = f"it ends the process, with {reason}"
        raise HnasError(f"{what} of {arch} could not be computed: {reason}") from error


def batch_tensors(job: Job, *batches: Images) -> Tensors:
    """Return the batch, and the images beside it if any, on the job's device in the run's precision."""
    device, dtype = choose_device(job.device), DTYPES[job.settings.dtype]
    on_device = [
        (torch.from_numpy(images).to(device, dtype), torch.from_numpy(labels).to(device)) for images, labels in batches
    ]
    return Tensors(*on_device[0], *on_device[1:])


def resident_batch(job: Job) -> Tensors:
    """Return the `batch_tensors` of the run's images, read and moved to the device once per process."""
    return _resident_batch(replace(job, token="", keep_gram=False, device=choose_device(job.device)))


@lru_cache(maxsize=2)
def _resident_batch(job: Job) -> Tensors:
    run = _run_of(job)
    further = [run.images(FURTHER, job.further)] if job.further else []
    return batch_tensors(job, run.batch(job.settings.batch), *further)


def _run_of(job: Job) -> Run:
    return Run(Store(job.store), job.run)


def run_chunk(job: Job, chunk: Chunk) -> Done:
    """Compute and store one chunk. Idempotent; stores nothing if no live command claims the chunk."""
    started = time.perf_counter()
    run = _run_of(job)
    metrics = chunk.spectra_only or (chunk.ntk_row >= 0 and not run.has_part(chunk.part))
    keys = () if chunk.scores and has_part(run, chunk.scores_part) else chunk.scores
    if not metrics and not keys:
        return Done(len(chunk.members), 0.0)
    batch = resident_batch(job)
    torch.set_num_threads(1)  # not only per process: oneDNN asks the thread that computes
    measured = measure_all(job, [arch for _, arch in chunk.members], batch, keys, metrics=metrics)
    give_back_freed_memory()
    with standing(run, job.token) as stands:
        if not stands:
            return Done(0, time.perf_counter() - started)
        if keys:
            write_part(run, [canonical for canonical, _ in chunk.members], keys, measured.scores)
        if metrics:
            _write_metrics(run, job, chunk, measured)
    return Done(len(chunk.members), time.perf_counter() - started, numerics(batch.images.device.type))


def _write_metrics(run: Run, job: Job, chunk: Chunk, measured: Measured) -> None:
    eigenvalues = np.stack([m.eigenvalues.numpy() for m in measured.metrics])
    gram = np.stack([m.ntk.numpy() for m in measured.metrics]) if job.keep_gram else None
    run.ntk.write(chunk.ntk_row, eigenvalues, gram)
    if not chunk.spectra_only:
        notes = {GRAM_KEPT: b"yes"} if job.keep_gram else None
        run.write_part(_table(chunk, measured.metrics, measured.seconds), chunk.part, notes)


def run_chunks(task: Callable[[Job, Chunk], Done], job: Job, chunks: list[Chunk]) -> list[Done]:
    """Run `task` on each of the chunks, which form one Dask task."""
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
