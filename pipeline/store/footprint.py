"""Size, age and use of each thing in a store, for `hnas rm --dry-run` and `hnas info`."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hnas.errors import HnasError
from hnas.pipeline.io.aside import in_use
from hnas.pipeline.store.manifests import FOLDER as IMPORTS
from hnas.pipeline.store.manifests import TABLES
from hnas.pipeline.store.removal import FOLDERS, held_names, latency_folders
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.trainings import FOLDER as TRAININGS
from hnas.pipeline.store.trainings import stopped


@dataclass(frozen=True)
class Place:
    """A file or folder of a store: its path below the root, its number of files and bytes.

    `changed` is the newest modification time in seconds since 1970, or 0 if the store does not report it. `busy` says
    whether a process on this machine is working in it.
    """

    path: str
    files: int
    bytes: int
    changed: float
    busy: bool


def footprint(store: Store, kind: str, name: str) -> list[Place]:
    """Return where `name` of `kind` (`source`, or a key of `FOLDERS`) is stored. Does not follow links."""
    if kind in FOLDERS:
        paths = [f"{FOLDERS[kind]}/{name}"]
    else:
        paths = [f"{table}/{name}{suffix}" for table in TABLES for suffix in ("", ".parquet")]
        paths += [f"{IMPORTS}/{name}.json", f"{TRAININGS}/{name}"]
        paths += [f"latency/{folder}" for folder in latency_folders(store, name)]
    return [place for path in paths if (place := _place(store, path)) is not None]


def sizes(store: Store) -> list[dict[str, Any]]:
    """Return files, bytes, modification time (UTC), use and completeness by kind and name.

    `complete` is None if the thing's own files do not show it: for runs, comparisons, and searches with a budget.
    """
    rows = []
    for kind, names in held_names(store).items():
        for name in names:
            places = footprint(store, kind, name)
            changed = max((place.changed for place in places), default=0.0)
            rows.append(
                {
                    "kind": kind,
                    "name": name,
                    "files": sum(place.files for place in places),
                    "bytes": sum(place.bytes for place in places),
                    "changed": datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds") if changed else None,
                    "complete": _complete(store, kind, name),
                    "busy": "yes" if any(place.busy for place in places) else "no",
                }
            )
    return rows


def _complete(store: Store, kind: str, name: str) -> str | None:
    whole: bool | None = None
    with suppress(HnasError):  # damaged
        if kind == "source":
            whole = not (stopped(store, name) or latency_folders(store, name))
        elif kind == "model":
            whole = all(store.exists("models", name, file) for file in ("model.json", "weights.safetensors"))
        elif kind == "search":
            settings = store.read_json("searches", name, "search.json").get("settings")
            asked = settings.get("queries") if isinstance(settings, dict) else None
            if isinstance(asked, int):
                whole = store.read_table(None, "searches", name, "queries.parquet").num_rows >= asked
    return None if whole is None else "yes" if whole else "no"


def footprint_text(described: str, places: list[Place]) -> str:
    """Describe what a removal would remove."""
    lines = [f"would be removed: {described}"]
    lines += [f"  {p.path}: {p.files:,} file{'' if p.files == 1 else 's'}, {p.bytes:,} bytes" for p in places]
    return "\n".join([*lines, "nothing was removed"])


def place_of(folder: str) -> Place:
    """Return the size of any folder on this machine."""
    return _summed(folder, list(_files(folder)), folder)


def _place(store: Store, path: str) -> Place | None:
    whole = store.path(path)
    if store.local:
        files = list(_files(whole))
        return _summed(path, files, whole) if files else None
    sizes = [int(about.get("size") or 0) for about in store.fs.find(whole, detail=True).values()]
    return Place(path, len(sizes), sum(sizes), 0.0, False) if sizes else None


def _summed(path: str, files: list[tuple[str, int, float]], whole: str) -> Place:
    busy = any(_is_held(name) for name, _, _ in files if name.endswith(".lock")) or in_use(Path(whole))
    changed = max((changed for _, _, changed in files), default=0.0)
    return Place(path, len(files), sum(size for _, size, _ in files), changed, busy)


def _files(path: str) -> Iterator[tuple[str, int, float]]:
    """Yield the files at or below `path` with their size and modification time."""
    top = Path(path)
    alone = [top] if top.is_file() or top.is_symlink() else []
    below = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    for file in alone or below:
        with suppress(OSError):  # the file has just been removed
            status = file.lstat()
            yield str(file), status.st_size, status.st_mtime


def _is_held(lock: str) -> bool:
    """Return whether a process holds this lock, without writing anything."""
    with suppress(OSError):
        if Path(lock).is_symlink():
            return False
        handle = os.open(lock, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False
