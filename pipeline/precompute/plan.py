"""The plan of a precomputation: what was requested, what the store already has, and what remains.

A plan is plain data, independent of Dask and progress bars. Making one writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.compute as pc
import torch

from hnas.errors import HnasError, UsageError, check_seed
from hnas.metrics import ENGINE_VERSION
from hnas.pipeline.images import Batch, ImageDataset, further_batch, training_batch
from hnas.pipeline.precompute.architecture_list import read_list
from hnas.pipeline.precompute.score_columns import score_columns
from hnas.pipeline.precompute.worker import Chunk
from hnas.pipeline.store.claim_log import logged
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.manifests import imported_columns
from hnas.pipeline.store.packing import pack
from hnas.pipeline.store.requests import write_missing
from hnas.pipeline.store.run import Run, RunSettings, Stored
from hnas.pipeline.store.scores import (
    FURTHER,
    FURTHER_IMAGES,
    ScoreColumns,
    Scored,
    check_further,
    record_scores,
    recorded_scores,
    scored,
)
from hnas.pipeline.store.shipped_tables import find_run
from hnas.pipeline.store.store import Store
from hnas.spaces import SearchSpace, definition_of
from hnas.spaces.initialise import redrawn

MAX_BATCH = 4096
# A block of `ntk.zarr` is compressed in memory as a whole: at most so many bytes.
_MOST_BLOCK = 2**28
# Rows per block of `ntk.zarr` if chunks have no fixed size. Small, because a chunk consists of whole blocks.
_BLOCK = 8


@dataclass(frozen=True)
class Plan:
    """A precomputation to carry out.

    `requested` lists the requested architectures with their canonical forms, in the order of the request. `done` counts
    their classes that the run has completely; `todo` lists those that lack metrics or a requested score, each with the
    definition of a representative architecture. `repairs` are stored rows that have lost their eigenvalues.
    `chunk_size` is None if the measured speed determines it. `table` is the run in a read-only store, if its rows are
    there. `scored` says which scores are stored, `further` holds the images beside the batch that some scores use, and
    `lacking` counts the classes that lack the metrics and each of the scores.
    """

    settings: RunSettings
    batch: Batch
    requested: tuple[tuple[str, str], ...]
    done: int
    todo: tuple[tuple[str, str], ...]
    chunk_size: int | None
    stored: Stored
    repairs: tuple[Chunk, ...] = ()
    table: Run | None = None
    scores: tuple[ScoreColumns, ...] = ()
    scored: Scored = field(default_factory=Scored)
    further: Batch | None = None
    lacking: tuple[tuple[str, int], ...] = ()

    @property
    def most_chunks(self) -> int:
        """An upper bound on the number of chunks; the largest possible one if their size is measured."""
        return -(-len(self.todo) // (self.chunk_size or 1))

    @property
    def block(self) -> int:
        """The rows per block of `ntk.zarr`, if this plan creates it; a large chunk takes several blocks."""
        most = max(1, _MOST_BLOCK // (8 * self.settings.batch_size**2))  # a block of Gram matrices too is written whole
        return min(self.chunk_size or _BLOCK, most)


def make_plan(
    store: Store,
    space: SearchSpace,
    dataset: ImageDataset,
    *,
    sample: int | None = None,
    architectures: Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
    batch_seed: int | None = None,
    channels: int | None = None,
    cells: int | None = None,
    ntk: str = "summed",
    init: str = "torch",
    chunk_size: int | None = None,
    scores: Sequence[str] = (),
    also: Sequence[Store] = (),
) -> Plan:
    """Plan the metrics and `scores` of `sample` architectures, of those listed in a file, or of the whole space.

    Rows of the run in one of the read-only stores `also` count as the store's own if it has no such run. `seed` draws
    the weights and the sample, `batch_seed` (default: `seed`) the images of the batch. `init` is the distribution that
    weights are drawn from.

    The file `named` means the space's own named architectures, if it has some and there is no such file.

    Raises `UsageError` for invalid sizes, an unreadable list, a space that cannot be enumerated, and a data set whose
    images or classes the networks do not accept; `HnasError` for a damaged store or one of another version.
    """
    if not 2 <= batch_size <= MAX_BATCH:
        raise UsageError(f"--batch-size must be between 2 (κ needs two samples) and {MAX_BATCH}, got {batch_size}")
    if chunk_size is not None and chunk_size < 1:
        raise UsageError(f"--chunk-size must be at least 1, got {chunk_size}")
    check_seed(seed, "--seed")
    batch_seed = seed if batch_seed is None else batch_seed
    check_seed(batch_seed, "--batch-seed")
    store.check_version()
    batch = training_batch(dataset, batch_size, batch_seed)
    settings = _settings(space, batch, dataset, seed, channels, cells, ntk, init)
    requested = tuple((arch, space.canonical(arch)) for arch in _requested(space, sample, architectures, seed))
    # The first network shows whether networks of this size exist and accept the images, before workers start.
    network = space.network(
        requested[0][0],
        classes=settings.classes,
        channels=settings.channels,
        cells=settings.cells,
        seed=seed,
    )
    network = redrawn(network, seed, init)
    with torch.no_grad():
        network(torch.from_numpy(batch.images[:2]))
    run = find_run(store, settings.id, also)
    stored = run.stored(claimed=logged)
    classes: dict[str, str] = {}
    for arch, canonical in requested:
        classes.setdefault(canonical, arch)
    recorded = recorded_scores(run, run.read_record()) if scores and run.recorded else []
    taken = [*space.describe(requested[0][0]), *_own_columns(store)]
    requested_scores = score_columns(scores, taken, recorded)
    further = None
    scores_stored = Scored()
    if requested_scores:
        size = max(batch_size, FURTHER_IMAGES)
        further = further_batch(dataset, size, batch_seed, beside=batch_size)
        scores_stored = scored(run)
        if run.recorded:
            check_further(run, run.read_record(), further)
    keys = [score.key for score in requested_scores]
    todo = tuple(
        (canonical, definition_of(space, arch))
        for canonical, arch in classes.items()
        if canonical not in stored.classes or scores_stored.lacking(keys, canonical)
    )
    lacking = Counter("metrics" for canonical, _ in todo if canonical not in stored.classes)
    lacking.update(key for canonical, _ in todo for key in scores_stored.lacking(keys, canonical))
    table = None if run.store is store else run
    repairs = _repairs(run, space, stored) if table is None else ()
    done = len(classes) - len(todo)
    counts = tuple((what, lacking[what]) for what in ("metrics", *keys))
    return Plan(
        settings,
        batch,
        requested,
        done,
        todo,
        chunk_size,
        stored,
        repairs,
        table,
        requested_scores,
        scores_stored,
        further,
        counts,
    )


def _own_columns(store: Store) -> list[str]:
    return [name for _, name in imported_columns(store)]


def _repairs(run: Run, space: SearchSpace, stored: Stored) -> tuple[Chunk, ...]:
    """Return chunks that recompute lost eigenvalues of stored rows."""
    lost = run.lost(stored)
    named = {canonical: arch for arch, canonical in run.requests().items()} if lost else {}
    return tuple(
        Chunk(tuple((name, definition_of(space, named[name])) for name in classes), row, spectra_only=True)
        for row, classes in lost
        if all(name in named for name in classes)
    )


def _settings(
    space: SearchSpace,
    batch: Batch,
    dataset: ImageDataset,
    seed: int,
    channels: int | None,
    cells: int | None,
    ntk: str,
    init: str,
) -> RunSettings:
    return RunSettings(
        space=space.name,
        dataset=dataset.name,
        batch=batch.digest,
        batch_size=len(batch.labels),
        classes=len(dataset.classes),
        image_size=dataset.size,
        channels=space.channels if channels is None else channels,
        cells=space.cells if cells is None else cells,
        seed=seed,
        ntk=ntk,
        dtype="float32",
        engine=ENGINE_VERSION,
        init=init,
    )


def _requested(space: SearchSpace, sample: int | None, architectures: Path | None, seed: int) -> list[str]:
    if sample is not None and architectures is not None:
        raise UsageError("--sample and --architectures exclude each other; give one of them")
    if architectures is not None:
        return read_list(space, architectures)
    if sample is not None:
        return space.sample(sample, seed)
    if space.size is None:
        raise UsageError(f"the space {space.name} cannot be enumerated; give --sample N or --architectures FILE")
    return list(space.enumerate())


def adopted(store: Store, plan: Plan) -> Plan:
    """Copy the plan's table into `store`, unless it already has the run; return the updated plan.

    New rows are then added to the table's rows, which the store's own run would otherwise hide. Raises the errors of
    `pack`, and `HnasError` if another command began the run without the table.
    """
    run = Run(store, plan.settings.id)
    if plan.table is None:
        return plan
    with locked(store, "architectures", plan.settings.space):  # only one of two concurrent commands copies it
        if not run.recorded:
            if run.exists():  # what a killed command had copied
                store.fs.rm(run.path(), recursive=True)
            pack(plan.table, store, block=plan.block, whole=False)
    stored = run.stored()
    if not plan.stored.classes <= stored.classes:
        raise HnasError(f"another command began run {run.name} while this one started; start the same command again")
    return replace(plan, stored=stored, scored=scored(run), table=None)


def record_request(store: Store, space: SearchSpace, plan: Plan) -> None:
    """Record the plan's architectures: their static columns, and that this run was asked for them."""
    run = Run(store, plan.settings.id)
    asked = run.requests()  # raises for a damaged part before anything is written
    described = dict(plan.requested)
    if run.lost_parts(run.read_record()):
        described |= asked
    with locked(store, "architectures", space.name):
        write_missing(store, tuple(described.items()), space, "architectures", space.name)
    with run.locked():
        if plan.scores:
            record_scores(run, plan.scores, plan.further)
        run.request(plan.requested)


