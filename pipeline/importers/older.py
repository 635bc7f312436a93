"""Imports by older versions: one Parquet file per table, with its origin in the footer."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from hnas.pipeline.store.manifests import TABLES, older_files
from hnas.pipeline.store.store import Store, digest

_NOTE = b"hnas.import"


@dataclass(frozen=True)
class OlderImport:
    """The files of an import by table, and the name of the source that they are read as.

    `content` is the digest of the imported file; it is empty where the files disagree on it.
    """

    source: str
    files: dict[str, tuple[str, str, str]]
    content: str
    rows: dict[str, int]
    architectures: int


def older_import(store: Store, kind: str, file: str, stem: str, replaced: set[str]) -> OlderImport | None:
    """Return what the store holds of `file` from before manifests, or None. `stem` is the file's readable stem."""
    name = f"{stem}-{digest(file, size=4)}.parquet"
    listed = older_files(store, replaced)
    older = {t: f for t in TABLES for f in listed[t] if f.parts == (t, kind, name)}
    if not older:
        return None
    files = {table: file.parts for table, file in older.items()}
    notes = [_read_note(store, parts) for parts in files.values()]
    note = notes[0]
    if note is None or any(other != note for other in notes) or set(note[1]) != set(files):
        note = ("", {}, 0)
    return OlderImport(next(iter(older.values())).source, files, *note)


def _read_note(store: Store, parts: tuple[str, ...]) -> tuple[str, dict[str, int], int] | None:
    try:
        with store.fs.open(store.path(*parts), "rb") as file:
            note = json.loads((pq.read_metadata(file).metadata or {})[_NOTE])
        content, rows, architectures = note["content"], note["rows"], note["architectures"]
        return str(content), {str(table): int(count) for table, count in rows.items()}, int(architectures)
    except (KeyError, ValueError, TypeError, AttributeError, OSError, pa.ArrowException):
        return None  # written by a still older hnas, or damaged: the import replaces it
