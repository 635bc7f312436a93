"""The common tables that every importer yields, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

_TRAINING = [
    ("space", pa.string()),
    ("arch", pa.string()),
    ("dataset", pa.string()),
    ("epochs", pa.int32()),
    ("seed", pa.int64()),
]
_RESULT = [
    ("train_accuracy", pa.float64()),
    ("valid_accuracy", pa.float64()),
    ("test_accuracy", pa.float64()),
    ("seconds", pa.float64()),
]

#: The tables by name. `accuracies` has a row for each finished training (`epochs` long, from `seed`): percent, and
#: seconds of training. `curves` has what was measured on the way, after `epoch` epochs and `seconds`. `proxies` has
#: training-free scores that others computed.
SCHEMAS = {
    "accuracies": pa.schema(_TRAINING + _RESULT),
    "curves": pa.schema([*_TRAINING, ("epoch", pa.int32()), *_RESULT]),
    "proxies": pa.schema(
        [
            ("space", pa.string()),
            ("arch", pa.string()),
            ("dataset", pa.string()),
            ("proxy", pa.string()),
            ("value", pa.float64()),
            ("seconds", pa.float64()),
        ]
    ),
}


class Rows(NamedTuple):
    """A batch of rows of the table `table`, a key of `SCHEMAS`, in its schema."""

    table: str
    batch: pa.RecordBatch


#: Told how much of the file is read, in bytes or in files, and how much there is.
Advance = Callable[[int, int], None]

#: An importer: reads a file or folder in order, in bounded memory. Raises `UsageError` for every fault of it.
Importer = Callable[[Path, Advance], Iterator[Rows]]
