"""Rows of architectures from CSV and Parquet files, a batch at a time, and the checks that these files share.

A batch whose columns are plainly valid is taken as a whole (`hnas.pipeline.importers.whole_columns`). Any other batch
is read row by row, which accepts unusual spellings and reports what is wrong with the first faulty row.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from hnas.errors import UsageError
from hnas.pipeline.importers.protocol import Rows
from hnas.pipeline.importers.whole_columns import first_repeated, numbers_of, texts_of
from hnas.pipeline.io.dataset_names import stored_dataset
from hnas.spaces import SearchSpace, Tabulated, key_of, search_spaces, space_of, space_of_form

#: Number of rows that an importer gathers before it yields them.
BATCH = 2**15
#: The text columns.
TEXT = ("space", "arch", "dataset")

_REMEMBERED = 1000
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

T = TypeVar("T")
Limits = tuple[float, float]


class GatheredRows(ABC):
    """Checks the rows of the file `path` and gathers them into rows of `table`.

    `unit` is the file's unit, "line" or "row". Every method raises `UsageError` with the position of an error. The
    object remembers the key of each row, to find repeated ones.
    """

    #: The table, the columns that identify a row, and the explanation of a repeated row.
    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]
    same: ClassVar[str]

    def __init__(self, path: Path, unit: str) -> None:
        self._path, self._unit = path, unit
        self._waiting: list[pa.RecordBatch] = []
        self._remembered: list[pa.RecordBatch] = []
        # Keys accepted by their form alone, by the space whose table must still be searched for them.
        self._by_form: dict[str, list[pa.Array]] = {}
        self._spaces: dict[str, SearchSpace] = {}
        self._datasets: dict[str, str] = {}
        self._guessed: str | None = None

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns of the table."""

    @property
    @abstractmethod
    def limits(self) -> Mapping[str, Limits]:
        """The number columns, each with its smallest and largest allowed value."""

    @abstractmethod
    def check_header(self, header: list[str]) -> None:
        """Raise `UsageError` unless `header` has every required column, each once, and no unknown ones."""

    def faulty(self, batch: pa.RecordBatch) -> bool:
        """Return whether a row of the batch has an error that no single column shows; `row_fault` says which."""
        return False

    def row_fault(self, values: Mapping[str, object]) -> str | None:
        """Return what is wrong with the combination of numbers in one row, or None."""
        return None

    def taken(self, batch: pa.RecordBatch) -> None:  # noqa: B027 (few need it)
        """Take note of an accepted batch."""

    def add(self, numbers: Sequence[int], columns: Mapping[str, pa.Array]) -> None:
        """Add the lines or rows `numbers`, at least one, in ascending order.

        Number columns may hold numbers or text; null and "" mean unknown.
        """
        batch = self._whole(columns)
        if batch is not None:
            self._remember(numbers, batch)
            return
        if not self._remembered:
            self._guessed = None
        gathered: dict[str, list[object]] = {name: [] for name in self.schema.names}
        rows = zip(*(column.to_pylist() for column in columns.values()), strict=True)
        try:
            for number, values in zip(numbers, rows, strict=True):
                row = self._row(number, dict(zip(columns, values, strict=True)))
                for name, value in row.items():
                    gathered[name].append(value)
        except UsageError:
            self._remember(numbers[: len(gathered["arch"])], self._record_batch(gathered))
            self.settle()  # an earlier row may repeat another
            raise
        self._remember(numbers, self._record_batch(gathered))

    def _whole(self, columns: Mapping[str, pa.Array]) -> pa.RecordBatch | None:
        """Return a batch of a single space whose columns are valid as they are, or None if its rows must be checked.

        In a space with a table, keys are accepted here by their form, and `settle` looks them up together.
        """
        try:
            archs = texts_of(columns["arch"])
            name = self._space_of_all(columns.get("space"), archs)
            if name is None:
                return None
            space = self._spaces.setdefault(name, search_spaces[name])
            by_form = isinstance(space, Tabulated) and pc.all(pc.match_substring_regex(archs, space.key_form)).as_py()
            if not by_form:
                archs = _mapped(archs, lambda arch: key_of(space, arch))
            arrays: dict[str, pa.Array] = {"space": pa.repeat(name, len(archs)), "arch": archs}
            if "dataset" in columns:
                arrays["dataset"] = _mapped(texts_of(columns["dataset"]), self._dataset)
            for field in self.schema:
                if field.name in columns and field.name not in arrays:
                    arrays[field.name] = numbers_of(columns[field.name], field.type, self.limits[field.name])
                arrays.setdefault(field.name, pa.nulls(len(archs), field.type))
            batch = pa.RecordBatch.from_pydict(arrays, schema=self.schema)
        except (UsageError, ValueError, TypeError, pa.ArrowException):  # reading row by row reports the reason
            return None
        if self.faulty(batch):
            return None
        if by_form:
            self._by_form.setdefault(name, []).append(archs)
        return batch

    def _space_of_all(self, spaces: pa.Array | None, archs: pa.Array) -> str | None:
        """Return the only space of a batch; None if its rows name several, or if it has to be inferred row by row."""
        if spaces is not None:
            names = texts_of(spaces).unique().to_pylist()
            return names[0].strip() or None if len(names) == 1 else None
        if self._guessed is None:
            self._guessed = space_of_form(archs[0].as_py())
        return self._guessed

    def _row(self, number: int, row: Mapping[str, object]) -> dict[str, object]:
        """Return one line or row as a dictionary with the columns of the table."""
        where = self._where(number)
        arch, dataset = str(row["arch"] or "").strip(), str(row.get("dataset") or "").strip()
        name = str(row.get("space") or self._guessed or "").strip()
        if not name:
            name = self._guessed = _at(where, space_of, arch).name
        if name not in self._spaces:
            self._spaces[name] = _at(where, search_spaces.__getitem__, name)
        space = self._spaces[name]
        arch = _at(where, lambda spelling: key_of(space, spelling), arch)
        if "dataset" in row and not dataset:
            raise UsageError(f"{where} names no dataset; write one, such as cifar10")
        try:
            stored = self._dataset(dataset) if "dataset" in row else None
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
        values: dict[str, object] = {
            field: _number(row.get(field), field, where, self.schema.field(field).type, limits)
            for field, limits in self.limits.items()
        }
        fault = self.row_fault(values)
        if fault is not None:
            raise UsageError(f"{where} {fault}")
        return {"space": name, "arch": arch, "dataset": stored, **values}

    def _where(self, number: int) -> str:
        return f"{self._path}, {self._unit} {number}"

    def _dataset(self, name: str) -> str:
        """Return `name` in the spelling of stores, memoised. Raises `ValueError` if no store can have that name."""
        if name in self._datasets:
            return self._datasets[name]
        spelled = stored_dataset(name)
        if len(self._datasets) < _REMEMBERED:
            self._datasets[name] = spelled
        return spelled

    def _remember(self, numbers: Sequence[int], batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._waiting.append(batch)
            keys = {name: batch[name] for name in self.key} | {"number": pa.array(numbers, pa.int64())}
            self._remembered.append(pa.RecordBatch.from_pydict(keys))
            self.taken(batch)

    def settle(self) -> None:
        """Run the checks that need all rows so far: no row is repeated, and keys accepted by form are in the table.

        Raises `UsageError` for the first row that fails.
        """
        if not self._remembered:
            return
        rows = pa.Table.from_batches(self._remembered)
        unknown = {}
        for name, arrays in self._by_form.items():
            space = self._spaces[name]
            assert isinstance(space, Tabulated)
            key = space.first_unknown(pa.chunked_array(arrays).unique().to_pylist())
            if key is not None:
                mask = pc.and_(pc.equal(rows["space"], name), pc.equal(rows["arch"], key))
                unknown[rows.filter(mask)["number"][0].as_py()] = (space, key)
        repeated = first_repeated(rows, self.key)
        if unknown and (repeated is None or min(unknown) <= repeated[0]):
            number = min(unknown)
            space, key = unknown[number]
            where = self._where(number)
            if self._guessed == space.name and number == rows["number"][0].as_py():
                _at(where, space_of, key)  # reports what every space objects to
            _at(where, lambda spelling: key_of(space, spelling), key)
        if repeated is not None:
            raise UsageError(f"{self._where(repeated[0])} repeats {self._unit} {repeated[1]}: {self.same}")

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self._waiting)

    def rows(self) -> Rows:
        """Return the rows added since the last call."""
        table = pa.Table.from_batches(self._waiting, self.schema).combine_chunks()
        self._waiting = []
        return Rows(self.table, next(iter(table.to_batches()), self._record_batch({})))

    def finish(self) -> None:
        """Check the file as a whole: it has rows, and none is repeated."""
        self.settle()
        if not self._remembered:
            raise UsageError(f"{self._path} has a header but no rows")

    def _record_batch(self, gathered: Mapping[str, list[object]]) -> pa.RecordBatch:
        schema = self.schema
        return pa.RecordBatch.from_pydict({name: gathered.get(name, []) for name in schema.names}, schema=schema)


