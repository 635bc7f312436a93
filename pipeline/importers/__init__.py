"""Importers of benchmark files. Each is a small module that yields rows of the common tables, a batch at a time.

The rows go to files aside, which take their places in the store when the importer came to its end without a fault.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from hnas.errors import HnasError, UsageError
from pipeline.importers.files import content_digest
from pipeline.importers.tables import Advance, Importer
from pipeline.importers.writing import ImportNote, TableWriters
from pipeline.spaces import flush_cache, keep_in
from pipeline.store import Store, digest

#: The importers by the name of their source, as module and function: a command loads the one that it needs.
IMPORTERS = {
    "csv": "pipeline.importers.csv:read_csv",
    "parquet": "pipeline.importers.parquet:read_parquet",
    "nasbench101": "pipeline.importers.nasbench101:read_nasbench101",
    "nasbench201": "pipeline.importers.nasbench201:read_nasbench201",
    "nats-bench": "pipeline.importers.nats_bench:read_nats_bench",
    "suite-zero": "pipeline.importers.suite_zero:read_suite_zero",
}

# A part of what an import is known by: a new number makes the same file be read again.
_VERSION = 1


@dataclass(frozen=True)
class Imported:
    """What a file holds: rows of each table, architectures in all of them; and whether the store changed."""

    rows: int
    curves: int
    proxies: int
    architectures: int
    changed: bool


def _ignore(done: int, total: int) -> None:
    pass


def import_accuracies(store: Store, source: str, path: Path, progress: Advance = _ignore) -> Imported:
    """Read the file at `path` with the importer `source`, and store its accuracies, curves and proxies.

    A file is known by its name: importing it again changes nothing, importing a changed file of that name replaces its
    rows in all tables. `progress` is told how much of the file is read. Raises `UsageError` for an unknown source and
    for every fault of the file, named with its place, and `HnasError` where it is interrupted or the store cannot be
    written; then the store is as it was before.
    """
    if source not in IMPORTERS:
        raise UsageError(f"there is no importer {source!r}; choose from {', '.join(IMPORTERS)}")
    store.check_version()
    keep_in(store)
    content = content_digest(path, f"{source} {_VERSION}")
    name = path.absolute().name
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", path.absolute().stem)
    writers = TableWriters(store, source, f"{readable}-{digest(name, size=4)}.parquet")
    known = writers.stored_note()
    if known is not None and known.content == content:
        return _imported(known, changed=False)
    with writers:
        try:
            for rows in _load(source)(path, progress):
                writers.write(rows)
            note = writers.finish(content)
        except KeyboardInterrupt:
            raise HnasError(f"interrupted: nothing of {path} was imported") from None
        changed = not writers.unchanged()
        if changed:
            store.prepare()
            writers.keep()
            flush_cache()
    return _imported(note, changed=changed)


def _load(source: str) -> Importer:
    module, _, function = IMPORTERS[source].partition(":")
    return cast(Importer, getattr(import_module(module), function))


def _imported(note: ImportNote, *, changed: bool) -> Imported:
    rows, curves, proxies = (note.rows.get(table, 0) for table in ("accuracies", "curves", "proxies"))
    return Imported(rows, curves, proxies, note.architectures, changed)
