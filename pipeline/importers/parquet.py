"""Parquet files of architectures: accuracies, one training per row, with the columns of
`hnas.pipeline.importers.training_rows`; and user columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hnas.errors import UsageError
from hnas.pipeline.importers.gathered_rows import BATCH, TEXT, GatheredRows
from hnas.pipeline.importers.protocol import Advance, Rows
from hnas.pipeline.importers.training_rows import Trainings
from hnas.pipeline.io.input_files import regular_file


def read_parquet(
    path: Path, advance: Advance, gatherer: Callable[[Path, str], GatheredRows] = Trainings
) -> Iterator[Rows]:
    """Yield the rows of the file in batches. Raises `UsageError` with the row of the first error, counted from 1."""
    regular_file(path, needed="a Parquet file")
    try:
        with pq.ParquetFile(path) as file:
            yield from _read(path, file, advance, gatherer(path, "row"))
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].split(". ")[0]
        raise UsageError(f"{path} cannot be read: {reason}; give a whole Parquet file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} holds text that is not UTF-8; give a whole Parquet file") from error


def _read(path: Path, file: pq.ParquetFile, advance: Advance, gathered: GatheredRows) -> Iterator[Rows]:
    gathered.check_header(list(file.schema_arrow.names))
    for field in file.schema_arrow:
        _check_type(path, field)
    number, total = 0, file.metadata.num_rows
    for batch in file.iter_batches(batch_size=BATCH):
        if batch.num_rows:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            gathered.add(range(number + 1, number + 1 + batch.num_rows), columns)
        number += batch.num_rows
        if number < total:
            yield gathered.rows()
        advance(number, total)
    gathered.finish()
    yield gathered.rows()


def _check_type(path: Path, field: pa.Field) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_null(kind):
        return
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (text if field.name in TEXT else number):
        expected = "text" if field.name in TEXT else "numbers"
        raise UsageError(f"{path}: the column {field.name} has the type {field.type}; it must hold {expected}")
