"""`ntk.zarr` of a run: the spectrum of Θ₀, and on request Θ₀ itself, with a row per canonical architecture.

`eigenvalues` is (n, m) float64 in ascending order, `gram` (n, m, m); row i belongs to the row of `metrics` whose
`ntk_row` is i. A Zarr chunk has `block` rows and is never shared by two parts, so workers can write concurrently.
Unclaimed rows hold NaN. Each chunk ends with its CRC-32C (Zarr's codec `crc32c`), verified when it is read.

A store may come from someone else, and Zarr's metadata can name codecs that run code. The metadata is therefore read
here first, and anything that hnas does not write is rejected before Zarr sees it.
"""

from __future__ import annotations

import json
import math
import os
import stat
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from hnas.errors import HnasError
from hnas.pipeline.store.store import Store, reason_of, sync_folder

ARRAYS = ("eigenvalues", "gram")
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
# A run has at most the architectures of its space, and the batch at most `MAX_BATCH` samples.
_MOST_ROWS, _MOST_SAMPLES, _MOST_BYTES = 2**31, 4096, 2**34


class NTKArrays:
    """The arrays of one run. Drivers call `prepare` and `trim` under the run's lock; workers call `write`."""

    def __init__(self, store: Store, run: str) -> None:
        self.path = store.url("runs", run, "ntk.zarr")
        self._store = store
        self._parts = ("runs", run, "ntk.zarr")

    def prepare(self, samples: int, rows: int, *, block: int, gram: bool) -> int:
        """Make room for `rows` rows and return the number of rows in a block, which is `block` for a new run."""
        self._refuse_links()
        group = self._group()
        with self._writing("**/zarr.*.partial"):
            group = zarr.open_group(self.path, mode="a", zarr_format=3) if group is None else group
            tails = {"eigenvalues": (samples,)} | ({"gram": (samples, samples)} if gram else {})
            arrays = {name: array for name in ARRAYS if (array := self._array(name, "r+")) is not None}
            for name, tail in tails.items():
                if name not in arrays:
                    size = arrays["eigenvalues"].chunks[0] if "eigenvalues" in arrays else block
                    arrays[name] = group.create_array(
                        name,
                        shape=(rows, *tail),
                        chunks=(size, *tail),
                        dtype="float64",
                        fill_value=float("nan"),
                        # Set explicitly, so that the user's Zarr settings do not affect the store.
                        compressors=[ZstdCodec(level=0), Crc32cCodec()],
                        filters=None,
                        chunk_key_encoding={"name": "default", "separator": "/"},
                    )
            for array in arrays.values():
                if array.shape[0] < rows:
                    array.resize((rows, *array.shape[1:]))
            return int(arrays["eigenvalues"].chunks[0])

    def trim(self, rows: int) -> None:
        """Drop the unused rows from `rows` on."""
        self._refuse_links()
        with self._writing("**/zarr.*.partial"):
            for name in ARRAYS:
                array = self._array(name, "r+")
                if array is not None and array.shape[0] > rows:
                    array.resize((rows, *array.shape[1:]))

    def write(self, start: int, eigenvalues: np.ndarray, gram: np.ndarray | None) -> None:
        """Write eigenvalues (k, m) and Gram matrices (k, m, m) to the rows from `start`, the first of a block.

        Returns once they are on disk, because the part that records them is written next.
        """
        self._refuse_links()
        with self._writing() as partial:
            for name, values in (("eigenvalues", eigenvalues), ("gram", gram)):
                if values is None:
                    continue
                array = self.open(name, "r+")
                # Only its own blocks, because other workers write theirs at the same time.
                size = array.chunks[0]
                blocks = range(start // size, -(-(start + len(values)) // size))
                partial += [f"*/c/{block}/**/*.partial" for block in blocks]
                for block in blocks:
                    self._store.refuse_links(*self._parts, name, "c", str(block))
                array[start : start + len(values)] = values
                if self._store.local:
                    _sync(Path(self.path) / name / "c", blocks)

    def lost(self, rows: Iterable[int]) -> list[range]:
        """Return the blocks of `eigenvalues` that should hold some of `rows` but have no chunk, which Zarr silently
        reads as NaN."""
        array = self._array("eigenvalues", "r")
        if array is None:
            raise HnasError(
                f"{self.path} has lost its eigenvalues; restore it, or remove the run and precompute it again"
            )
        size, there = array.chunks[0], set(self.blocks("eigenvalues"))
        missing = {row // size for row in rows if row // size not in there or row >= array.shape[0]}
        return [range(block * size, (block + 1) * size) for block in sorted(missing)]

    def sealed(self, name: str) -> bool:
        """Return whether the chunks of an array have checksums. Raises `HnasError` if there is no such array."""
        return any(isinstance(codec, Crc32cCodec) for codec in self.open(name).compressors)

    def blocks(self, name: str) -> list[int]:
        """Return the numbers of the blocks for which an array has chunks, ascending."""
        tail = ["0"] * (1 if name == "eigenvalues" else 2)
        blocks = (block for block in self._store.names(*self._parts, name, "c") if block.isdecimal())
        # Only a local store can have empty folders; elsewhere each check costs a request.
        return sorted(
            int(block)
            for block in blocks
            if not self._store.local or self._store.exists(*self._parts, name, "c", block, *tail)
        )

    def damaged(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the damaged chunks of an array, each with the evidence. Raises `HnasError` for damaged metadata."""
        return self._damaged_chunks(self.open(name), name)

    def _damaged_chunks(
        self, array: zarr.Array[Any], name: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[str, str]]:
        size = array.chunks[0]
        for block, chunk in self._chunks(array, name, start, stop):
            try:
                self._check_file(array, name, chunk)
                np.asarray(array[block * size : (block + 1) * size])
            except Exception as error:  # each Zarr codec raises its own errors
                yield chunk, reason_of(error)

    def _chunks(
        self, array: zarr.Array[Any], name: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, str]]:
        """Yield the blocks that overlap rows `start` to `stop` and have a chunk, each with the path of its chunk."""
        size = array.chunks[0]
        last = array.shape[0] if stop is None else min(stop, array.shape[0])
        for block in self.blocks(name):
            if start // size <= block < -(-last // size):
                yield block, "/".join(("c", str(block), *["0"] * (array.ndim - 1)))

    def _check_file(self, array: zarr.Array[Any], name: str, chunk: str) -> None:
        """Raise `ValueError` if a chunk of a local store is not a regular file or is too long: Zarr reads to the end,
        and a device has none."""
        if self._store.local:
            status = Path(self.path, name, chunk).stat()
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is not a regular file")
            if status.st_size > 2 * 8 * math.prod(array.chunks) + 1024:
                raise ValueError(f"it has {status.st_size:,} bytes")

    @contextmanager
    def _writing(self, *patterns: str) -> Iterator[list[str]]:
        """`Store.writing`, which also removes files matching the yielded patterns, which Zarr leaves on a full disk."""
        partial = list(patterns)
        try:
            with self._store.writing(self.path):
                yield partial
        except HnasError:
            if self._store.local:
                for left in {found for pattern in partial for found in Path(self.path).glob(pattern)}:
                    left.unlink(missing_ok=True)
            raise

    def _refuse_links(self) -> None:
        for name in ARRAYS:
            self._store.refuse_links(*self._parts, name, "c")
            self._store.refuse_links(*self._parts, name, "zarr.json")
        self._store.refuse_links(*self._parts, "zarr.json")

    def read(self, name: str = "eigenvalues") -> np.ndarray:
        """Return a whole array: `eigenvalues` (n, m) or `gram` (n, m, m). Raises `HnasError` if it was not kept."""
        return self.rows(self.open(name))

    def rows(self, array: zarr.Array[Any], start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the rows `start` to `stop` of an array from `open`, float64. Raises `HnasError`."""
        name = "eigenvalues" if array.ndim == 2 else "gram"
        try:
            for _, chunk in self._chunks(array, name, start, stop) if self._store.local else ():
                self._check_file(array, name, chunk)
            return np.asarray(array[start:stop], dtype=np.float64)
        except Exception as error:  # each Zarr codec raises its own errors
            for chunk, reason in self._damaged_chunks(array, name, start, stop):
                advice = (
                    "delete that file, and the same `hnas precompute` computes its rows again"
                    if name == "eigenvalues"
                    else "restore it, or remove the run and precompute it again"
                )
                raise HnasError(
                    f"{self.path}/{name} cannot be read: its chunk {chunk} was damaged after it was written "
                    f"({reason}); {advice}"
                ) from error
            raise self._damaged(error, f"/{name}") from error

    def open(self, name: str = "eigenvalues", mode: str = "r") -> zarr.Array[Any]:
        """Open an array without reading it. Raises `HnasError` if it was not kept."""
        if self._group() is None:
            raise HnasError(f"{self.path} does not exist; `hnas precompute` writes it")
        array = self._array(name, mode)
        if array is None:
            raise HnasError(f"{self.path} has no array {name!r}; --keep-gram keeps Gram matrices")
        return array

    def _group(self, mode: str = "r+") -> zarr.Group | None:
        """Return the group, or None. Raises `HnasError` if its metadata is not as hnas writes it."""
        metadata = self._metadata()
        if metadata is None:
            return None
        if metadata.get("node_type") != "group" or metadata.get("consolidated_metadata") is not None:
            raise self._foreign("zarr.json")
        group: zarr.Group = self._opened(zarr.open_group, self.path, mode=mode, zarr_format=3, use_consolidated=False)
        return group

    def _array(self, name: str, mode: str) -> zarr.Array[Any] | None:
        """Return an array, or None. Raises `HnasError` if its metadata is not as hnas writes it."""
        metadata = self._metadata(name)
        if metadata is None:
            return None
        if not _as_written(metadata, name):
            raise self._foreign(f"{name}/zarr.json")
        # Rows of overflowed networks are NaN too. Writing their chunks lets a missing chunk be recognised as lost.
        with zarr.config.set({"array.write_empty_chunks": True}):
            array: zarr.Array[Any] = self._opened(zarr.open_array, f"{self.path}/{name}", mode=mode, zarr_format=3)
        return array

    def _metadata(self, *array: str) -> dict[str, Any] | None:
        place = (*self._parts, *array, "zarr.json")
        if not self._store.exists(*place):
            return None
        try:
            metadata = json.loads(self._store.read_bytes(*place))
        except (ValueError, RecursionError) as error:
            raise self._damaged(error, f"/{'/'.join((*array, 'zarr.json'))}") from error
        if not isinstance(metadata, dict) or metadata.get("zarr_format") != 3:
            raise self._foreign("/".join((*array, "zarr.json")))
        return metadata

    def _opened(self, how: Any, *where: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return how(*where, **options)
            except OSError:
                raise
            except Exception as error:  # Zarr raises many kinds of errors for unreadable metadata
                raise self._damaged(error) from error

    def _foreign(self, where: str) -> HnasError:
        return self._damaged(ValueError("it is not as hnas writes it"), f"/{where}")

    def _damaged(self, error: Exception, where: str = "") -> HnasError:
        return HnasError(
            f"{self.path}{where} cannot be read: {reason_of(error)}; it was damaged after it was written, restore it, "
            "or remove the run and precompute it again"
        )


def _as_written(metadata: dict[str, Any], name: str) -> bool:
    """Return whether the metadata of an array is exactly what this or an earlier version of hnas writes."""
    try:
        shape, grid = metadata["shape"], metadata["chunk_grid"]
        chunks = grid["configuration"]["chunk_shape"]
        first, *compressors = metadata["codecs"]
        names = [codec["name"] for codec in compressors]
        samples = shape[1]
        whole = all(type(length) is int and length >= 0 for length in (*shape, *chunks))
        return (
            metadata["node_type"] == "array"
            and metadata["data_type"] == "float64"
            and metadata["fill_value"] == "NaN"
            and not metadata.get("storage_transformers")
            and metadata["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
            and first == _BYTES
            and names in (["zstd"], ["zstd", "crc32c"])
            and grid["name"] == "regular"
            and whole
            and list(shape[1:]) == list(chunks[1:]) == [samples] * (2 if name == "gram" else 1)
            and 0 <= shape[0] <= _MOST_ROWS
            and 0 < samples <= _MOST_SAMPLES
            and 0 < 8 * math.prod(chunks) <= _MOST_BYTES
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return False


def _sync(folder: Path, blocks: Collection[int]) -> None:
    """Sync the chunks of these blocks, and the folders that name them, to disk."""
    for block in blocks:
        for path in [folder / str(block), *(folder / str(block)).rglob("*")]:
            if path.is_dir():
                sync_folder(path)
            elif path.is_file():
                handle = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
    for above in (folder, folder.parent, folder.parent.parent):
        sync_folder(above)


class Blocks:
    """Allocates blocks of `size` rows. A chunk gets whole blocks: the first free run that is long enough."""

    def __init__(self, rows: Iterable[int], size: int) -> None:
        self._size = size
        self._taken = bytearray()
        self._first = 0  # no block before it is free
        for row in rows:
            self._mark(row // size, 1)

    def take(self, rows: int) -> int:
        """Allocate blocks for `rows` rows and return the first row."""
        count = -(-rows // self._size)
        start = self._taken.find(bytes(count), self._first)
        if start < 0:
            self._taken.extend(bytes(count + len(self._taken) // 8))
            start = self._taken.find(bytes(count), self._first)
        self._mark(start, count)
        return start * self._size

    def occupy(self, row: int, rows: int) -> None:
        """Mark the blocks of `rows` rows from `row`, the first of a block, as taken."""
        self._mark(row // self._size, -(-rows // self._size))

    def _mark(self, start: int, count: int) -> None:
        if len(self._taken) < start + count:
            self._taken.extend(bytes(start + count - len(self._taken)))
        self._taken[start : start + count] = b"\1" * count
        if start <= self._first < start + count:
            self._first = start + count
