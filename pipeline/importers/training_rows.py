"""Rows of trainings from CSV and Parquet files: their columns and checks.

Columns: `arch` and `dataset`, at least one of `train_accuracy`, `valid_accuracy` and `test_accuracy` in percent, and
optionally `space`, `epochs`, `seed` and `seconds`. Without a `space` column, the space is the one that accepts the
first architecture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from hnas.errors import UsageError, did_you_mean
from hnas.pipeline.importers.gathered_rows import GatheredRows, Limits
from hnas.pipeline.io.dataset_names import TEN_CLASSES
from hnas.pipeline.store.schema import ACCURACIES, SCHEMAS

REQUIRED = ("arch", "dataset")
OPTIONAL = ("space", "epochs", "seed", "seconds", *ACCURACIES)


class Trainings(GatheredRows):
    """Rows of `accuracies`; see `GatheredRows`."""

    table = "accuracies"
    key = ("space", "arch", "dataset", "epochs", "seed")
    same = "the same architecture, dataset, epochs and seed; distinguish the trainings by a seed column"
    schema = SCHEMAS["accuracies"]
    limits: Mapping[str, Limits] = {"epochs": (1, 2**31 - 1), "seed": (0, 2**63 - 1), "seconds": (0.0, math.inf)} | (
        dict.fromkeys(ACCURACIES, (0.0, 100.0))
    )

    def __init__(self, path: Path, unit: str) -> None:
        super().__init__(path, unit)
        # The number of accuracies and the highest, by (column, space, data set).
        self._seen: dict[tuple[str, str, str], tuple[int, float]] = {}

    def check_header(self, header: list[str]) -> None:
        """See `GatheredRows`."""
        missing = [name for name in REQUIRED if name not in header]
        if missing or not any(name in header for name in ACCURACIES):
            needed = f"{' and '.join(missing)}" if missing else f"one of {', '.join(ACCURACIES)}"
            raise UsageError(f"{self._path} has no column {needed}; its header is {','.join(header)[:200]}")
        allowed = (*REQUIRED, *OPTIONAL)
        unknown = [name for name in header if name not in allowed]
        if unknown or len(set(header)) < len(header):
            what = f"an unknown column {unknown[0]!r}" if unknown else "the same column twice"
            hint = did_you_mean(unknown[0], allowed) if unknown else ""
            raise UsageError(f"{self._path} has {what}; the columns are {', '.join(allowed)}{hint}")

    def faulty(self, batch: pa.RecordBatch) -> bool:
        """Return whether a training has no accuracy."""
        return bool(pc.any(reduce(pc.and_, (batch[name].is_null() for name in ACCURACIES))).as_py())

    def row_fault(self, values: Mapping[str, object]) -> str | None:
        """See `GatheredRows`."""
        if all(values[name] is None for name in ACCURACIES):
            return f"has no accuracy; fill in at least one of {', '.join(ACCURACIES)}"
        return None

    def taken(self, batch: pa.RecordBatch) -> None:
        """Count the accuracies, for `finish`."""
        rows = pa.Table.from_batches([batch]).group_by(["space", "dataset"])
        wanted = [(name, function) for name in ACCURACIES for function in ("count", "max")]
        for found in rows.aggregate(wanted).to_pylist():
            for name in ACCURACIES:
                if found[f"{name}_count"]:
                    place = (name, found["space"], found["dataset"])
                    count, highest = self._seen.get(place, (0, 0.0))
                    self._seen[place] = count + found[f"{name}_count"], max(highest, found[f"{name}_max"])

    def finish(self) -> None:
        """Check the file as a whole: it has rows, none is repeated, and accuracies are in percent."""
        super().finish()
        for (name, _, dataset), (count, highest) in self._seen.items():
            # A single value may be this low, but not on ten classes, where chance is 10 %.
            alone = count == 1 and dataset in TEN_CLASSES and highest > 0
            if (count > 1 or alone) and highest <= 1:
                raise UsageError(
                    f"{self._path}: no {name} on {dataset} exceeds 1, so they look like fractions; give percent, 0 to "
                    "100"
                )
