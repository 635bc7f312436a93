"""What older versions imported of a file: a Parquet file in each table, which says in its footer what it is of."""

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
    """The files of an import by table, and the source that they are read as.

    `content` is the digest of what was imported, empty where the files do not agree on it.
    """

    source: str
    files: dict[str, tuple[str, str, str]]
    content: str
    rows: dict[str, int]
    architectures: int


def older_import(store: Store, kind: str, file: str, stem: str, replaced: set[str]) -> OlderImport | None:
    """What the store has of `file` from before there were manifests, or None; `stem` is the file's readable stem."""
    name = f"{stem}-{digest(file, size=4)}.parquet"
    listed = older_files(store, replaced)
    found = {t: f for t in TABLES for f in listed[t] if f.parts == (t, kind, name)}
    if not found:
        return None
    files = {table: file.parts for table, file in found.items()}
    notes = [_read_note(store, parts) for parts in files.values()]
    note = notes[0]
    if note is None or any(other != note for other in notes) or set(note[1]) != set(files):
        note = ("", {}, 0)
    return OlderImport(next(iter(found.values())).source, files, *note)


def _read_note(store: Store, parts: tuple[str, ...]) -> tuple[str, dict[str, int], int] | None:
    try:
        with store.fs.open(store.path(*parts), "rb") as file:
            note = json.loads((pq.read_metadata(file).metadata or {})[_NOTE])
        content, rows, architectures = note["content"], note["rows"], note["architectures"]
        return str(content), {str(table): int(count) for table, count in rows.items()}, int(architectures)
    except (KeyError, ValueError, TypeError, AttributeError, OSError, pa.ArrowException):
        return None  # a still older hnas wrote it, or it is damaged: the import replaces it
