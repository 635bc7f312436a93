"""`ntk.zarr` of a run: the spectrum of Θ₀, and Θ₀ itself on request, a row for each canonical architecture.

`eigenvalues` is (n, m) float64 in ascending order, `gram` (n, m, m); row i belongs to the row of `metrics` whose
`ntk_row` is i. A Zarr chunk is `block` rows, and no two parts share one, so that workers write side by side; rows that
no part has claimed hold NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from hnas.errors import HnasError
from pipeline.store import Store


class NTKArrays:
    """The arrays of one run. `prepare` and `trim` are the drivers', under the run's lock, `write` the workers'."""

    def __init__(self, store: Store, run: str) -> None:
        self.path = store.url("runs", run, "ntk.zarr")
        self._store = store

    def prepare(self, samples: int, rows: int, *, block: int, gram: bool) -> int:
        """Make room for `rows` rows, and return the number of rows in a block: the given one where the run is new."""
        with self._writing("**/zarr.*.partial"):
            group = zarr.open_group(self.path, mode="a")
            wanted = {"eigenvalues": (samples,)} | ({"gram": (samples, samples)} if gram else {})
            for name, tail in wanted.items():
                if name not in group:
                    size = _array(group, "eigenvalues").chunks[0] if "eigenvalues" in group else block
                    group.create_array(
                        name, shape=(rows, *tail), chunks=(size, *tail), dtype="float64", fill_value=float("nan")
                    )
            for array in group.array_values():
                if array.shape[0] < rows:
                    array.resize((rows, *array.shape[1:]))
            return int(_array(group, "eigenvalues").chunks[0])

    def trim(self, rows: int) -> None:
        """Drop the rows from `rows` on, which no part uses."""
        with self._writing("**/zarr.*.partial"):
            for array in zarr.open_group(self.path, mode="r+").array_values():
                if array.shape[0] > rows:
                    array.resize((rows, *array.shape[1:]))

    def write(self, start: int, eigenvalues: np.ndarray, gram: np.ndarray | None) -> None:
        """Write eigenvalues (k, m) and Gram matrices (k, m, m) to the rows from `start`, the first of a block."""
        with self._writing() as partial:
            group = zarr.open_group(self.path, mode="r+")
            # Its own blocks only: other workers are writing theirs.
            size = _array(group, "eigenvalues").chunks[0]
            blocks = range(start // size, -(-(start + len(eigenvalues)) // size))
            partial += [f"*/c/{block}/**/*.partial" for block in blocks]
            _array(group, "eigenvalues")[start : start + len(eigenvalues)] = eigenvalues
            if gram is not None:
                _array(group, "gram")[start : start + len(gram)] = gram

    @contextmanager
    def _writing(self, *patterns: str) -> Iterator[list[str]]:
        """`Store.writing`, which also removes what matches the yielded list: Zarr leaves it where the disk is full."""
        partial = list(patterns)
        try:
            with self._store.writing(self.path):
                yield partial
        except HnasError:
            if self._store.local:
                for left in {found for pattern in partial for found in Path(self.path).glob(pattern)}:
                    left.unlink(missing_ok=True)
            raise

    def read(self, name: str = "eigenvalues") -> np.ndarray:
        """A whole array: `eigenvalues` (n, m) or `gram` (n, m, m). Raises `HnasError` where it was not kept."""
        return self.rows(self.open(name))

    def rows(self, array: zarr.Array[Any], start: int = 0, stop: int | None = None) -> np.ndarray:
        """The rows from `start` to before `stop` of an array that `open` gave, float64. Raises `HnasError`."""
        try:
            return np.asarray(array[start:stop], dtype=np.float64)
        except Exception as error:  # each codec of Zarr has its own
            raise self._damaged(error, f"/{array.basename}") from error

    def open(self, name: str = "eigenvalues") -> zarr.Array[Any]:
        """The same array unread, to take some of its rows from. Raises `HnasError` where it was not kept."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                group = zarr.open_group(self.path, mode="r")
                array = _array(group, name) if name in group else None
            except FileNotFoundError as error:
                raise HnasError(f"{self.path} does not exist; `hnas precompute` writes it") from error
            except ValueError as error:  # JSON among them
                raise self._damaged(error) from error
        if array is None:
            raise HnasError(f"{self.path} has no array {name!r}; Gram matrices are kept with --keep-gram")
        return array

    def _damaged(self, error: Exception, where: str = "") -> HnasError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return HnasError(
            f"{self.path}{where} cannot be read: {reason}; it was damaged after it was written, restore it, or remove "
            "the run and precompute it again"
        )


class Blocks:
    """Which blocks of `size` rows are taken. A chunk gets whole ones: the first free ones that lie together."""

    def __init__(self, rows: Iterable[int], size: int) -> None:
        self._size = size
        self._taken = bytearray()
        self._first = 0  # none before it is free
        for row in rows:
            self._mark(row // size, 1)

    def take(self, rows: int) -> int:
        """Take blocks for so many rows, and return the first of them."""
        count = -(-rows // self._size)
        start = self._taken.find(bytes(count), self._first)
        if start < 0:
            self._taken.extend(bytes(count + len(self._taken) // 8))
            start = self._taken.find(bytes(count), self._first)
        self._mark(start, count)
        return start * self._size

    def occupy(self, row: int, rows: int) -> None:
        """Take the blocks of the rows from `row`, the first of a block."""
        self._mark(row // self._size, -(-rows // self._size))

    def _mark(self, start: int, count: int) -> None:
        if len(self._taken) < start + count:
            self._taken.extend(bytes(start + count - len(self._taken)))
        self._taken[start : start + count] = b"\1" * count
        if start <= self._first < start + count:
            self._first = start + count


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
