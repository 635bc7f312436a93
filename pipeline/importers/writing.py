"""The tables of one imported file on their way into the store: all of them, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.importers.tables import SCHEMAS, Rows
from pipeline.store import Aside, Store

#: Rows of a row group, and the most that wait in memory for each table.
ROW_GROUP = 100_000

_KEY = b"hnas.import"


@dataclass(frozen=True)
class ImportNote:
    """What the Parquet files say of their import: a digest of the imported content, and what it holds."""

    content: str
    rows: dict[str, int]
    architectures: int


class TableWriters:
    """Writes rows to `<table>/<source>/<name>` for each table that they belong to.

    Files grow aside, in row groups, so that memory does not grow with them (but by some hundred bytes for each distinct
    architecture, to count them). `keep` puts them into their places; without it, nothing is left when the
    context ends.
    Raises `HnasError` where the store cannot be written.
    """

    def __init__(self, store: Store, source: str, name: str) -> None:
        self._store = store
        self._places = {table: (table, source, name) for table in SCHEMAS}
        self._stack = ExitStack()
        self._asides: dict[str, Aside] = {}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[pa.RecordBatch]] = {}
        self._rows: dict[str, int] = {}
        self._architectures: set[str] = set()

    def write(self, rows: Rows) -> None:
        """Add rows of one table."""
        table, batch = rows
        self._architectures.update(batch["arch"].unique().to_pylist())
        self._waiting.setdefault(table, []).append(batch)
        if sum(waiting.num_rows for waiting in self._waiting[table]) >= ROW_GROUP:
            self._flush(table, rest=False)

    def _flush(self, table: str, *, rest: bool) -> None:
        """Write whole row groups of what waits, and the rest where `rest` says so."""
        rows = pa.Table.from_batches(self._waiting[table], SCHEMAS[table])
        with self._store.writing(self._store.path(*self._places[table])):
            if table not in self._writers:
                self._open(table)
            while rows.num_rows >= ROW_GROUP or (rest and rows.num_rows):
                group, rows = rows.slice(0, ROW_GROUP), rows.slice(ROW_GROUP)
                self._writers[table].write_table(group, row_group_size=ROW_GROUP)
                self._rows[table] = self._rows.get(table, 0) + group.num_rows
        self._waiting[table] = rows.to_batches()

    def _open(self, table: str) -> None:
        aside = self._stack.enter_context(self._store.aside(*self._places[table]))
        self._asides[table] = aside
        writer = pq.ParquetWriter(aside.file, SCHEMAS[table], compression="zstd")
        self._stack.callback(_abandon, writer)
        self._writers[table] = writer

    def finish(self, content: str) -> ImportNote:
        """Complete the files, and say what they hold; `content` is the digest of what was imported."""
        for table in self._waiting:
            self._flush(table, rest=True)
        note = ImportNote(content, dict(sorted(self._rows.items())), len(self._architectures))
        for table, writer in self._writers.items():
            with self._store.writing(self._store.path(*self._places[table])):
                writer.add_key_value_metadata({_KEY: json.dumps(asdict(note)).encode()})
                writer.close()
                self._asides[table].seal()
        return note

    def stored_note(self) -> ImportNote | None:
        """The note of the files that are in the store, or None where it is missing or not of one import."""
        notes = {table: _read_note(self._store, place) for table, place in self._stored().items()}
        first = next(iter(notes.values()), None)
        if first is None or any(note != first for note in notes.values()) or set(notes) != set(first.rows):
            return None
        return first

    def _stored(self) -> dict[str, tuple[str, ...]]:
        return {table: place for table, place in self._places.items() if self._store.exists(*place)}

    def unchanged(self) -> bool:
        """Whether the store has these rows already, in this order."""
        stored = self._stored()
        return set(stored) == set(self._asides) and all(
            _same_rows(self._store, place, self._asides[table]) for table, place in stored.items()
        )

    def keep(self) -> None:
        """Put the finished files into their places, `accuracies` last; tables that the file has no longer go."""
        for table in reversed(SCHEMAS):
            place = self._store.path(*self._places[table])
            with self._store.writing(place):
                if table in self._asides:
                    self._asides[table].keep()
                elif self._store.exists(*self._places[table]):
                    self._store.fs.rm_file(place)

    def __enter__(self) -> TableWriters:
        return self

    def __exit__(self, *error: Any) -> None:
        """Drop what is not kept."""
        self._stack.__exit__(*error)


def _abandon(writer: pq.ParquetWriter) -> None:
    """Close a writer whose file is dropped, or which is closed already."""
    with suppress(OSError, pa.ArrowException):
        writer.close()


def _read_note(store: Store, place: tuple[str, ...]) -> ImportNote | None:
    try:
        with store.fs.open(store.path(*place), "rb") as file:
            metadata: dict[bytes, bytes] = pq.read_metadata(file).metadata or {}
        return ImportNote(**json.loads(metadata[_KEY]))
    except (KeyError, ValueError, TypeError, OSError, pa.ArrowException):
        return None  # an older hnas wrote it, or it is damaged: the import replaces it


def _same_rows(store: Store, place: tuple[str, ...], aside: Aside) -> bool:
    """Whether two Parquet files hold the same rows, however they are cut into row groups."""
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
    """Batches of two streams of the same length, cut at the same rows."""
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        size = min(a.num_rows, b.num_rows)
        yield a.slice(0, size), b.slice(0, size)
        a = a.slice(size) if size < a.num_rows else next(left, None)
        b = b.slice(size) if size < b.num_rows else next(right, None)
