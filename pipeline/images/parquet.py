"""Image data sets in the Hugging Face hub's Parquet layout: an image and a label column, sharded or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hnas.errors import HnasError, UsageError
from hnas.pipeline.images.parquet_files import files_in, place_of, split_of, splits_in
from hnas.pipeline.images.pixels import Indices, StoredDataset, StoredSplit
from hnas.pipeline.images.splits import TEST, TRAIN, VALIDATION
from hnas.pipeline.io.input_files import regular_file
from hnas.pipeline.io.printable import printable

_IMAGES = ("img", "image")
_LABELS = ("label", "fine_label", "labels")
# ImageNet-21k has 14 million rows. A Parquet file of a few bytes can hold 10^12 equal labels.
_MOST_ROWS = 10**8
_MOST_GROUP_BYTES = 2**33


@dataclass(frozen=True, eq=False)
class ParquetRows:
    """A source over the rows of several files. `leaf` is the Parquet column with the encoded images."""

    files: tuple[Path, ...]
    leaf: str
    starts: NDArray[np.int64]  # first row of each row group, counted across all files
    groups: tuple[tuple[int, int], ...]  # file and row group for each entry of `starts`

    def where(self, index: int) -> str:
        file, _ = self.groups[self._group(np.array([index]))[0]]
        first = next(start for start, group in zip(self.starts, self.groups, strict=True) if group[0] == file)
        return f"{printable(self.files[file])}, row {index - first}"

    def read(self, indices: Indices) -> Iterator[bytes]:
        """Yield the encoded images, reading only their column and each row group once.

        Holds the bytes of one row group at a time, besides the requested images.
        """
        encoded: list[bytes | None] = [None] * len(indices)
        owner = self._group(indices)
        for file, owners in groupby(np.unique(owner).tolist(), key=lambda entry: self.groups[entry][0]):
            with _open(self.files[file]) as reader:
                for entry in owners:
                    table = reader.read_row_group(self.groups[entry][1], columns=[self.leaf], use_threads=False)
                    column = table.column(0)
                    for slot in np.flatnonzero(owner == entry).tolist():
                        cell = column[int(indices[slot] - self.starts[entry])].as_py()
                        encoded[slot] = cell["bytes"] if isinstance(cell, dict) else cell
        for index, value in zip(indices.tolist(), encoded, strict=True):
            if value is None:
                raise HnasError(f"{self.where(index)} has no image bytes; they must be in the file, not next to it")
            yield value

    def _group(self, indices: Indices) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, indices, side="right").astype(np.int64) - 1


def read_file(path: Path) -> StoredDataset:
    """Read a single Parquet file as a training split.

    Raises `UsageError` if it lacks an image or label column, or these have the wrong type, and `HnasError` if it is
    truncated or not a Parquet file.
    """
    split, classes = _split((path,), TRAIN)
    return StoredDataset(classes, split, ())


def read_folder(folder: Path) -> StoredDataset | None:
    """Return the data set; None if there are no Parquet files in `folder`, its data/ or its only training subfolder.

    A split consists of files whose names begin or end with its name (`train-00000-of-00002.parquet`), or of a folder of
    that name.

    Raises `UsageError` if there is no training split, a shard is missing, or two names mean the same split, and the
    errors of `read_file`.
    """
    place = place_of(folder)
    if place is None:
        return None
    splits = splits_in(place)
    train = splits.pop(TRAIN, ())
    if not train:
        names = ", ".join(printable(path.name) for path in files_in(place)[:3]) or ", ".join(splits)
        raise UsageError(
            f"{printable(place)} has Parquet files ({names}) but none named train-*.parquet; give the path of one file"
        )
    if not splits:
        _no_other_split(place)
    stored, classes = _split(train, TRAIN)
    tests = []
    for name in filter(splits.get, (TEST, VALIDATION)):
        test, named = _split(splits[name], name)
        if named is not None and classes is not None and named != classes:
            raise HnasError(
                f"{printable(splits[name][0])} has other class names than {printable(train[0])}; "
                "labels must mean the same in both"
            )
        tests.append(test)
    return StoredDataset(classes, stored, tuple(tests))


def _no_other_split(place: Path) -> None:
    """Raise `UsageError` if a file next to the training split holds images but is not named like a split."""
    for path in files_in(place):
        if split_of(path) is None:
            with _open(path) as reader:
                names = reader.schema_arrow.names
            if set(names) & set(_IMAGES) and set(names) & set(_LABELS):
                raise UsageError(
                    f"{printable(path)} holds images, but its name contains no split; call it test-… or "
                    "validation-…, or move it elsewhere"
                )


def _split(paths: tuple[Path, ...], name: str) -> tuple[StoredSplit, tuple[str, ...] | None]:
    labels: list[NDArray[np.int64]] = []
    columns: set[tuple[str, str]] = set()
    starts: list[int] = []
    groups: list[tuple[int, int]] = []
    classes: tuple[str, ...] | None = None
    count = 0
    for file, path in enumerate(paths):
        with _open(path) as reader:
            leaf, column = _columns(reader.schema_arrow, path)
            columns.add((leaf, column))
            _check_size(reader.metadata, (leaf, column), count, path)
            for group in range(reader.metadata.num_row_groups):
                starts.append(count)
                groups.append((file, group))
                count += reader.metadata.row_group(group).num_rows
            stored = reader.read(columns=[column], use_threads=False).column(0)
            labels.append(stored.cast(pa.int64()).fill_null(-1).to_numpy())
            named = _class_names(reader.schema_arrow, column)
        if file and named != classes:
            raise HnasError(
                f"{printable(path)} has other class names than {printable(paths[0])}; the shards of a split must agree"
            )
        classes = named
    if len(columns) > 1:
        raise HnasError(
            f"{printable(paths[0].parent)} has shards of the split {name} with different columns "
            f"({', '.join(sorted({name for pair in columns for name in pair}))}); the shards of a split must agree"
        )
    source = ParquetRows(paths, leaf, np.array(starts, dtype=np.int64), tuple(groups))
    return StoredSplit(np.concatenate(labels), source), classes


def _check_size(metadata: Any, leaves: tuple[str, str], before: int, path: Path) -> None:
    """Raise `UsageError` if the file unpacks to more than can be read: a small file may be highly compressed."""
    rows = before
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = [group.column(place) for place in range(group.num_columns)]
        read = [chunk for chunk in chunks if chunk.path_in_schema in leaves]
        rows += max((chunk.num_values for chunk in read), default=0)
        if rows > _MOST_ROWS:
            raise UsageError(f"{printable(path)} has {rows:,} rows; a split has at most {_MOST_ROWS:,}")
        size = max((chunk.total_uncompressed_size for chunk in read), default=0)
        if size > _MOST_GROUP_BYTES:
            raise UsageError(
                f"{printable(path)} has a row group of {size:,} bytes, which must be read at once; "
                "write it with smaller row groups"
            )


def _columns(schema: Any, path: Path) -> tuple[str, str]:
    """Return the Parquet leaf of the encoded images and the name of the label column."""
    image = _pick(schema, _IMAGES, "image", path)
    label = _pick(schema, _LABELS, "label", path)
    kind = schema.field(image).type
    nested = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    content = kind.field("bytes").type if nested else kind
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content)):
        raise UsageError(
            f"{printable(path)} has {kind} in its column {image}; "
            "it must be struct<bytes: binary, path: string> or binary"
        )
    if not pa.types.is_integer(schema.field(label).type):
        raise UsageError(
            f"{printable(path)} has {schema.field(label).type} in its column {label}; labels must be integers"
        )
    return f"{image}.bytes" if nested else image, label


def _pick(schema: Any, names: tuple[str, ...], what: str, path: Path) -> str:
    column = next((name for name in names if name in schema.names), None)
    if column is None:
        raise UsageError(
            f"{printable(path)} has no {what} column; it needs one of {', '.join(names)}, and has "
            f"{printable(', '.join(schema.names[:20]))}"
        )
    return column


def _class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """Return the class names in the schema's `huggingface` metadata; None if absent or malformed."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    regular_file(path, "a Parquet file")
    try:
        with path.open("rb") as file, pq.ParquetFile(file, page_checksum_verification=True) as reader:
            yield reader
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".") if str(error) else type(error).__name__
        raise HnasError(
            f"{printable(path)} cannot be read as Parquet ({printable(reason)}); give a complete Parquet file"
        ) from error