def is_recorded(store: Store, space: SearchSpace, plan: Plan) -> bool:
    """Return whether the run already holds and records everything in the plan, so that nothing is written or locked."""
    run = Run(store, plan.settings.id)
    if plan.todo or plan.repairs or run.exists("drivers"):
        return False
    requested = {arch for arch, _ in plan.requested}
    for folder in (run.place("requests"), ("architectures", space.name)):
        stored = store.read_tables(["arch"], *folder)
        if stored is None or not requested <= set(stored["arch"].to_pylist()):
            return False
    if not run.exists("batch.npz") or not run.recorded:
        return False
    record = run.read_record()
    images = plan.further is None or run.exists(FURTHER)
    return images and set(plan.scores) <= set(recorded_scores(run, record)) and not run.lost_parts(record)


def relative_costs(store: Store, space: SearchSpace, plan: Plan) -> dict[str, float]:
    """Return the expected costs of the networks in `plan.todo` by canonical form: 1 + F / mean F, F multiply-adds.

    F is the minimum over the known members of a class, at the benchmark's own size. The 1 stands for the fixed cost of
    any network. Requires `record_request`. Empty if the space has no column `flops`.
    """
    if not plan.todo or "flops" not in space.describe(plan.requested[0][0]):
        return {}
    stored = store.read_tables(["canonical", "flops"], "architectures", space.name)
    if stored is None:
        return {}
    least = stored.group_by("canonical").aggregate([("flops", "min")])
    mean = pc.mean(least["flops_min"]).as_py() or 1.0
    flops = dict(zip(least["canonical"].to_pylist(), least["flops_min"].to_pylist(), strict=True))
    return {canonical: 1.0 + (flops.get(canonical) or mean) / mean for canonical, _ in plan.todo}
