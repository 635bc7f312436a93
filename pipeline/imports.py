"""The imported tables of a store: which files belong to which source.

    imports/<source>.json               the manifest of a source: where it is from, and its files
    <table>/<source>/<digest>.parquet   its rows; the digest is that of the file's content
    <table>/<kind>/<name>.parquet       what was imported before there were manifests: a source each

A source is one imported file. Replacing its manifest, one rename, replaces all of its tables at once: a Parquet file of
that form which no manifest lists is what a stopped import left, and is never read.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hnas.errors import HnasError
from pipeline.store import Store

FOLDER = "imports"
TABLES = ("accuracies", "curves", "proxies")
#: The kinds of files that are imported; before there were manifests each had a folder in each table.
KINDS = ("csv", "parquet", "nasbench101", "nasbench201", "nats-bench", "suite-zero")
# Kinds whose data sets people have spelled, stored as they were before there was one rule for names.
_SPELLED = ("csv", "parquet")

#: Names of sources; those of older imports that share a folder are `<kind>/<file>` besides.
SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTENT_NAME = re.compile(r"[0-9a-f]{32}\.parquet")


class ImportedFile(NamedTuple):
    """A Parquet file of a source. `parts` lead to it from the root: table, folder, name.

    `spelled` says that its data sets are as somebody spelled them.
    """

    source: str
    parts: tuple[str, str, str]
    spelled: bool = False

    def pattern(self, store: Store) -> str:
        """Its address for DuckDB, in which nothing stands for other names."""
        root = store.pattern("").rstrip("/")
        return "/".join([root, *map(glob.escape, self.parts)])


@dataclass(frozen=True)
class Manifest:
    """What `imports/<source>.json` says: the imported file and its rows, and the file and rows of each table.

    `content` is a digest of what was imported, `datasets` the data sets by space. `replaces` are files of the same
    import from before there were manifests, below the root: no longer read.
    """

    source: str
    kind: str
    file: str
    content: str
    imported: str
    architectures: int
    datasets: dict[str, list[str]]
    tables: dict[str, dict[str, Any]]
    replaces: list[str] = field(default_factory=list)

    def files(self) -> dict[str, tuple[str, str, str]]:
        """By table, the parts of its file."""
        return {table: (table, self.source, str(held["file"])) for table, held in self.tables.items()}

    def rows(self, table: str) -> int:
        """The number of rows that the source has in `table`."""
        return int(self.tables[table]["rows"]) if table in self.tables else 0


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
        "source": str, "kind": str, "file": str, "content": str, "imported": str, "architectures": int,
        "datasets": dict, "tables": dict, "replaces": list,
    }  # fmt: skip
    if content.keys() != kinds.keys() or any(type(content[name]) is not kind for name, kind in kinds.items()):
        return False
    return (
        content["source"] == source
        and all(
            table in TABLES
            and isinstance(held, dict)
            and held.keys() == {"file", "rows"}
            and type(held["rows"]) is int
            and isinstance(held["file"], str)
            and _CONTENT_NAME.fullmatch(held["file"])
            for table, held in content["tables"].items()
        )
        and all(isinstance(names, list) for names in content["datasets"].values())
        and all(isinstance(path, str) for path in content["replaces"])
    )


def imported_files(store: Store) -> dict[str, list[ImportedFile]]:
    """By table, the Parquet files of all sources, ordered by source.

    Raises `HnasError` for a damaged manifest, and for a file that one lists and the store has not.
    """
    manifests = [read_manifest(store, source) for source in manifest_names(store)]
    found = older_files(store, {path for manifest in manifests for path in manifest.replaces})
    for manifest in manifests:
        for table, parts in manifest.files().items():
            if not store.exists(*parts):
                raise HnasError(
                    f"{store.path(*parts)} is missing, which {FOLDER}/{manifest.source}.json lists; import "
                    f"{manifest.file} again, or `hnas rm {manifest.source}`"
                )
            found[table].append(ImportedFile(manifest.source, parts))
    return {table: sorted(listed) for table, listed in found.items()}


def older_files(store: Store, replaced: Collection[str]) -> dict[str, list[ImportedFile]]:
    """By table, the files that were imported before there were manifests, but for those that have been `replaced`.

    A folder of a kind that several files share is not one source: each file is. A folder of another name, which
    somebody filled by hand, is.
    """
    placed = [
        (table, folder, name)
        for table in TABLES
        for folder in store.names(table)
        if not folder.startswith(".")
        for name in store.names(table, folder)
        if name.endswith(".parquet")
        and not name.startswith(".")
        and not _CONTENT_NAME.fullmatch(name)
        and f"{table}/{folder}/{name}" not in replaced
    ]
    members: dict[str, set[str]] = {}
    for _, folder, name in placed:
        members.setdefault(folder, set()).add(name)
    taken = set(manifest_names(store))
    found: dict[str, list[ImportedFile]] = {table: [] for table in TABLES}
    for table, folder, name in placed:
        alone = folder not in taken and (folder not in KINDS or len(members[folder]) == 1)
        source = folder if alone else f"{folder}/{name.removesuffix('.parquet')}"
        found[table].append(ImportedFile(source, (table, folder, name), folder in _SPELLED))
    return found
