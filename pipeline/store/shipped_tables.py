"""The tables beside a store: stores in a folder `tables` next to it, whose runs are read along with its own."""

from __future__ import annotations

from pathlib import Path

from hnas.errors import UsageError
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.run import Run, runs_of
from hnas.pipeline.store.store import Store


def shelf(store: Store) -> dict[str, Run]:
    """The runs of the stores in `tables` beside a local store by name, but for those that it has itself."""
    found: dict[str, Run] = {}
    if store.local:
        for marker in sorted(Path(store.root).parent.glob("tables/*/store.json")):
            table = Store(str(marker.parent))
            table.check_version()
            found |= {run.name: run for run in runs_of(table) if run.recorded and not Run(store, run.name).recorded}
    return found


def existing_store(location: str) -> Store:
    """The store at `location`, for a command that reads. Raises `UsageError` where there is neither one nor tables."""
    store = Store(location)
    there = Path(store.root).exists() if store.local else store.exists("store.json") or store.exists("runs")
    if not there and not shelf(store):
        raise UsageError(
            f"there is no store at {printable(location)}, and so no run; `hnas precompute` and `hnas import` make one, "
            "--store and $HNAS_STORE name another"
        )
    return store


def find_run(store: Store, name: str) -> Run:
    """The run in `store`, or, where that has nothing of it, in a table beside it."""
    run = Run(store, name)
    return run if run.exists() else shelf(store).get(name, run)
