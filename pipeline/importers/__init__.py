"""Importers of benchmark files. Each is a small module that yields rows of the common tables, a batch at a time.

A new importer is a module here with a function from (path, progress) to rows of `hnas.pipeline.store.schema`, named in
`IMPORTERS`, in the `Literal` of `import` in cli.py, in the table of docs/store.md and in `KINDS` of the hostile files'
test; its data sets go into `hnas.pipeline.io.dataset_names.KNOWN`, and a space of `hnas.spaces` must know its
architectures. The rows go to files aside, which take their places in the store when the importer came to its end
without a fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import cast

from hnas.errors import HnasError, UsageError
from hnas.pipeline.importers.column_names import check_names
from hnas.pipeline.importers.files import content_digest
from hnas.pipeline.importers.older import OlderImport, older_import
from hnas.pipeline.importers.protocol import Advance, Importer
from hnas.pipeline.importers.sources import choose_source, readable
from hnas.pipeline.importers.writing import TableWriters
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.manifests import TABLES, Manifest, manifest_names, read_manifest
from hnas.pipeline.store.store import Store

#: The importers by the kind of their files, as module and function: a command loads the one that it needs.
IMPORTERS = {
    "csv": "hnas.pipeline.importers.csv:read_csv",
    "parquet": "hnas.pipeline.importers.parquet:read_parquet",
    "columns": "hnas.pipeline.importers.columns:read_columns",
    "nasbench101": "hnas.pipeline.importers.nasbench101:read_nasbench101",
    "nasbench201": "hnas.pipeline.importers.nasbench201:read_nasbench201",
    "nats-bench": "hnas.pipeline.importers.nats_bench:read_nats_bench",
    "suite-zero": "hnas.pipeline.importers.suite_zero:read_suite_zero",
}

# A part of what an import is known by: a new number makes the same file be read again.
_VERSION = 1


@dataclass(frozen=True)
class Imported:
    """What a file holds: rows of each table, architectures in all of them; and whether the store changed.

    `rows` are those of accuracies, or of the columns of one's own `columns`.

    `source` is what the store calls it, `replaced` says that it had other rows of it before. `datasets` are those of
    its rows, by space; empty for what older versions imported.
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
    """Read the file at `path` with the importer `kind`, and store its accuracies, curves and proxies.

    The file becomes a source of its own, called `name` or after itself. A file is known by its name: importing it again
    changes nothing, importing a changed file of that name replaces its rows in all tables, at once. `progress` is told
    how much of the file is read. Columns of one's own may not have the names of those in `also`, the stores that are
    read along with this one. Raises `UsageError` for an unknown kind and for every fault of the file, named with
    its place, and `HnasError` where it is interrupted or the store cannot be written; then the store is as it was.
    """
    if kind not in IMPORTERS:
        raise UsageError(f"there is no importer {kind!r}; choose from {', '.join(IMPORTERS)}")
    store.check_version()
    content = content_digest(path, f"{kind} {_VERSION}")
    file, stem = printable(path.absolute().name), printable(path.absolute().stem)
    manifests = [read_manifest(store, source) for source in manifest_names(store)]
    replaced = {older for manifest in manifests for older in manifest.replaces}
    older = older_import(store, kind, file, readable(stem), replaced)
    files = older.files if older else {}
    source = choose_source(store, manifests, kind, file, stem, wanted=name, older=files.values())
    before = next((manifest for manifest in manifests if manifest.source == source), None)
    known = before or older
    if known is not None and content and known.content == content and _is_there(store, known):
        return _imported(known, kind, changed=False)
    with TableWriters(store, source, kind, file, content) as writers:
        try:
            for rows in _load(kind)(path, progress):
                if rows.table == "columns":
                    check_names(
                        [store, *also], rows.batch, [manifest for manifest in manifests if manifest != before], path
                    )
                writers.write(rows)
            manifest = writers.finish(_replaces(store, files.values(), before))
        except KeyboardInterrupt:
            raise HnasError(f"interrupted: nothing of {printable(str(path))} was imported") from None
        if known is not None and writers.unchanged(known.files):
            return _imported(known, kind, changed=False)
        store.prepare()
        writers.keep(manifest, before)
    return _imported(manifest, kind, changed=True, replaced=known is not None)


def _replaces(store: Store, files: Iterable[tuple[str, ...]], before: Manifest | None) -> list[str]:
    """The older files that a new manifest replaces, with those that the one before it replaced and could not remove."""
    kept = [path for path in before.replaces if store.exists(*path.split("/"))] if before else []
    return sorted({"/".join(parts) for parts in files} | set(kept))


def _is_there(store: Store, known: Manifest | OlderImport) -> bool:
    return all(store.exists(*parts) for parts in known.files.values())


def _load(kind: str) -> Importer:
    module, _, function = IMPORTERS[kind].partition(":")
    return cast(Importer, getattr(import_module(module), function))


def _imported(known: Manifest | OlderImport, kind: str, *, changed: bool, replaced: bool = False) -> Imported:
    rows, curves, proxies, columns = (known.rows.get(table, 0) for table in TABLES)
    datasets = known.datasets if isinstance(known, Manifest) else {}
    return Imported(
        rows or columns,
        curves,
        proxies,
        known.columns if isinstance(known, Manifest) else [],
        known.architectures,
        changed,
        known.source,
        kind,
        replaced=replaced,
        datasets=datasets,
    )
