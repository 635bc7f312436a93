"""The imported tables of a store: which files belong to which source.

    imports/<source>.json              the manifest of a source: where it is from, and its files
    <table>/<source>/<digest>.parquet  its rows, under a digest of what was imported
    <table>/<kind>/<file>.parquet      what was imported before there were manifests: a source each

A source is one imported file. Replacing its manifest, one rename, replaces all of its tables at once. A file of that
name which no manifest lists is left from a stopped import: it is never read, and the next import removes it.
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
# Those that there were before there were manifests.
_OLDER_TABLES = TABLES[:3]
# The kinds of files before there were manifests, when each had a folder in each table. Later kinds have none.
_OLDER_KINDS = ("csv", "parquet", "nasbench101", "nasbench201", "nats-bench", "suite-zero")
# Kinds whose data sets people have spelled, stored as they were before there was one rule for names.
_SPELLED = ("csv", "parquet")

#: Names of sources; those of older imports that share a folder are `<kind>/<file>` besides.
SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OWN_NAME = re.compile(r"[0-9a-f]{32}\.parquet")
#: Names of the columns of one's own, of the table `columns`.
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_OLDER_PATH = re.compile(
    rf"({'|'.join(_OLDER_TABLES)})/({'|'.join(_OLDER_KINDS)})/[A-Za-z0-9_-][A-Za-z0-9._-]*\.parquet"
)


class ImportedFile(NamedTuple):
    """A Parquet file of a source. `parts` lead to it from the root: table, folder, name.

    `spelled` says that its data sets are as somebody spelled them.
    """

    source: str
    parts: tuple[str, str, str]
    spelled: bool = False


@dataclass(frozen=True)
class Manifest:
    """What `imports/<source>.json` says: the imported file and its rows, and the file and rows of each table.

    `content` is a digest of what was imported, `datasets` the data sets by space. Of the table `columns` it also names
    the columns. `replaces` are files of the same import from before there were manifests, below the root: no longer
    read.
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
        """By table, the parts of its file."""
        return {table: (table, self.source, str(held["file"])) for table, held in self.tables.items()}

    @property
    def rows(self) -> dict[str, int]:
        """By table, the number of its rows."""
        return {table: int(held["rows"]) for table, held in self.tables.items()}

    @property
    def columns(self) -> list[str]:
        """The names of the columns of one's own that it brings."""
        return list(self.tables.get("columns", {}).get("columns", []))


def manifest_names(store: Store) -> list[str]:
    """The sources that have a manifest, sorted."""
    stems = (name.removesuffix(".json") for name in store.names(FOLDER) if name.endswith(".json"))
    return sorted(stem for stem in stems if SOURCE_NAME.fullmatch(stem))


def read_manifest(store: Store, source: str) -> Manifest:
    """The manifest of a source. Raises `HnasError` where it is missing or damaged."""
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
    """The columns of one's own as (source, name), sorted, each name once. Raises `HnasError` for a damaged manifest."""
    manifests = [read_manifest(store, source) for source in manifest_names(store)]
    found = {name: manifest.source for manifest in reversed(manifests) for name in manifest.columns}
    return sorted((source, name) for name, source in found.items())


def imported_files(store: Store) -> dict[str, list[ImportedFile]]:
    """By table, the Parquet files of all sources, ordered by source.

    Raises `HnasError` for a damaged manifest, and for a file that one lists and the store has not.
    """
    manifests = [read_manifest(store, source) for source in manifest_names(store)]
    found = older_files(store, {path for manifest in manifests for path in manifest.replaces})
    for manifest in manifests:
        for table, parts in manifest.files.items():
            if not store.exists(*parts):
                raise HnasError(
                    f"{store.path(*parts)} is missing, which {FOLDER}/{manifest.source}.json lists; import "
                    f"{manifest.file} again, or `hnas rm {manifest.source}`"
                )
            found[table].append(ImportedFile(manifest.source, parts))
    return {table: sorted(listed) for table, listed in found.items()}


def sweep(store: Store, *, source: str | None = None) -> None:
    """Remove files of imports that no manifest lists: of all sources, or of one. Under the lock of `imports/`.

    What cannot be removed stays, and is not read either way.
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
    """Remove a file of the store, and the folder that it leaves empty, unless a link is on the way or it fails."""
    with contextlib.suppress(OSError, HnasError):
        store.refuse_links(*parts)
        store.fs.rm_file(store.path(*parts))
        if store.local and not store.names(*parts[:-1]):
            store.fs.rmdir(store.path(*parts[:-1]))


def older_files(store: Store, replaced: Collection[str]) -> dict[str, list[ImportedFile]]:
    """By table, the files that were imported before there were manifests, but for those that have been `replaced`.

    A folder of a kind that several files share is not one source: each file is. A folder of another name, which
    somebody filled by hand, is.
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
    found: dict[str, list[ImportedFile]] = {table: [] for table in TABLES}
    for table, folder, name in placed:
        alone = folder not in taken and (folder not in _OLDER_KINDS or len(members[folder]) == 1)
        source = folder if alone else f"{folder}/{name.removesuffix('.parquet')}"
        found[table].append(ImportedFile(source, (table, folder, name), folder in _SPELLED))
    return found
