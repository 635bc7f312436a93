"""The names that columns of one's own may not have: those that architectures, metrics and accuracies have already."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hnas.errors import HnasError, UsageError
from hnas.metrics.columns import COLUMNS
from hnas.pipeline.store.manifests import Manifest
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces

_OF_ROWS = ("space", "arch", "dataset")
# Those of the views over runs and searches, and of the pool that a search makes of them.
_OWN = (
    *("run", "run_group", "n_runs", "canonical", "status", "params", "flops", "id", "class", "metric", "performance"),
    *("cost", "source", "query", "objective", "mu", "nu", "own_seconds", "ntk_row", "filename", "epoch", "failure"),
    *("asked", "asks", "elapsed"),
)


def check_names(stores: Iterable[Store], batch: pa.RecordBatch, others: Iterable[Manifest], path: Path) -> None:
    """Raise `UsageError` where a column of `batch`, read from `path`, has a name that something else has.

    That is a column of a store's own tables, a static column of a space in `stores`, or a column of another source.
    """
    sources = {name: f"the source {manifest.source}" for manifest in others for name in manifest.columns}
    taken = dict.fromkeys((*_OWN, *COLUMNS, *SCHEMAS["accuracies"].names), "the view pool")
    for name in _static(stores, batch):
        taken.setdefault(name.lower(), "the view architectures")
    for name in batch.schema.names:
        if name not in _OF_ROWS and (holder := (taken | sources).get(name)):
            remedy = ", or remove that source with `hnas rm`" if name in sources else ""
            raise UsageError(f"{path} has a column {name}, and so has {holder}; give it another name{remedy}")


def _static(stores: Iterable[Store], batch: pa.RecordBatch) -> set[str]:
    """The static columns of the architectures in the stores and of the spaces of the batch."""
    found: set[str] = set()
    for store, space in ((place, space) for place in stores for space in place.folders("architectures")):
        for name in store.files("architectures", space)[:1]:
            with (
                suppress(OSError, pa.ArrowException),
                store.fs.open(store.path("architectures", space, name), "rb") as file,
            ):
                found.update(pq.read_schema(file).names)
    for name in batch["space"].unique().to_pylist():
        arch = batch["arch"][batch["space"].index(name).as_py()].as_py()
        with suppress(HnasError):  # a key taken by its form, which is none, is told when all are read
            found.update(search_spaces[name].describe(arch))
    return found - set(_OF_ROWS)