def _mapped(texts: pa.Array, function: Callable[[str], str]) -> pa.Array:
    """Apply `function` to each text, calling it once per distinct text."""
    encoded = texts.dictionary_encode()
    return pa.array([function(text) for text in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def _at(where: str, call: Callable[[str], T], argument: str) -> T:
    """Return `call(argument)`, putting the position in the file before its error message."""
    try:
        return call(argument)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _number(raw: object, name: str, where: str, kind: pa.DataType, limits: Limits) -> float | None:
    if raw is None or raw == "":
        return None
    whole = pa.types.is_integer(kind)
    convert: Callable[..., float] = int if whole else float
    try:
        value = convert(raw)
        # Python reads 9_3 as 93.
        if "_" in raw if isinstance(raw, str) else whole and value != raw:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        comma = "; write a decimal point" if isinstance(raw, str) and _DECIMAL_COMMA.fullmatch(raw) else ""
        raise UsageError(f"{where}: {name} is {raw!r:.120}, not a {'whole ' if whole else ''}number{comma}") from None
    low, high = limits
    if not low <= value <= high or math.isinf(value):
        expected = "finite, or empty if unknown" if low == -math.inf else f"between {low:g} and {high:g}"
        raise UsageError(f"{where}: {name} is {raw}; it must be {expected}")
    return value
