"""Hints after an import: the store has no run on the data sets of the imported accuracies."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from hnas.errors import HnasError
from hnas.pipeline.importers import Imported
from hnas.pipeline.io.dataset_names import KNOWN, canonical_dataset, missing_datasets
from hnas.pipeline.io.importers import BENCHMARKS
from hnas.pipeline.store.run import runs_of
from hnas.pipeline.store.shipped_tables import runs_beside
from hnas.pipeline.store.store import Store


def hints(store: Store, done: Imported, also: Iterable[Store] = ()) -> list[str]:
    """Return one sentence per imported space whose runs have none of the imported data sets.

    If people wrote the file, a single such data set is enough, since it may be misspelled. A store without runs gives
    no hints, because there the accuracies came first.
    """
    runs = _datasets_of_runs(store, also)
    sentences = []
    for space, names in sorted(done.datasets.items()) if runs else ():
        present = runs.get(space, set())
        missing = {name for name in names if name not in {canonical_dataset(stored) for stored in present}}
        if len(missing) < len(names):
            # If some rows match the run's data set, other known data sets are not worth a hint.
            missing = set() if done.kind in BENCHMARKS else missing - set(KNOWN)
        if missing:
            sentences.append(missing_datasets(space, missing, present))
    return sentences


def _datasets_of_runs(store: Store, also: Iterable[Store]) -> dict[str, set[str]]:
    """Return the data sets, by space, of the runs in the store and in the stores read together with it."""
    datasets: dict[str, set[str]] = {}
    with suppress(HnasError):  # the commands that read the run report its damage
        for run in (*runs_of(store), *runs_beside(store, also).values()):
            if run.recorded:
                settings = run.read_record().get("settings")
                if isinstance(settings, dict):
                    datasets.setdefault(str(settings.get("space")), set()).add(str(settings.get("dataset")))
    return datasets
