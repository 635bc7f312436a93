"""A latency measurement: its pool of networks, the measured values, and the resulting column.

    latency/<source>-<digest of space and data set>/*.parquet   parts: canonical architectures and their ms
    columns/<source>/*.parquet                                  the column, once all are measured

Parts are saved every few seconds. When the last network is measured, they become the column atomically, as in an
import, and are removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import torch

from hnas.errors import HnasError, UsageError, check_seed, lacks_memory
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import pick_run
from hnas.pipeline.importers.column_names import check_names
from hnas.pipeline.importers.protocol import Rows
from hnas.pipeline.importers.writing import TableWriters
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.latency.timing import LatencySettings, milliseconds, undisturbed
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.manifests import Manifest, manifest_names, read_manifest, remove_file
from hnas.pipeline.store.store import Store, digest, reason_of
from hnas.spaces import SearchSpace, search_spaces

KIND = "latency"
# Seconds between two saved parts, and between two measurements of the machine's drift.
_SAVE_EVERY, _REFERENCE_EVERY = 2.0, 60.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LatencyPool:
    """The architectures to measure with their canonical forms, and the size of the networks.

    `order` maps the distinct canonical forms, shuffled, to an architecture that represents each. `references` are a few
    of them, from the smallest to the largest, that are measured repeatedly.
    """

    space: SearchSpace
    dataset: str
    classes: int
    image_size: int
    archs: tuple[str, ...]
    canonicals: tuple[str, ...]
    order: dict[str, str]
    references: tuple[str, ...]


@dataclass(frozen=True)
class LatencyResult:
    """A measured pool: ms by canonical form, how many were measured now, and the drift of the references.

    `drift` is the smallest and largest relative change of a reference since its first measurement; None if nothing was
    measured.
    """

    settings: LatencySettings
    pool: LatencyPool
    latencies: dict[str, float]
    measured: int
    drift: tuple[float, float] | None


def latency_pool(
    connection: duckdb.DuckDBPyConnection,
    settings: LatencySettings,
    *,
    space: str,
    dataset: str | None = None,
    run: str | None = None,
    where: str | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> LatencyPool:
    """Return a run's architectures that satisfy `where`, or `sample` of them drawn uniformly, in an order by `seed`.

    Raises `UsageError` if there is no such run, or none of its architectures remains.
    """
    search_spaces[space]
    check_seed(seed, "--seed")
    if sample is not None and sample < 1:
        raise UsageError(f"--sample must be at least 1, got {sample}")
    chosen = pick_run(connection, run=run, space=space, dataset=dataset)
    if chosen.settings.space != space:
        raise UsageError(f"run {chosen.name} is of {chosen.settings.space}, not of {space}; name another run")
    pool = RunPool(connection, chosen.name, where=where)
    if not len(pool):
        raise UsageError(f"run {chosen.name} has no architecture to measure{f' with {where:.200}' if where else ''}")
    rows = connection.execute(f"SELECT arch, canonical FROM {pool.table} ORDER BY id").fetchall()
    rng = np.random.default_rng(seed)
    drawn = [rows[i] for i in rng.permutation(len(rows))[:sample]]
    order: dict[str, str] = {}
    for arch, canonical in drawn:
        order.setdefault(canonical, arch)
    sizes = dict(zip(pool.archs, pool.column("params"), strict=True)) if "params" in pool.columns else {}
    ordered = sorted(order, key=lambda canonical: (sizes.get(order[canonical], 0.0), canonical))
    references = dict.fromkeys(ordered[i] for i in (0, len(ordered) // 2, -1))
    archs, canonicals = zip(*sorted(drawn), strict=True)
    assert pool.space is not None
    return LatencyPool(
        pool.space,
        canonical_dataset(chosen.settings.dataset),
        chosen.settings.classes,
        settings.image_size or chosen.settings.image_size,
        archs,
        canonicals,
        order,
        tuple(references),
    )


class LatencySession:
    """A measurement of `pool` with `settings`, to be stored in `store`. Creating it writes nothing.

    Its own `settings` are `settings.for_images` of the pool. `known` holds the latencies already in the store, by
    canonical form. Raises `UsageError` if the column's name is taken, in `store` or in the stores `also`, and
    `HnasError` for a damaged part.
    """

    def __init__(self, store: Store, settings: LatencySettings, pool: LatencyPool, also: Sequence[Store] = ()) -> None:
        self._store, self._pool = store, pool
        self.settings = settings = settings.for_images(pool.dataset, pool.image_size)
        store.check_version()
        self._folder = ("latency", f"{settings.source}-{digest(pool.space.name, pool.dataset, size=4)}")
        others = [read_manifest(store, name) for name in manifest_names(store) if name != settings.source]
        first = self._rows({pool.canonicals[0]: 0.0}).slice(0, 1).combine_chunks().to_batches()[0]
        check_names([store, *also], first, others, Path("this measurement"))
        self._images = torch.randn(
            settings.batch_size, 3, pool.image_size, pool.image_size, generator=torch.Generator().manual_seed(0)
        ).to(settings.device)
        self.known = self._read()

    @property
    def todo(self) -> list[str]:
        """The canonical forms still to be measured: first the references, then the others in shuffled order."""
        return [c for c in dict.fromkeys((*self._pool.references, *self._pool.order)) if c not in self.known]

    def estimate(self) -> float:
        """Estimate the seconds for the remaining networks from the references, which are measured here."""
        with undisturbed(self.settings):
            self._measure(self._pool.references[0])  # the first call includes the libraries' start-up
            begun = time.perf_counter()
            for canonical in self._pool.references:
                self._measure(canonical)
            return (time.perf_counter() - begun) / len(self._pool.references) * len(self.todo)

    def run(self, progress: Progress) -> LatencyResult:
        """Measure the missing latencies and store the column. `progress` receives how many of them are done.

        Raises `HnasError` on an interrupt, if another command measures the same column, or if a network fails.
        """
        self._store.prepare()
        busy = f"another latency measures {self.settings.column} of {self._pool.space.name} into this store; wait"
        with locked(self._store, *self._folder, busy=busy):
            self.known = self._read()
            todo = self.todo
            fresh: dict[str, float] = {}
            try:
                drift = self._measure_all(todo, fresh, progress) if todo else None
            except KeyboardInterrupt:
                self._save(fresh)
                have = len(self._pool.order.keys() & self.known.keys())
                raise HnasError(
                    f"interrupted: {have:,} of {len(self._pool.order):,} networks are measured and kept; run the same "
                    "command again to resume"
                ) from None
            except (HnasError, MemoryError, RuntimeError):
                self._save(fresh)
                raise
            self._save(fresh)
            self._publish()
            if self.known.keys() <= self._pool.order.keys():  # otherwise parts hold networks of a larger pool
                for name in (*self._store.files(*self._folder), ".lock"):
                    remove_file(self._store, *self._folder, name)
        latencies = {canonical: self.known[canonical] for canonical in self._pool.order}
        return LatencyResult(self.settings, self._pool, latencies, len(todo), drift)

    def _measure_all(self, todo: Sequence[str], fresh: dict[str, float], progress: Progress) -> tuple[float, float]:
        """Measure `todo`; `fresh` holds unsaved values. Returns the smallest and largest change of a reference."""
        changes = []
        with undisturbed(self.settings):
            self._measure(todo[0])  # the first call includes the libraries' start-up
            saved = checked = time.monotonic()
            for done, canonical in enumerate(todo, start=1):
                self.known[canonical] = fresh[canonical] = self._measure(canonical)
                progress(done, len(todo))
                if (now := time.monotonic()) - saved > _SAVE_EVERY:
                    self._save(fresh)
                    saved = now
                if now - checked > _REFERENCE_EVERY or done == len(todo):
                    again = [c for c in self._pool.references if c in self.known]
                    changes += [self._measure(c) / self.known[c] - 1 for c in again]
                    checked = time.monotonic()
        return min(changes), max(changes)

    def _measure(self, canonical: str) -> float:
        arch, pool, settings = self._pool.order[canonical], self._pool, self.settings
        network = pool.space.network(
            arch,
            classes=pool.classes,
            channels=pool.space.channels if settings.channels is None else settings.channels,
            cells=pool.space.cells if settings.cells is None else settings.cells,
            seed=0,
        )
        try:
            return milliseconds(network, self._images, settings.repeats)
        except RuntimeError as error:
            if lacks_memory(error):
                raise
            size = f"{pool.image_size} x {pool.image_size} pixels"
            raise HnasError(
                f"the network {arch:.200} does not run at {size} ({reason_of(error)}); give another --image-size"
            ) from error

    def _read(self) -> dict[str, float]:
        """Return the stored latencies by canonical form, from the column (for this pool) and from parts."""
        latencies: dict[str, float] = {}
        canonical = dict(zip(self._pool.archs, self._pool.canonicals, strict=True))
        before = self._before()
        if before is not None:
            for row in self._stored(before).to_pylist():
                value = row[self.settings.column]
                if row["arch"] in canonical and self._is_mine(row) and value is not None:
                    latencies.setdefault(canonical[row["arch"]], value)
        parts = self._store.read_tables(["canonical", "ms"], *self._folder)
        if parts is not None:
            for name, ms in zip(parts["canonical"].to_pylist(), parts["ms"].to_pylist(), strict=True):
                latencies.setdefault(name, ms)
        return latencies

    def _is_mine(self, row: dict[str, object]) -> bool:
        return (row["space"], row["dataset"]) == (self._pool.space.name, self._pool.dataset)

    def _before(self) -> Manifest | None:
        source = self.settings.source
        if source not in manifest_names(self._store):
            return None
        manifest = read_manifest(self._store, source)
        if manifest.kind != KIND:  # older versions imported files under such names
            raise HnasError(
                f"the source {source} has the rows of {manifest.file}, not latencies; remove it with `hnas rm {source}`"
            )
        return manifest

    def _stored(self, manifest: Manifest) -> pa.Table:
        return self._store.read_table(None, *manifest.files["columns"])

    def _save(self, fresh: dict[str, float]) -> None:
        """Store `fresh` as a part and empty it."""
        if fresh:
            part = pa.table({"canonical": list(fresh), "ms": pa.array(fresh.values(), pa.float64())})
            self._store.write_table(part, *self._folder, f"{digest(*fresh)}.parquet")
            fresh.clear()

    def _rows(self, latencies: dict[str, float]) -> pa.Table:
        """Return the rows of the column for the pool's architectures that have a latency."""
        pool = self._pool
        measured = [(a, latencies[c]) for a, c in zip(pool.archs, pool.canonicals, strict=True) if c in latencies]
        columns = {
            "space": pa.array([pool.space.name] * len(measured), pa.string()),
            "arch": pa.array([arch for arch, _ in measured], pa.string()),
            "dataset": pa.array([pool.dataset] * len(measured), pa.string()),
            self.settings.column: pa.array([ms for _, ms in measured], pa.float64()),
        }
        return pa.table(columns)

    def _publish(self) -> None:
        """Write the column to the store, together with the source's rows of other pools."""
        settings, before, rows = self.settings, self._before(), self._rows(self.known)
        if before is not None:
            stored, measured = self._stored(before), set(self._pool.archs)
            others = [not (self._is_mine(row) and row["arch"] in measured) for row in stored.to_pylist()]
            rows = pa.concat_tables([rows, stored.filter(pa.array(others, pa.bool_())).cast(rows.schema)])
        with TableWriters(self._store, settings.source, KIND, str(settings), "") as writers:
            for batch in rows.combine_chunks().to_batches():
                writers.write(Rows("columns", batch))
            manifest = replace(writers.finish([]), content=settings.content)
            if before is None or not writers.unchanged(before.files):
                writers.keep(manifest, before)
