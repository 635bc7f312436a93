"""NAS-Bench-101 from its own files, `nasbench_only108.tfrecord` and `nasbench_full.tfrecord`, without TensorFlow.

Each record is one training: the JSON list `[module hash, epochs, adjacency, operations, metrics]`. The metrics are a
base64 `ModelMetrics` message with one evaluation before training, one halfway through and one at the end. Repeated
trainings of a cell for the same number of epochs are numbered by `seed`: 0, 1, 2 in file order.

Source: Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.
"""

from __future__ import annotations

import json
import re
from array import array
from binascii import a2b_base64
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hnas.errors import UsageError
from hnas.pipeline.importers.files import open_input
from hnas.pipeline.importers.json_stream import shown
from hnas.pipeline.importers.model_metrics import NUMBERS, Evaluation, read_evaluations
from hnas.pipeline.importers.protocol import Advance, Rows
from hnas.pipeline.importers.tfrecord import Record, place, read_records
from hnas.pipeline.store.schema import SCHEMAS

#: The number of cells in the space, and the numbers of epochs that they were trained for.
CELLS = 423_624
EPOCHS = (4, 12, 36, 108)

# Number of trainings gathered before their rows are yielded.
_BATCH = 2**15

_OPERATIONS = re.compile(r"input(,(conv1x1-bn-relu|conv3x3-bn-relu|maxpool3x3)){0,5},output")
_HASH = re.compile(r"[0-9a-f]{32}")
# The strictly upper triangular adjacency matrix of n vertices, row by row.
_ADJACENCY = {n: re.compile("".join("0" * (i + 1) + f"[01]{{{n - 1 - i}}}" for i in range(n))) for n in range(2, 8)}
_MOST_EDGES = 9

#: Computes the module hash of `operations:adjacency`, as `NASBench101.key` does.
Key = Callable[[str], str]


def read_nasbench101(path: Path, advance: Advance, *, key: Key | None = None) -> Iterator[Rows]:
    """Yield trainings as rows of `accuracies`, earlier evaluations as rows of `curves`; accuracies in percent.

    With `key`, the hash of each new cell is compared with `key` of the cell. Raises `UsageError` with the record and
    byte of the first error.
    """
    try:
        file, size = open_input(path, "give NAS-Bench-101's TFRecord file")
        with file:
            trainings = _Trainings(path, key)
            for record in read_records(path, file):
                trainings.add(record)
                if len(trainings) == _BATCH:
                    yield from trainings.rows()
                    advance(file.tell() if size else 0, size)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give NAS-Bench-101's TFRecord file") from error
    if not len(trainings) and not trainings.cells:
        raise UsageError(f"{path} is empty; give nasbench_only108.tfrecord or nasbench_full.tfrecord")
    yield from trainings.rows()
    advance(size, size)


