"""Shipped tables: read-only stores of finished runs, attached to every store.

Callers pass them, or other read-only stores, as `also` when they open a store; nothing is attached implicitly.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from hnas.errors import UsageError
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.run import Run, runs_of
from hnas.pipeline.store.store import DEFAULT_STORE, Store

VARIABLE = "HNAS_TABLES"
_MEND = f"restore it, or have ${VARIABLE} name other tables, or none"
_INSTALLED = Path(str(files("hnas") / "tables"))


def shipped_tables() -> list[Store]:
    """Return the tables in the folders of `$HNAS_TABLES`, a list like `$PATH`; without it the installed tables.

    A folder may also be a table itself. Raises `UsageError` for a path that is not a folder.
    """
    named = os.environ.get(VARIABLE)
    folders = [Path(folder) for folder in named.split(os.pathsep) if folder] if named is not None else [_INSTALLED]
    for folder in folders:
        if named and not folder.is_dir():
            raise UsageError(f"${VARIABLE} names {printable(folder)}, which is not a folder; correct or unset it")
    return [_table(marker.parent) for folder in folders for marker in _markers(folder)]


def _markers(folder: Path) -> list[Path]:
    own = folder / "store.json"
    return [own] if own.exists() else sorted(folder.glob("*/store.json"))


def _table(folder: Path) -> Store:
    """Return the store at `folder`, by the shortest path from the working folder."""
    folder = folder.resolve()
    with suppress(FileNotFoundError, ValueError):  # the working folder is gone, or does not contain the table
        folder = folder.relative_to(Path.cwd())
    return Store(str(folder), mend=_MEND)


def runs_beside(store: Store, also: Iterable[Store]) -> dict[str, Run]:
    """Return the runs of the stores `also` by name, from the first that has each, without those of `store` itself."""
    runs_by_name: dict[str, Run] = {}
    for table in also:
        table.check_version()
        runs = [run for run in runs_of(table) if run.recorded and not Run(store, run.name).recorded]
        runs_by_name = {run.name: run for run in runs} | runs_by_name
    return runs_by_name


def find_run(store: Store, name: str, also: Iterable[Store]) -> Run:
    """Return the run in `store`, or if that has nothing of its own in it, in one of the stores `also`.

    A copy from one of them that was killed before it wrote its record is nothing of the store's own.
    """
    run = Run(store, name)
    table = None if run.recorded else runs_beside(store, also).get(name)
    if table is None or run.exists("drivers") or not set(run.parts()) <= set(table.parts()):
        return run
    return table


def existing_store(location: str, also: Sequence[Store]) -> Store:
    """Return the store at `location` for a command that reads.

    Raises `UsageError` if it does not exist. Only the default store may be missing, if other stores are attached.
    """
    store = Store(location)
    there = Path(store.root).exists() if store.local else store.exists("store.json") or store.exists("runs")
    if not there and (not also or location != DEFAULT_STORE):
        raise UsageError(
            f"there is no store at {printable(location)}; `hnas precompute` and `hnas import` create one, and --store "
            "or $HNAS_STORE names another"
        )
    return store
