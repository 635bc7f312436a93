"""Writes the tables of one imported file into the store: all of them, or none."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hnas.errors import HnasError
from hnas.pipeline.importers.protocol import Rows
from hnas.pipeline.io.checksums import notes, seal
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.manifests import (
    FOLDER,
    TABLES,
    Manifest,
    imported_columns,
    manifest_names,
    read_manifest,
    remove_file,
    sweep,
)
from hnas.pipeline.store.store import Aside, Store, digest

#: Rows per row group, and the most rows of a table that wait in memory.
ROW_GROUP = 100_000


class TableWriters:
    """Writes the rows of the file `file` of kind `kind` as the source `source`; `content` is a digest of the file.

    Rows go to temporary files in row groups, so memory does not grow with the file, apart from a few hundred bytes per
    distinct architecture, needed to count them. `keep` moves the files into the store under new names, then writes the
    manifest that lists them. Without `keep`, nothing is left when the context ends. Raises `HnasError` if the store
    cannot be written.
    """

    def __init__(self, store: Store, source: str, kind: str, file: str, content: str) -> None:
        self._store = store
        self._source, self._kind, self._file, self._content = source, kind, file, content
        # New content never overwrites a file that a manifest may list; without a digest the name is random.
        name = digest(content, size=16) if content else uuid.uuid4().hex
        self._places = {table: (table, source, f"{name}.parquet") for table in TABLES}
        self._stack = ExitStack()
        self._asides: dict[str, Aside] = {}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[pa.RecordBatch]] = {}
        self._rows: dict[str, int] = {}
        self._architectures: set[str] = set()
        self._datasets: dict[str, set[str]] = {}
        self._columns: list[str] = []

    def write(self, rows: Rows) -> None:
        """Add rows of one table."""
        table, batch = rows
        self._architectures.update(batch["arch"].unique().to_pylist())
        pairs = pa.Table.from_batches([batch]).group_by(["space", "dataset"]).aggregate([])
        for space, dataset in zip(pairs["space"].to_pylist(), pairs["dataset"].to_pylist(), strict=True):
            self._datasets.setdefault(space, set()).update([dataset] if dataset is not None else [])
        self._waiting.setdefault(table, []).append(batch)
        if sum(waiting.num_rows for waiting in self._waiting[table]) >= ROW_GROUP:
            self._flush(table, rest=False)

    def _flush(self, table: str, *, rest: bool) -> None:
        """Write the complete row groups among the waiting rows; with `rest`, also what is left."""
        if not self._waiting[table]:  # the rows so far filled whole row groups
            return
        rows = pa.Table.from_batches(self._waiting[table])
        with self._store.writing(self._store.path(*self._places[table])):
            if table not in self._writers:
                self._open(table, rows.schema)
            while rows.num_rows >= ROW_GROUP or (rest and rows.num_rows):
                group, rows = rows.slice(0, ROW_GROUP), rows.slice(ROW_GROUP)
                self._writers[table].write_table(group, row_group_size=ROW_GROUP)
                self._rows[table] = self._rows.get(table, 0) + group.num_rows
        self._waiting[table] = rows.to_batches()

    def _open(self, table: str, schema: pa.Schema) -> None:
        aside = self._stack.enter_context(self._store.aside(*self._places[table]))
        self._asides[table] = aside
        writer = pq.ParquetWriter(aside.file, schema, compression="zstd")
        self._stack.callback(_abandon, writer)
        self._writers[table] = writer
        if table == "columns":
            self._columns = [name for name in schema.names if name not in ("space", "arch", "dataset")]

    def finish(self, replaces: list[str]) -> Manifest:
        """Close the files and return their manifest; `replaces` lists older files of the same trainings."""
        for table in self._waiting:
            self._flush(table, rest=True)
        for table, writer in self._writers.items():
            with self._store.writing(self._store.path(*self._places[table])):
                writer.add_key_value_metadata(notes("/".join(self._places[table])))
                writer.close()
                seal(self._asides[table].file)
                self._asides[table].seal()
        return Manifest(
            source=self._source,
            kind=self._kind,
            file=self._file,
            content=self._content,
            architectures=len(self._architectures),
            datasets={space: sorted(names) for space, names in sorted(self._datasets.items())},
            tables={
                table: {"file": self._places[table][-1], "rows": rows}
                | ({"columns": self._columns} if table == "columns" else {})
                for table, rows in sorted(self._rows.items())
            },
            replaces=replaces,
        )

    def unchanged(self, stored: Mapping[str, tuple[str, ...]]) -> bool:
        """Return whether the files `stored`, by table, already hold these rows in this order."""
        return set(stored) == set(self._asides) and all(
            _same_rows(self._store, place, self._asides[table]) for table, place in stored.items()
        )

    def keep(self, manifest: Manifest, before: Manifest | None) -> None:
        """Move the finished files into the store and atomically replace the manifest `before` by `manifest`.

        Raises `HnasError` if another command has taken the name of the source, or of a column, since `before` was read.
        """
        store, source = self._store, self._source
        with locked(store, FOLDER):
            if (read_manifest(store, source) if source in manifest_names(store) else None) != before:
                raise HnasError(
                    f"another command has stored the source {source} in the meantime; run the same command again"
                )
            for held, name in imported_columns(store):
                if held != source and name in self._columns:
                    raise HnasError(
                        f"another command has stored a column {name} in the meantime, in the source {held}; give this "
                        "one another name, or remove that source with `hnas rm`"
                    )
            try:
                for table, aside in self._asides.items():
                    with store.writing(store.path(*self._places[table])):
                        aside.keep()
                store.write_json(asdict(manifest), FOLDER, f"{source}.json")
            except BaseException:
                for table in self._asides:
                    if before is None or self._places[table] not in before.files.values():
                        remove_file(store, *self._places[table])
                raise
            # Without locks, another import may be under way whose files are not listed yet.
            sweep(store, source=None if store.local else source)

    def __enter__(self) -> TableWriters:
        return self

    def __exit__(self, *error: Any) -> None:
        """Delete the temporary files that were not kept."""
        self._stack.__exit__(*error)


def _abandon(writer: pq.ParquetWriter) -> None:
    """Close a writer whose file is dropped, or that is closed already."""
    with suppress(OSError, pa.ArrowException):
        writer.close()


def _same_rows(store: Store, place: tuple[str, ...], aside: Aside) -> bool:
    """Return whether two Parquet files hold the same rows, even if split into different row groups."""
    try:
        with (
            store.fs.open(store.path(*place), "rb") as file,
            pq.ParquetFile(file) as old,
            pq.ParquetFile(aside.name) as new,
        ):
            if old.schema_arrow != new.schema_arrow or old.metadata.num_rows != new.metadata.num_rows:
                return False
            return all(a.equals(b) for a, b in _aligned(old.iter_batches(), new.iter_batches()))
    except (OSError, pa.ArrowException):  # damaged
        return False


def _aligned(left: Iterator[Any], right: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield batches of two streams of equal length, cut at the same rows."""
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        size = min(a.num_rows, b.num_rows)
        yield a.slice(0, size), b.slice(0, size)
        a = a.slice(size) if size < a.num_rows else next(left, None)
        b = b.slice(size) if size < b.num_rows else next(right, None)