class _Trainings:
    """Checks records and gathers them into rows; remembers the hash of each cell and its number of trainings."""

    def __init__(self, path: Path, key: Key | None) -> None:
        self._path, self._key = path, key
        # The number of trainings of each cell, by hash: 16 bits for each number of epochs.
        self.cells: dict[bytes, int] = {}
        self._clear()

    def _clear(self) -> None:
        self._places: list[tuple[int, int]] = []
        self._trainings: list[tuple[str, int, int]] = []
        self._evaluations: list[list[Evaluation]] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, record: Record) -> None:
        """Add a record. Raises `UsageError` if it is not a training of a NAS-Bench-101 cell."""
        try:
            training = self._read(record.content)
        except ValueError as error:
            raise UsageError(f"{place(self._path, record.number, record.offset)}: {error}") from error
        self._places.append((record.number, record.offset))
        self._trainings.append(training)

    def _read(self, content: bytes) -> tuple[str, int, int]:
        """Return hash, epochs and seed of a training and keep its evaluations. Raises `ValueError` with the reason."""
        try:
            row = json.loads(content)
        except (ValueError, RecursionError):
            raise ValueError("it is not JSON; a record of NAS-Bench-101 is a JSON list") from None
        if not (isinstance(row, list) and len(row) == 5):
            raise ValueError("it is not a list of hash, epochs, adjacency, operations and metrics")
        name, epochs, adjacency, operations, metrics = row
        if not (isinstance(name, str) and _HASH.fullmatch(name)):
            raise ValueError(f"the module hash is {shown(name)}; it must be 32 hexadecimal digits")
        if type(epochs) is not int or epochs not in EPOCHS:
            raise ValueError(
                f"the number of epochs is {shown(epochs)}; it must be one of {', '.join(map(str, EPOCHS))}"
            )
        _check_cell(adjacency, operations)
        self._evaluations.append(_evaluations(metrics))
        return name, epochs, self._seed(name, epochs, f"{operations}:{adjacency}")

    def _seed(self, name: str, epochs: int, cell: str) -> int:
        hashed = bytes.fromhex(name)
        before = self.cells.get(hashed)
        if before is None:
            if len(self.cells) == CELLS:
                raise ValueError(f"it adds a cell to the {CELLS:,} of NAS-Bench-101; get the file again")
            if self._key is not None and self._key(cell) != name:
                raise ValueError(f"the module hash {name} is not that of its cell {cell}")
            before = 0
        shift = 16 * EPOCHS.index(epochs)
        seed = before >> shift & 0xFFFF
        if seed == 0xFFFF:
            raise ValueError(f"the cell {name} has more than {0xFFFF:,} trainings; get the file again")
        self.cells[hashed] = before + (1 << shift)
        return seed

    def rows(self) -> Iterator[Rows]:
        """Yield the rows of the records added since the last call."""
        if not self._places:
            return
        counts = np.fromiter(map(len, self._evaluations), np.int64, len(self))
        flat = array("d")
        for evaluations in self._evaluations:
            for evaluation in evaluations:
                flat.extend(evaluation)
        numbers = np.frombuffer(flat).reshape(-1, len(NUMBERS))
        owners = np.repeat(np.arange(len(self)), counts)
        self._check(numbers, owners)
        last = np.zeros(len(numbers), bool)
        last[np.cumsum(counts) - 1] = True
        names = pa.array([name for name, _, _ in self._trainings], pa.string())
        epochs, seeds = (np.array([training[k] for training in self._trainings]) for k in (1, 2))
        for table, chosen in (("accuracies", last), ("curves", ~last)):
            of, values = owners[chosen], numbers[chosen]
            if len(of):
                columns = {
                    "space": pa.repeat(pa.scalar("nasbench101"), len(of)),
                    "arch": names.take(pa.array(of)),
                    "dataset": pa.repeat(pa.scalar("cifar10"), len(of)),
                    "epochs": pa.array(epochs[of], pa.int32()),
                    "seed": pa.array(seeds[of], pa.int64()),
                    "epoch": pa.array(np.rint(values[:, 0]), pa.int32(), safe=False),
                    "seconds": pa.array(values[:, 1]),
                }
                accuracies = ("train_accuracy", "valid_accuracy", "test_accuracy")
                columns |= {column: pa.array(100 * values[:, 2 + k]) for k, column in enumerate(accuracies)}
                schema = SCHEMAS[table]
                yield Rows(table, pa.RecordBatch.from_arrays([columns[n] for n in schema.names], schema=schema))
        self._clear()

    def _check(self, numbers: npt.NDArray[np.float64], owners: npt.NDArray[np.int64]) -> None:
        """Check the ranges of all numbers of a batch at once."""
        most = np.array([1e6, np.inf, 1, 1, 1])
        wrong = ~((numbers >= 0) & (numbers <= most) & np.isfinite(numbers))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            where = place(self._path, *self._places[owners[row]])
            number = 1 + row - int(np.searchsorted(owners, owners[row]))
            value = numbers[row, column]
            shown_as = "nan or missing" if np.isnan(value) else f"{value:g}"
            raise UsageError(
                f"{where}, evaluation {number}: {NUMBERS[column]} is {shown_as}; it must be a finite number, at least 0"
                f"{' and at most 1' if column > 1 else ''}"
            )
        ends = np.flatnonzero(np.diff(owners, append=len(self)))
        for record, epoch in enumerate(np.rint(numbers[ends, 0])):
            if epoch != self._trainings[record][1]:
                raise UsageError(
                    f"{place(self._path, *self._places[record])}: its last evaluation is at epoch {epoch:g} of a "
                    f"training of {self._trainings[record][1]} epochs; the record is incomplete"
                )


def _check_cell(adjacency: object, operations: object) -> None:
    """Raise `ValueError` unless the two describe a cell of the space: at most seven vertices and nine edges."""
    if not (isinstance(operations, str) and _OPERATIONS.fullmatch(operations)):
        raise ValueError(f"its operations are {shown(operations)}; NAS-Bench-101 has input, up to five layers, output")
    n = operations.count(",") + 1
    if not (isinstance(adjacency, str) and _ADJACENCY[n].fullmatch(adjacency)):
        raise ValueError(
            f"its adjacency is {shown(adjacency)}; it must be an upper triangular {n} x {n} matrix of digits 0 and 1"
        )
    if adjacency.count("1") > _MOST_EDGES:
        raise ValueError(f"its cell has {adjacency.count('1')} edges; NAS-Bench-101 has at most {_MOST_EDGES}")


def _evaluations(metrics: object) -> list[Evaluation]:
    """Return the evaluations of base64 metrics. Raises `ValueError` if there are none."""
    if not isinstance(metrics, str):
        raise ValueError("its metrics are not text")
    try:
        # Some encoders insert line breaks.
        evaluations = read_evaluations(a2b_base64(metrics.replace("\n", ""), strict_mode=True))
    except ValueError as error:
        raise ValueError(f"its metrics are not a ModelMetrics message in base64: {error}") from None
    if not evaluations:
        raise ValueError("its metrics have no evaluation")
    return evaluations
