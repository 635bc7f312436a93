"""What every importer yields: rows of the common tables, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa


class Rows(NamedTuple):
    """A batch of rows of the table `table`, a key of `hnas.pipeline.store.schema.SCHEMAS`, in its schema."""

    table: str
    batch: pa.RecordBatch


#: Told how much of the file is read, in bytes or in files, and how much there is.
Advance = Callable[[int, int], None]

#: An importer: reads a file or folder in order, in bounded memory. Raises `UsageError` for every fault of it.
Importer = Callable[[Path, Advance], Iterator[Rows]]
