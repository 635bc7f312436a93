"""The arrays of `ntk.zarr` in DuckDB, as Arrow streams that open their Zarr array when a query reads them.

DuckDB asks a registered object for its schema when a view is created, and for its rows when a query runs. A query that
does not use these views costs nothing, not even the import of Zarr.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from hnas.errors import HnasError
from hnas.pipeline.io.checksums import GRAM_KEPT, metadata_of
from hnas.pipeline.store.run import Run

#: Number of array elements in one batch of rows: 8 MiB of float64.
_BATCH = 2**20


#: The views in the schema `files`, and the arrays of `ntk.zarr` behind them.
ARRAYS = {"eigenvalues": "eigenvalues", "grams": "gram"}
# The type of one row: a list of numbers, or nested lists.
_TYPES = {"eigenvalues": pa.list_(pa.float64()), "gram": pa.list_(pa.list_(pa.float64()))}


class ArrayRows:
    """The rows of an array of one run as (ntk_row, nested list), through Arrow's C stream interface.

    Each stream reads the array anew in batches, so memory is bounded and new rows are visible.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name = run, name
        self._schema = pa.schema([("ntk_row", pa.int32()), (name, _TYPES[name])])

    def __arrow_c_schema__(self) -> Any:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return pa.RecordBatchReader.from_batches(self._schema, self._batches()).__arrow_c_stream__()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        stored = self._run.ntk
        lost = _kept_matrices(self._run) if self._name == "gram" else set()
        if not lost and not self._run.exists("ntk.zarr", self._name, "zarr.json"):
            return  # a run without rows, or without --keep-gram
        array = stored.open(self._name)
        block = array.chunks[0]
        together = max(1, _BATCH // (block * int(np.prod(array.shape[1:]))))
        for first, count in _stretches(stored.blocks(self._name), together):
            start = first * block
            values = stored.rows(array, start, start + count * block)
            places = np.arange(start, start + len(values), dtype=np.int32)
            if self._name == "gram":
                # Drop rows computed without --keep-gram, in a run that has matrices for others.
                kept = ~np.isnan(values).all(axis=(1, 2))
                places, values = places[kept], values[kept]
                lost.difference_update(places.tolist())
            yield pa.record_batch([pa.array(places), _lists(values)], schema=self._schema)
        if lost:
            raise HnasError(
                f"{stored.path}/gram has lost the matrices of {len(lost)} architectures; restore it, or remove the run "
                "and precompute it again"
            )


def _kept_matrices(run: Run) -> set[int]:
    """Return the rows whose matrices were kept when their parts were written."""
    rows: set[int] = set()
    for name in run.parts():
        if GRAM_KEPT in metadata_of(run.store.verified(*run.place("metrics", name))):
            columns = run.read_part(["ntk_row", "status"], name).to_pydict()
            pairs = zip(columns["ntk_row"], columns["status"], strict=True)
            rows |= {row for row, status in pairs if status != "nonfinite"}
    return rows


def _stretches(blocks: list[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield runs of consecutive numbers in an ascending list as (first, count), each of at most `most` numbers."""
    first = count = 0
    for block in blocks:
        if count and (block != first + count or count == most):
            yield first, count
            count = 0
        if not count:
            first = block
        count += 1
    if count:
        yield first, count


def _lists(values: np.ndarray) -> pa.Array:
    """Return the rows of `values` (n, …) as nested lists, without copying the numbers."""
    nested = pa.array(values.reshape(-1))
    count = values.size
    for length in reversed(values.shape[1:]):
        count //= length
        nested = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * length), nested)
    return nested
