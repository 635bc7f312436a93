"""Names that user columns must not have, because architectures, metrics or accuracies have them already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hnas.errors import HnasError, UsageError
from hnas.metrics.columns import COLUMNS
from hnas.pipeline.store.manifests import Manifest
from hnas.pipeline.store.run import runs_of
from hnas.pipeline.store.schema import SCHEMAS, TAKEN
from hnas.pipeline.store.scores import recorded_scores
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces

#: The columns of rows themselves.
OF_ROWS = ("space", "arch", "dataset")


def check_names(stores: Iterable[Store], batch: pa.RecordBatch, others: Iterable[Manifest], path: Path) -> None:
    """Raise `UsageError` if a column of `batch`, read from `path`, has a name that is already taken.

    Taken names are the columns of a store's own tables, the static columns of a space, the scores in `stores`, and the
    columns of other sources.
    """
    stores = list(stores)
    sources = {name: f"the source {manifest.source}" for manifest in others for name in manifest.columns}
    taken = dict.fromkeys((*TAKEN, *COLUMNS, *SCHEMAS["accuracies"].names), "the view pool")
    for name in _static(stores, batch):
        taken.setdefault(name.lower(), "the view architectures")
    for name, run in _scores(stores):
        taken.setdefault(name, f"a score of run {run}")
    for name in batch.schema.names:
        if name not in OF_ROWS and (holder := (taken | sources).get(name)):
            remedy = ", or remove that source with `hnas rm`" if name in sources else ""
            raise UsageError(f"{path} has a column {name}, but so does {holder}; give it another name{remedy}")


def _scores(stores: Iterable[Store]) -> Iterator[tuple[str, str]]:
    """Yield each score column in the stores with a run that has it."""
    for run in (run for store in stores for run in runs_of(store)):
        with suppress(HnasError):  # the commands that read the run report a damaged record
            for score in recorded_scores(run, run.read_record() if run.recorded else {}):
                yield from ((column, run.name) for column in (*score.columns, score.seconds))


def _static(stores: Iterable[Store], batch: pa.RecordBatch) -> set[str]:
    """Return the static columns of the architectures in the stores and of the spaces in the batch."""
    names: set[str] = set()
    for store, space in ((place, space) for place in stores for space in place.folders("architectures")):
        for file_name in store.files("architectures", space)[:1]:
            with (
                suppress(OSError, pa.ArrowException),
                store.fs.open(store.path("architectures", space, file_name), "rb") as file,
            ):
                names.update(pq.read_schema(file).names)
    for space_name in batch["space"].unique().to_pylist():
        arch = batch["arch"][batch["space"].index(space_name).as_py()].as_py()
        with suppress(HnasError):  # a malformed key passes here; it is reported once all rows are read
            names.update(search_spaces[space_name].describe(arch))
    return names - set(OF_ROWS)
