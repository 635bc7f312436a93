"""Importers of benchmark files. Each is a small module that yields one common table of accuracies.

An importer reads a file into `Accuracies`, complete and checked, before anything of it is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from hnas.errors import UsageError
from pipeline.importers.csv import read_csv
from pipeline.store import Store, digest

#: The common table after import: one row for each training.
SCHEMA = pa.schema(
    [
        ("space", pa.string()),
        ("arch", pa.string()),
        ("dataset", pa.string()),
        ("epochs", pa.int32()),
        ("seed", pa.int64()),
        ("train_accuracy", pa.float64()),
        ("valid_accuracy", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("seconds", pa.float64()),
    ]
)

IMPORTERS: dict[str, Callable[[Path], dict[str, list[object]]]] = {"csv": read_csv}


@dataclass(frozen=True)
class Imported:
    """What an import did: rows in the file, architectures among them, and whether the store changed."""

    rows: int
    architectures: int
    changed: bool


def import_accuracies(store: Store, source: str, path: Path) -> Imported:
    """Read the file at `path` with the importer `source`, and store its accuracies.

    A file is known by its name: importing it again changes nothing, importing a changed file of that name replaces its
    rows. Raises `UsageError` for an unknown source and for every fault of the file, named with its line; then the
    store is as it was before.
    """
    if source not in IMPORTERS:
        raise UsageError(f"there is no importer {source!r}; choose from {', '.join(IMPORTERS)}")
    store.check_version()
    table = pa.table(IMPORTERS[source](path), schema=SCHEMA)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem)
    place = ("accuracies", source, f"{readable}-{digest(path.name, size=4)}.parquet")
    before = store.read_tables(SCHEMA.names, *place)
    changed = before is None or not before.equals(table)
    if changed:
        store.prepare()
        store.write_table(table, *place)
    return Imported(table.num_rows, len(table["arch"].unique()), changed)
