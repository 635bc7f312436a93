"""The tables that ship: stores of finished runs, which are read along with every store and never written.

Whoever opens a store is handed them as `also`, or other read-only stores, or none: nothing is read along on its own.
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
    """The tables in the folders that `$HNAS_TABLES` names, as `$PATH` does; without it those that are installed.

    A folder that is a table itself is taken for one.

    Raises `UsageError` where it names what is no folder.
    """
    named = os.environ.get(VARIABLE)
    folders = [Path(folder) for folder in named.split(os.pathsep) if folder] if named is not None else [_INSTALLED]
    for folder in folders:
        if named and not folder.is_dir():
            raise UsageError(f"${VARIABLE} names {printable(folder)}, and there is no such folder; correct or unset it")
    return [_table(found.parent) for folder in folders for found in _markers(folder)]


def _markers(folder: Path) -> list[Path]:
    own = folder / "store.json"
    return [own] if own.exists() else sorted(folder.glob("*/store.json"))


def _table(folder: Path) -> Store:
    """The store at `folder`, by the shortest path that a command takes here."""
    folder = folder.resolve()
    with suppress(FileNotFoundError, ValueError):  # no folder to work in is left, or the table is not in it
        folder = folder.relative_to(Path.cwd())
    return Store(str(folder), mend=_MEND)


def runs_beside(store: Store, also: Iterable[Store]) -> dict[str, Run]:
    """The runs of the stores `also` by name, from the first that has it, but for those that `store` has itself."""
    found: dict[str, Run] = {}
    for table in also:
        table.check_version()
        runs = [run for run in runs_of(table) if run.recorded and not Run(store, run.name).recorded]
        found = {run.name: run for run in runs} | found
    return found


def find_run(store: Store, name: str, also: Iterable[Store]) -> Run:
    """The run in `store`, or, where that has nothing of it, in one of the stores `also`."""
    run = Run(store, name)
    return run if run.exists() else runs_beside(store, also).get(name, run)


def existing_store(location: str, also: Sequence[Store]) -> Store:
    """The store at `location`, for a command that reads.

    Raises `UsageError` where there is none: a store that somebody names must be there, the default one need not where
    there are stores to read along with it.
    """
    store = Store(location)
    there = Path(store.root).exists() if store.local else store.exists("store.json") or store.exists("runs")
    if not there and (not also or location != DEFAULT_STORE):
        raise UsageError(
            f"there is no store at {printable(location)}, and so no run; `hnas precompute` and `hnas import` make one, "
            "--store and $HNAS_STORE name another"
        )
    return store
