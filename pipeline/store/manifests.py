"""Manifests of imported tables: they say which files belong to which source.

    imports/<source>.json              the manifest of a source: its origin and its files
    <table>/<source>/<digest>.parquet  its rows, named by a digest of the imported content
    <table>/<kind>/<file>.parquet      imports from before manifests: one source each

A source is one imported file. Replacing its manifest by a single rename replaces all its tables atomically. A file with
such a name that no manifest lists is left over from an interrupted import: it is never read, and the next import
removes it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store

FOLDER = "imports"
TABLES = ("accuracies", "curves", "proxies", "columns")
# The tables that existed before manifests.
_OLDER_TABLES = TABLES[:3]
# The kinds that existed before manifests, when each had a folder in each table.
_OLDER_KINDS = ("csv", "parquet", "nasbench101", "nasbench201", "nats-bench", "suite-zero")
# Kinds of files written by people, whose data sets were stored as spelled before names had a canonical form.
_SPELLED = ("csv", "parquet")

#: Names of sources. Older imports that share a folder are called `<kind>/<file>`.
SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: How the names of trainings and latencies begin, which are sources that no file was imported as.
RESERVED = ("trained-", "latency-")
OWN_NAME = re.compile(r"[0-9a-f]{32}\.parquet")
#: Names of user columns, in the table `columns`.
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_OLDER_PATH = re.compile(
    rf"({'|'.join(_OLDER_TABLES)})/({'|'.join(_OLDER_KINDS)})/[A-Za-z0-9_-][A-Za-z0-9._-]*\.parquet"
)


class ImportedFile(NamedTuple):
    """A Parquet file of a source. `parts` is its path from the root: table, folder, name.

    `spelled` means that its data sets are stored as somebody spelled them.
    """

    source: str
    parts: tuple[str, str, str]
    spelled: bool = False


@dataclass(frozen=True)
class Manifest:
    """The content of `imports/<source>.json`: the imported file, its rows, and the file and rows of each table.

    `content` is a digest of the imported content, `datasets` lists the data sets by space. The entry of the table
    `columns` also lists the column names. `replaces` lists files of the same import from before manifests, as paths
    below the root, which are no longer read.
    """

    source: str
    kind: str
    file: str
    content: str
    architectures: int
    datasets: dict[str, list[str]]
    tables: dict[str, dict[str, Any]]
    replaces: list[str] = field(default_factory=list)

    @property
    def files(self) -> dict[str, tuple[str, str, str]]:
        """The path parts of the file of each table."""
        return {table: (table, self.source, str(held["file"])) for table, held in self.tables.items()}

    @property
    def rows(self) -> dict[str, int]:
        """The number of rows of each table."""
        return {table: int(held["rows"]) for table, held in self.tables.items()}

    @property
    def columns(self) -> list[str]:
        """The names of the user columns."""
        return list(self.tables.get("columns", {}).get("columns", []))


def manifest_names(store: Store) -> list[str]:
    """Return the sources that have a manifest, sorted."""
    stems = (name.removesuffix(".json") for name in store.names(FOLDER) if name.endswith(".json"))
    return sorted(stem for stem in stems if SOURCE_NAME.fullmatch(stem))


def read_manifest(store: Store, source: str) -> Manifest:
    """Return the manifest of a source. Raises `HnasError` if it is missing or damaged."""
    content = store.read_json(FOLDER, f"{source}.json")
    if not _is_manifest(content, source):
        raise HnasError(
            f"{store.path(FOLDER, source)}.json is not the record of the source {source}; it was damaged or copied "
            f"after it was written: `hnas rm {source}` removes it, and importing its file again restores it"
        )
    return Manifest(**content)


def _is_manifest(content: dict[str, Any], source: str) -> bool:
    kinds = {
        "source": str, "kind": str, "file": str, "content": str, "architectures": int,
        "datasets": dict, "tables": dict, "replaces": list,
    }  # fmt: skip
    if content.keys() != kinds.keys() or any(type(content[name]) is not kind for name, kind in kinds.items()):
        return False
    return (
        content["source"] == source
        and all(
            table in TABLES
            and isinstance(held, dict)
            and held.keys() == {"file", "rows", *(["columns"] if table == "columns" else [])}
            and _are_columns(held.get("columns", []))
            and type(held["rows"]) is int
            and isinstance(held["file"], str)
            and OWN_NAME.fullmatch(held["file"])
            for table, held in content["tables"].items()
        )
        and all(isinstance(names, list) for names in content["datasets"].values())
        and all(isinstance(path, str) and _OLDER_PATH.fullmatch(path) for path in content["replaces"])
    )


def _are_columns(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) and COLUMN_NAME.fullmatch(name) for name in names)


def imported_columns(store: Store) -> list[tuple[str, str]]:
    """Return the user columns as sorted (source, name) pairs, each name once. Raises `HnasError` for damage."""
    manifests = [read_manifest(store, source) for source in manifest_names(store)]
    sources = {name: manifest.source for manifest in reversed(manifests) for name in manifest.columns}
    return sorted((source, name) for name, source in sources.items())


def imported_files(store: Store) -> dict[str, list[ImportedFile]]:
    """Return the Parquet files of all sources by table, ordered by source.

    Raises `HnasError` for a damaged manifest, and for a listed file that is missing.
    """
    manifests = [read_manifest(store, source) for source in manifest_names(store)]
    files = older_files(store, {path for manifest in manifests for path in manifest.replaces})
    for manifest in manifests:
        for table, parts in manifest.files.items():
            if not store.exists(*parts):
                raise HnasError(
                    f"{store.path(*parts)} is missing but listed in {FOLDER}/{manifest.source}.json; import "
                    f"{manifest.file} again, or `hnas rm {manifest.source}`"
                )
            files[table].append(ImportedFile(manifest.source, parts))
    return {table: sorted(listed) for table, listed in files.items()}


def sweep(store: Store, *, source: str | None = None) -> None:
    """Remove import files that no manifest lists, of all sources or of one. Requires the lock of `imports/`.

    Files that cannot be removed stay; nothing reads them.
    """
    manifests = [read_manifest(store, name) for name in manifest_names(store)]
    listed = {"/".join(parts) for manifest in manifests for parts in manifest.files.values()}
    for table in TABLES:
        for folder in store.names(table) if source is None else [source]:
            for name in store.names(table, folder):
                if OWN_NAME.fullmatch(name) and f"{table}/{folder}/{name}" not in listed:
                    remove_file(store, table, folder, name)
    for path in {path for manifest in manifests for path in manifest.replaces}:
        remove_file(store, *path.split("/"))


def remove_file(store: Store, *parts: str) -> None:
    """Remove a file of the store and its folder if that becomes empty. Does nothing across links, or on failure."""
    with contextlib.suppress(OSError, HnasError):
        store.refuse_links(*parts)
        store.fs.rm_file(store.path(*parts))
        if store.local and not store.names(*parts[:-1]):
            store.fs.rmdir(store.path(*parts[:-1]))


def older_files(store: Store, replaced: Collection[str]) -> dict[str, list[ImportedFile]]:
    """Return the files imported before manifests by table, except those that have been `replaced`.

    In a folder of a kind that holds several files, each file is a source. A folder of another name, filled by hand, is
    one source.
    """
    placed = [
        (table, folder, name)
        for table in _OLDER_TABLES
        for folder in store.names(table)
        if not folder.startswith(".")
        for name in store.names(table, folder)
        if name.endswith(".parquet")
        and not name.startswith(".")
        and not OWN_NAME.fullmatch(name)
        and f"{table}/{folder}/{name}" not in replaced
    ]
    members: dict[str, set[str]] = {}
    for _, folder, name in placed:
        members.setdefault(folder, set()).add(name)
    taken = set(manifest_names(store))
    files: dict[str, list[ImportedFile]] = {table: [] for table in TABLES}
    for table, folder, name in placed:
        alone = folder not in taken and (folder not in _OLDER_KINDS or len(members[folder]) == 1)
        source = folder if alone else f"{folder}/{name.removesuffix('.parquet')}"
        files[table].append(ImportedFile(source, (table, folder, name), folder in _SPELLED))
    return files
