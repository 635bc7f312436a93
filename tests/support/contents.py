"""The contents of a store: its files, and its rows as SQL reads them."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

from hnas.pipeline.catalog.views import connect
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas


def matching(store: Store, *parts: str) -> list[str]:
    """The paths in a store that match a pattern, sorted; `*`, `?` and `[` of the root itself are taken literally."""
    tail = "/".join(parts)
    pattern = glob.escape(store.url(*parts).removesuffix(tail)) + tail
    found = glob.glob(pattern, include_hidden=True) if store.local else store.fs.glob(pattern)  # noqa: PTH207
    return sorted(map(str, found))


def snapshot(folder: Path | str, pattern: str = "**/*") -> dict[str, tuple[int, bytes]]:
    """The modification time and content of every file below a folder."""
    root = Path(folder)
    found = (path for path in root.glob(pattern) if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def query(store: Store, text: str) -> list[tuple[Any, ...]]:
    return connect(Store(store.location)).execute(text).fetchall()


def files_of(store: Store) -> dict[str, bytes]:
    found = (path for path in Path(store.root).rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(store.root)): path.read_bytes() for path in found}


def rows(store: Path, query: str = "FROM accuracies") -> list[dict[str, object]]:
    done = hnas("sql", query, "--format", "json", "--store", store)
    assert done.status == 0, done.err
    return json.loads(done.out)
