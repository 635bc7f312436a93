"""What an import tells besides its counts: that accuracies are of data sets of which the store has no run."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from hnas.errors import HnasError
from hnas.pipeline.importers import Imported
from hnas.pipeline.importers.sources import WRITTEN
from hnas.pipeline.io.dataset_names import KNOWN, canonical_dataset, missing_datasets
from hnas.pipeline.store.run import runs_of
from hnas.pipeline.store.shipped_tables import runs_beside
from hnas.pipeline.store.store import Store


def hints(store: Store, done: Imported, also: Iterable[Store] = ()) -> list[str]:
    """A sentence for each space of what was imported whose runs have none of its data sets.

    Where people wrote the file, one such data set is enough: it may be misspelled. A store without runs gives none, for
    there the accuracies came first.
    """
    runs = _datasets_of_runs(store, also)
    said = []
    for space, names in sorted(done.datasets.items()) if runs else ():
        having = runs.get(space, set())
        missing = {name for name in names if name not in {canonical_dataset(found) for found in having}}
        if len(missing) < len(names):
            # Beside accuracies on the run's own data set, which are found, those on another known one are reported.
            missing = missing - set(KNOWN) if done.kind in WRITTEN else set()
        if missing:
            said.append(missing_datasets(space, missing, having))
    return said


def _datasets_of_runs(store: Store, also: Iterable[Store]) -> dict[str, set[str]]:
    """By space, the data sets of the runs of the store and of those read along with it."""
    found: dict[str, set[str]] = {}
    with suppress(HnasError):  # a damaged run is told by whoever reads it
        for run in (*runs_of(store), *runs_beside(store, also).values()):
            if run.recorded:
                settings = run.read_record().get("settings")
                if isinstance(settings, dict):
                    found.setdefault(str(settings.get("space")), set()).add(str(settings.get("dataset")))
    return found
