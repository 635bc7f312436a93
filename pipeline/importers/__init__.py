"""Importers of benchmark files. Each is a small module that yields rows of the common tables, one batch at a time.

To add an importer, write a module here with an `hnas.pipeline.importers.protocol.Importer`, and name it in
`hnas.pipeline.io.importers`. A table of trainings goes through `training_rows.Trainings`, which checks values,
repetitions and units; a benchmark's file through `hnas.pipeline.store.schema`. A data set that hnas has no name for
yet goes into `hnas.pipeline.io.dataset_names.KNOWN`; a space of `hnas.spaces` must know the architectures. The rows
are written to temporary files, which move into the store only once the importer has finished without an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hnas.errors import HnasError
from hnas.pipeline.importers.column_names import check_names
from hnas.pipeline.importers.files import content_digest
from hnas.pipeline.importers.older import OlderImport, older_import
from hnas.pipeline.importers.protocol import Advance, Importer
from hnas.pipeline.importers.sources import choose_source, readable
from hnas.pipeline.importers.writing import TableWriters
from hnas.pipeline.io.importers import importers
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.manifests import TABLES, Manifest, manifest_names, read_manifest
from hnas.pipeline.store.store import Store

# Part of the content digest: a new number makes hnas read the same file again.
_VERSION = 1


@dataclass(frozen=True)
class Imported:
    """The result of an import: the number of rows of each table and of architectures, and whether the store changed.

    `rows` counts accuracies, or for user columns the rows of `columns`.

    `source` is the name of the file in the store; `replaced` is true if the store had other rows of that source before.
    `datasets` lists the data sets of the rows by space; it is empty for imports by older versions.
    """

    rows: int
    curves: int
    proxies: int
    columns: list[str]
    architectures: int
    changed: bool
    source: str
    kind: str
    replaced: bool = False
    datasets: dict[str, list[str]] = field(default_factory=dict)


def _ignore(done: int, total: int) -> None:
    pass


def import_accuracies(
    store: Store,
    kind: str,
    path: Path,
    progress: Advance = _ignore,
    *,
    name: str | None = None,
    also: Sequence[Store] = (),
) -> Imported:
    """Read the file at `path` with the importer `kind` of `importers`, and store its rows.

    The file becomes a source of its own, called `name` or named after the file. Files are identified by name: importing
    the same file again changes nothing, unless its rows in the store are damaged; importing a changed file of that name
    replaces its rows in all tables atomically. `progress` receives how much of the file has been read. User columns
    must not share a name with a column of `also`, the stores read together with this one. Raises `UsageError` for an
    unknown kind and for any error in the file, with its position, and `HnasError` on an interrupt or if the store
    cannot be written. After an error the store is unchanged.
    """
    read: Importer = importers[kind]
    store.check_version()
    content = content_digest(path, f"{kind} {_VERSION}")
    file, stem = printable(path.absolute().name), printable(path.absolute().stem)
    manifests = [read_manifest(store, source) for source in manifest_names(store)]
    replaced = {older for manifest in manifests for older in manifest.replaces}
    older = older_import(store, kind, file, readable(stem), replaced)
    files = older.files if older else {}
    source = choose_source(store, manifests, kind, file, stem, wanted=name, older=files.values())
    before = next((manifest for manifest in manifests if manifest.source == source), None)
    stored = before or older
    whole = stored is not None and _is_whole(store, stored)
    if stored is not None and whole and content and stored.content == content:
        return _imported(stored, kind, changed=False)
    with TableWriters(store, source, kind, file, content) as writers:
        try:
            for rows in read(path, progress):
                if rows.table == "columns":
                    check_names(
                        [store, *also], rows.batch, [manifest for manifest in manifests if manifest != before], path
                    )
                writers.write(rows)
            manifest = writers.finish(_replaces(store, files.values(), before))
        except KeyboardInterrupt:
            raise HnasError(f"interrupted: nothing of {printable(str(path))} was imported") from None
        if stored is not None and whole and writers.unchanged(stored.files):
            return _imported(stored, kind, changed=False)
        store.prepare()
        writers.keep(manifest, before)
    return _imported(manifest, kind, changed=True, replaced=stored is not None)


def _replaces(store: Store, files: Iterable[tuple[str, ...]], before: Manifest | None) -> list[str]:
    """Return the older files that a new manifest replaces, and those its predecessor replaced but could not remove."""
    kept = [path for path in before.replaces if store.exists(*path.split("/"))] if before else []
    return sorted({"/".join(parts) for parts in files} | set(kept))


def _is_whole(store: Store, stored: Manifest | OlderImport) -> bool:
    try:
        for parts in stored.files.values():
            store.verify(*parts)
    except HnasError:
        return False
    return True


def _imported(stored: Manifest | OlderImport, kind: str, *, changed: bool, replaced: bool = False) -> Imported:
    rows, curves, proxies, columns = (stored.rows.get(table, 0) for table in TABLES)
    datasets = stored.datasets if isinstance(stored, Manifest) else {}
    return Imported(
        rows or columns,
        curves,
        proxies,
        stored.columns if isinstance(stored, Manifest) else [],
        stored.architectures,
        changed,
        stored.source,
        kind,
        replaced=replaced,
        datasets=datasets,
    )
