"""The tables beside a store: stores in a folder `tables` next to it, whose runs are read along with its own."""

from __future__ import annotations

from pathlib import Path

from hnas.errors import UsageError
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.stored import Stored


def shelf(store: Store) -> dict[str, Store]:
    """The runs of the stores in `tables` beside a local store, each with the one that has it, but for its own runs."""
    found: dict[str, Store] = {}
    if store.local:
        for marker in sorted(Path(store.root).parent.glob("tables/*/store.json")):
            table = Store(str(marker.parent))
            table.check_version()
            runs = [run for run in table.folders("runs") if table.exists("runs", run, "run.json")]
            found |= {run: table for run in runs if not store.exists("runs", run, "run.json")}
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


def place_of(store: Store, run: str) -> Store:
    """The table beside `store` that has the run, where the store has nothing of it itself; else the store."""
    return store if store.exists("runs", run) else shelf(store).get(run, store)


def held(store: Store, run: str) -> Stored:
    """What `store` has of a run, or, where it has nothing of it, a table beside it."""
    return Stored().updated(place_of(store, run), run)
