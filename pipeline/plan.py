"""The plan of a precomputation: what was asked for, what the store already has, and the chunks that remain.

A plan is data. It knows neither Dask nor progress bars, and making one writes nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch

from hnas.errors import UsageError, check_seed
from hnas.metrics import ENGINE_VERSION
from hnas.spaces import Named, SearchSpace, definition_of, key_of
from pipeline.images import Batch, ImageDataset, training_batch
from pipeline.ntk import NTKArrays
from pipeline.runs import RunSettings
from pipeline.spaces import keep_in
from pipeline.store import Store, digest
from pipeline.worker import Chunk

MAX_BATCH = 4096


@dataclass(frozen=True)
class Plan:
    """A precomputation to carry out.

    `requested` are the architectures asked for with their canonical forms, in the order asked; `done` the number of
    their classes that the run already holds, `todo` the classes it lacks, each with the definition of an
    architecture that stands for it.
    """

    settings: RunSettings
    batch: Batch
    requested: tuple[tuple[str, str], ...]
    done: int
    todo: tuple[tuple[str, str], ...]
    chunk_size: int
    used_rows: frozenset[int]

    @property
    def chunk_count(self) -> int:
        """The number of chunks that `chunks` yields."""
        return -(-len(self.todo) // self.chunk_size)

    def rows_needed(self, block: int) -> int:
        """Rows of `ntk.zarr` that hold the finished parts and the chunks to come, in blocks of `block` rows."""
        ends = (chunk.ntk_row + len(chunk.members) for chunk in self.chunks(block))
        return max(max(self.used_rows, default=-1) + 1, max(ends, default=0))

    def chunks(self, block: int) -> Iterator[Chunk]:
        """The chunks, each at the first free blocks of `ntk.zarr` that lie together and take it."""
        taken = {row // block for row in self.used_rows}
        needed = -(-self.chunk_size // block)
        first = 0
        for start in range(0, len(self.todo), self.chunk_size):
            while any(b in taken for b in range(first, first + needed)):
                first += 1
            yield Chunk(self.todo[start : start + self.chunk_size], first * block)
            first += needed


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
    chunk_size: int = 16,
) -> Plan:
    """Plan the metrics of `sample` architectures, of those listed in a file, or of the whole space.

    `seed` draws the weights and the sample, `batch_seed` (default: the same) the images of the batch.

    The file `named` means the space's own named architectures, where it has some and there is no such file.

    Raises `UsageError` for sizes that cannot be, an unreadable list, a space that cannot be enumerated, a data set
    whose images or classes the networks do not take; `HnasError` for a store of another version or a damaged one.
    """
    if not 2 <= batch_size <= MAX_BATCH:
        raise UsageError(
            f"--batch-size {batch_size} cannot be; κ needs 2 samples at least, and {MAX_BATCH} is the most"
        )
    if chunk_size < 1:
        raise UsageError(f"--chunk-size {chunk_size} cannot be; a chunk holds 1 architecture or more")
    check_seed(seed)
    batch_seed = seed if batch_seed is None else batch_seed
    check_seed(batch_seed)
    store.check_version()
    keep_in(store)
    batch = training_batch(dataset, batch_size, batch_seed)
    settings = _settings(space, batch, dataset, seed, channels, cells, ntk)
    requested = tuple((arch, space.canonical(arch)) for arch in _requested(space, sample, architectures, seed))
    # A network of the asked size must exist and take the images before workers start: the first one tells.
    network = space.network(
        requested[0][0],
        classes=settings.classes,
        channels=settings.channels,
        cells=settings.cells,
        seed=seed,
    )
    with torch.no_grad():
        network(torch.from_numpy(batch.images[:2]))
    return refreshed(store, space, Plan(settings, batch, requested, 0, (), chunk_size, frozenset()))


def refreshed(store: Store, space: SearchSpace, plan: Plan) -> Plan:
    """The plan with what the store holds of it now."""
    known = store.read_tables(["canonical", "ntk_row"], "runs", plan.settings.id, "metrics", "*.parquet")
    finished = set(known["canonical"].to_pylist()) if known else set()
    classes: dict[str, str] = {}
    for arch, canonical in plan.requested:
        classes.setdefault(canonical, arch)
    return replace(
        plan,
        done=sum(canonical in finished for canonical in classes),
        todo=tuple(
            (canonical, definition_of(space, arch)) for canonical, arch in classes.items() if canonical not in finished
        ),
        used_rows=frozenset(known["ntk_row"].to_pylist() if known else ()),
    )


def _settings(
    space: SearchSpace,
    batch: Batch,
    dataset: ImageDataset,
    seed: int,
    channels: int | None,
    cells: int | None,
    ntk: str,
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
    )


def _requested(space: SearchSpace, sample: int | None, architectures: Path | None, seed: int) -> list[str]:
    if sample is not None and architectures is not None:
        raise UsageError("--sample and --architectures exclude each other; give one of them")
    if architectures is not None:
        return _read_list(space, architectures)
    if sample is not None:
        return space.sample(sample, seed)
    if space.size is None:
        raise UsageError(f"the space {space.name} cannot be enumerated; give --sample N or --architectures FILE")
    return list(space.enumerate())


def _read_list(space: SearchSpace, path: Path) -> list[str]:
    if str(path) == "named" and isinstance(space, Named) and not path.exists():
        return [key_of(space, arch) for arch in space.named().values()]
    try:
        lines = _unquoted(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"the list of architectures {path} cannot be read: {reason}; give one a line") from error
    found: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        arch = line.strip()
        if arch and not arch.startswith("#"):
            try:
                found[key_of(space, arch)] = None
            except UsageError as error:
                raise UsageError(f"{path}, line {number}: {error}") from error
    if not found:
        raise UsageError(f"the list of architectures {path} is empty; give one a line")
    return list(found)


def _unquoted(lines: list[str]) -> list[str]:
    """The lines, read as a CSV file of one column where the first of them is the header `arch`."""
    if not lines or lines[0].strip() != "arch":
        return lines
    return ["", *(row[0] if row else "" for row in csv.reader(lines[1:]))]


def record_request(store: Store, space: SearchSpace, plan: Plan) -> None:
    """Write down the architectures of the plan: their static columns, and that this run was asked for them."""
    run = plan.settings.id
    asked = store.read_tables(["arch"], "runs", run, "requests", "*.parquet")
    _write_missing(store, asked, plan.requested, None, "runs", run, "requests")
    known = store.read_tables(["arch"], "architectures", space.name, "*.parquet")
    _write_missing(store, known, plan.requested, space, "architectures", space.name)


def _write_missing(
    store: Store,
    known: pa.Table | None,
    requested: tuple[tuple[str, str], ...],
    space: SearchSpace | None,
    *folder: str,
) -> None:
    present = set(known["arch"].to_pylist()) if known else set()
    missing = [pair for pair in requested if pair[0] not in present]
    if not missing:
        return
    columns: dict[str, list[object]] = {
        "arch": [arch for arch, _ in missing],
        "canonical": [canonical for _, canonical in missing],
    }
    if space is not None:
        described = [space.describe(arch) for arch, _ in missing]
        columns |= {name: [row[name] for row in described] for name in described[0]}
    store.write_table(pa.table(columns), *folder, digest(*(arch for arch, _ in missing)) + ".parquet")


def open_arrays(store: Store, plan: Plan, *, keep_gram: bool) -> tuple[NTKArrays, int]:
    """The run's `ntk.zarr` with room for the plan, and its block size."""
    arrays = NTKArrays(store, plan.settings.id)
    block = arrays.prepare(plan.settings.batch_size, 0, block=plan.chunk_size, gram=keep_gram)
    arrays.prepare(plan.settings.batch_size, plan.rows_needed(block), block=block, gram=keep_gram)
    return arrays, block
