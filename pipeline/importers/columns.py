"""User columns: numbers per architecture, such as latencies, from a CSV or Parquet file.

Columns: `arch`; optionally `space` (by default the space that accepts the first architecture) and `dataset` (if the
numbers hold for one data set only). Every other column holds numbers and is empty where the value is unknown. There is
one row per architecture and data set. Column names are a letter a to z, then letters, digits and underscores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from hnas.errors import UsageError
from hnas.pipeline.importers.csv import read_csv
from hnas.pipeline.importers.gathered_rows import TEXT, GatheredRows, Limits
from hnas.pipeline.importers.parquet import read_parquet
from hnas.pipeline.importers.protocol import Advance, Rows
from hnas.pipeline.store.manifests import COLUMN_NAME


def read_columns(path: Path, advance: Advance) -> Iterator[Rows]:
    """Yield the rows of the file in batches. Raises `UsageError` with the line or row of the first error."""
    if path.suffix.lower() == ".parquet":
        return read_parquet(path, advance, OwnColumns)
    if path.suffix.lower() not in (".csv", "") and path.is_file():
        raise UsageError(f"{path} must end in .csv or .parquet")
    return read_csv(path, advance, OwnColumns)


class OwnColumns(GatheredRows):
    """Rows of `columns`; see `GatheredRows`."""

    table = "columns"
    key = ("space", "arch", "dataset")
    same = "the same architecture and dataset; a column has one number for each"

    def __init__(self, path: Path, unit: str) -> None:
        super().__init__(path, unit)
        self._names: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """`space, arch, dataset` (null where the numbers hold for all data sets) and the user's columns."""
        return pa.schema([*((name, pa.string()) for name in TEXT), *((name, pa.float64()) for name in self._names)])

    @property
    def limits(self) -> Mapping[str, Limits]:
        """See `GatheredRows`."""
        return dict.fromkeys(self._names, (-math.inf, math.inf))

    def check_header(self, header: list[str]) -> None:
        """See `GatheredRows`."""
        shown = ",".join(header)[:200]
        self._names = tuple(name for name in header if name not in TEXT)
        if "arch" not in header or not self._names:
            needed = "arch" if "arch" not in header else "of numbers besides arch"
            raise UsageError(f"{self._path} has no column {needed}; its header is {shown}")
        if len(set(header)) < len(header):
            raise UsageError(f"{self._path} has the same column twice; its header is {shown}")
        odd = next((name for name in self._names if not COLUMN_NAME.fullmatch(name)), None)
        if odd is not None:
            raise UsageError(
                f"{self._path} has a column {odd!r:.120}; a column name must be a letter a to z, then letters, digits "
                "and underscores, at most 60 in all, such as edgegpu_latency"
            )
