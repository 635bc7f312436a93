"""Parquet as the Hugging Face hub lays out image data sets: an image and a label column, sharded or not."""

from __future__ import annotations

import json
import re
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
from pipeline.images.pixels import Indices, StoredDataset, StoredSplit

_IMAGES = ("img", "image")
_LABELS = ("label", "fine_label", "labels")
_TRAIN = "train"
_TESTS = ("test", "validation")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


@dataclass(frozen=True, eq=False)
class ParquetRows:
    """A source over the rows of several files. `leaf` is the Parquet column that holds the encoded images."""

    files: tuple[Path, ...]
    leaf: str
    starts: NDArray[np.int64]  # first row of each row group, counted over all files
    groups: tuple[tuple[int, int], ...]  # file, and row group in it, of each entry of `starts`

    def where(self, index: int) -> str:
        file, _ = self.groups[self._group(np.array([index]))[0]]
        first = next(start for start, group in zip(self.starts, self.groups, strict=True) if group[0] == file)
        return f"{self.files[file]}, row {index - first}"

    def read(self, indices: Indices) -> Iterator[bytes]:
        """The images' encoded bytes, reading no column but theirs, and each row group once.

        Holds one row group's bytes at a time beside those that were asked for.
        """
        found: list[bytes | None] = [None] * len(indices)
        owner = self._group(indices)
        for file, owners in groupby(np.unique(owner).tolist(), key=lambda entry: self.groups[entry][0]):
            with _open(self.files[file]) as reader:
                for entry in owners:
                    table = reader.read_row_group(self.groups[entry][1], columns=[self.leaf], use_threads=False)
                    column = table.column(0)
                    for slot in np.flatnonzero(owner == entry).tolist():
                        cell = column[int(indices[slot] - self.starts[entry])].as_py()
                        found[slot] = cell["bytes"] if isinstance(cell, dict) else cell
        for index, value in zip(indices.tolist(), found, strict=True):
            if value is None:
                raise HnasError(f"{self.where(index)} has no image bytes: they must be in the file, not beside it.")
            yield value

    def _group(self, indices: Indices) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, indices, side="right").astype(np.int64) - 1


def read_file(path: Path) -> StoredDataset:
    """A single Parquet file: a training split only.

    Raises:
        UsageError: it lacks an image or a label column, or these have another type.
        HnasError: it is truncated or no Parquet file at all.
    """
    split, classes = _split((path,))
    return StoredDataset(classes, split, ())


def read_folder(folder: Path) -> StoredDataset | None:
    """None where neither `folder`, nor its data/ or only subfolder with Parquet files in it, holds Parquet files.

    Raises:
        UsageError: no file is named train-*.parquet or a shard is missing; and as `read_file`.
        HnasError: as `read_file`.
    """
    place = _place(folder)
    if place is None:
        return None
    train = _shards(place, _TRAIN)
    if not train:
        names = ", ".join(sorted(path.name for path in place.glob("*.parquet"))[:3])
        raise UsageError(
            f"{place} has Parquet files ({names}) but none named train-*.parquet: name a file by its path."
        )
    stored, classes = _split(train)
    tests = []
    for shards in filter(None, (_shards(place, name) for name in _TESTS)):
        test, named = _split(shards)
        if named is not None and classes is not None and named != classes:
            raise HnasError(f"{shards[0]} names other classes than {train[0]}: labels must mean the same in both.")
        tests.append(test)
    return StoredDataset(classes, stored, tuple(tests))


def _place(folder: Path) -> Path | None:
    for place in (folder, folder / "data"):
        if any(place.glob("*.parquet")):
            return place
    # The hub names the subfolder after a configuration, such as plain_text for cifar10.
    places = [path for path in sorted(folder.iterdir()) if path.is_dir() and any(path.glob("train-*.parquet"))]
    if len(places) > 1:
        raise UsageError(f"{folder} holds several data sets ({', '.join(p.name for p in places)}): give one's path.")
    return places[0] if places else None


def _shards(place: Path, split: str) -> tuple[Path, ...]:
    paths = sorted(path for path in place.glob(f"{split}*.parquet") if re.match(rf"{split}(-|$)", path.stem))
    numbers = [tuple(map(int, match.groups())) for path in paths if (match := _SHARD.search(path.stem))]
    if numbers:
        total = numbers[0][1]
        if len(numbers) != len(paths) or numbers != [(number, total) for number in range(total)]:
            raise UsageError(
                f"{place} does not hold each shard of its {split} split once: there are "
                f"{', '.join(path.name for path in paths[:3])}{', ...' if len(paths) > 3 else ''}, and the names tell "
                f"of {total}, {split}-00000-of-{total:05} to {split}-{total - 1:05}-of-{total:05}."
            )
    return tuple(paths)


def _split(paths: tuple[Path, ...]) -> tuple[StoredSplit, tuple[str, ...] | None]:
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
            for group in range(reader.metadata.num_row_groups):
                starts.append(count)
                groups.append((file, group))
                count += reader.metadata.row_group(group).num_rows
            stored = reader.read(columns=[column], use_threads=False).column(0)
            labels.append(stored.cast(pa.int64()).fill_null(-1).to_numpy())
            named = _class_names(reader.schema_arrow, column)
        if file and named != classes:
            raise HnasError(f"{path} names other classes than {paths[0]}: the shards of a split must agree.")
        classes = named
    if len(columns) > 1:
        raise HnasError(
            f"{paths[0].parent} has shards of the split {paths[0].stem.split('-')[0]} with different columns "
            f"({', '.join(sorted({name for pair in columns for name in pair}))}): the shards of a split must agree."
        )
    source = ParquetRows(paths, leaf, np.array(starts, dtype=np.int64), tuple(groups))
    return StoredSplit(np.concatenate(labels), source), classes


def _columns(schema: Any, path: Path) -> tuple[str, str]:
    """The Parquet leaf of the encoded images, and the name of the label column."""
    image = _pick(schema, _IMAGES, "image", path)
    label = _pick(schema, _LABELS, "label", path)
    kind = schema.field(image).type
    nested = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    content = kind.field("bytes").type if nested else kind
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content)):
        raise UsageError(
            f"{path} has {kind} in its column {image}: it must be struct<bytes: binary, path: string> or binary."
        )
    if not pa.types.is_integer(schema.field(label).type):
        raise UsageError(f"{path} has {schema.field(label).type} in its column {label}: labels must be integers.")
    return f"{image}.bytes" if nested else image, label


def _pick(schema: Any, names: tuple[str, ...], what: str, path: Path) -> str:
    found = next((name for name in names if name in schema.names), None)
    if found is None:
        raise UsageError(
            f"{path} has no {what} column: one of {', '.join(names)} is needed, and it has {', '.join(schema.names)}."
        )
    return found


def _class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """The class names in the schema's `huggingface` metadata; None where it has none, or has another shape."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as reader:
            yield reader
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".") if str(error) else type(error).__name__
        raise HnasError(f"{path} cannot be read as Parquet ({reason}): a whole Parquet file is needed.") from error
