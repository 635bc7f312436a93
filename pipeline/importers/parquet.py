"""Accuracies from a Parquet file: one training a row, in the columns of `hnas.pipeline.importers.training_rows`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hnas.errors import UsageError
from hnas.pipeline.importers.protocol import Advance, Rows
from hnas.pipeline.importers.training_rows import BATCH, Trainings
from hnas.pipeline.io.input_files import regular_file

_TEXT = ("space", "arch", "dataset")


def read_parquet(path: Path, advance: Advance) -> Iterator[Rows]:
    """Its rows in batches. Raises `UsageError` with the row of the first fault, counted from 1."""
    regular_file(path, needed="a Parquet file")
    try:
        with pq.ParquetFile(path) as file:
            yield from _read(path, file, advance)
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].split(". ")[0]
        raise UsageError(f"{path} cannot be read: {reason}; give a whole Parquet file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} holds text that is not UTF-8; give a whole Parquet file") from error


def _read(path: Path, file: pq.ParquetFile, advance: Advance) -> Iterator[Rows]:
    trainings = Trainings(path, "row")
    trainings.check_header(list(file.schema_arrow.names))
    for field in file.schema_arrow:
        _check_type(path, field)
    number, total = 0, file.metadata.num_rows
    for batch in file.iter_batches(batch_size=BATCH):
        if batch.num_rows:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            trainings.add(range(number + 1, number + 1 + batch.num_rows), columns)
        number += batch.num_rows
        if number < total:
            yield trainings.rows()
        advance(number, total)
    trainings.finish()
    yield trainings.rows()


def _check_type(path: Path, field: pa.Field) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_null(kind):
        return
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (text if field.name in _TEXT else number):
        wanted = "text" if field.name in _TEXT else "numbers"
        raise UsageError(f"{path}: the column {field.name} has the type {field.type}; it must hold {wanted}")
