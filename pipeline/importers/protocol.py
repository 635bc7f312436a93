"""The interface of importers: batches of rows of the common tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa


class Rows(NamedTuple):
    """A batch of rows of the table `table`, a key of `hnas.pipeline.store.schema.SCHEMAS`, with that schema."""

    table: str
    batch: pa.RecordBatch


#: Progress callback: the amount of the file read so far, in bytes or files, and the total.
Advance = Callable[[int, int], None]

#: Reads a file or folder sequentially in bounded memory. Raises `UsageError` for any error in it.
Importer = Callable[[Path, Advance], Iterator[Rows]]
