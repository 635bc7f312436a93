"""Rows of architectures, a batch at a time, as CSV and Parquet files list them: the checks that all such files share.

A batch whose columns are plainly right is taken whole (`hnas.pipeline.importers.whole_columns`); any other goes row by
row, which takes unusual spellings and says what is wrong with the first faulty row.
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

#: Rows that an importer gathers before it yields them.
BATCH = 2**15
#: The columns that hold text.
TEXT = ("space", "arch", "dataset")

_REMEMBERED = 1000
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

T = TypeVar("T")
Limits = tuple[float, float]


class GatheredRows(ABC):
    """Checks the rows of the file `path` and gathers them into rows of `table`.

    `unit` is what the file consists of: a line, a row. Every method raises `UsageError` naming the place of a fault. It
    remembers what tells each row from the others, to find repeated ones.
    """

    #: The table that the rows are of, the columns that tell its rows apart, and how a repeated row is explained.
    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]
    same: ClassVar[str]

    def __init__(self, path: Path, unit: str) -> None:
        self._path, self._unit = path, unit
        self._waiting: list[pa.RecordBatch] = []
        self._remembered: list[pa.RecordBatch] = []
        # The keys that were taken by their form alone, by the space in whose table they are yet to be found.
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
        """The columns of numbers, with the least and the greatest that each may hold."""

    @abstractmethod
    def check_header(self, header: list[str]) -> None:
        """`header` has the columns that are needed, each once, and no others."""

    def faulty(self, batch: pa.RecordBatch) -> bool:
        """Whether a row of the batch has a fault that no column shows alone; `row_fault` says which."""
        return False

    def row_fault(self, values: Mapping[str, object]) -> str | None:
        """What is wrong with the numbers of one row together."""
        return None

    def taken(self, batch: pa.RecordBatch) -> None:  # noqa: B027 (few need it)
        """Hear of each batch that was taken."""

    def add(self, numbers: Sequence[int], columns: Mapping[str, pa.Array]) -> None:
        """Take the lines or rows `numbers`, at least one, in ascending order.

        Numbers come as such or as text, null or "" where nothing is known.
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
            self.settle()  # a row before this one may repeat another
            raise
        self._remember(numbers, self._record_batch(gathered))

    def _whole(self, columns: Mapping[str, pa.Array]) -> pa.RecordBatch | None:
        """The rows of a batch of one space whose columns are right as they stand; None where any has to be looked at.

        Keys of a space that has them in a table are taken by their form here, and looked up together in `settle`.
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
            made: dict[str, pa.Array] = {"space": pa.repeat(name, len(archs)), "arch": archs}
            if "dataset" in columns:
                made["dataset"] = _mapped(texts_of(columns["dataset"]), self._dataset)
            for field in self.schema:
                if field.name in columns and field.name not in made:
                    made[field.name] = numbers_of(columns[field.name], field.type, self.limits[field.name])
                made.setdefault(field.name, pa.nulls(len(archs), field.type))
            batch = pa.RecordBatch.from_pydict(made, schema=self.schema)
        except (UsageError, ValueError, TypeError, pa.ArrowException):  # whatever it is, the row itself says it
            return None
        if self.faulty(batch):
            return None
        if by_form:
            self._by_form.setdefault(name, []).append(archs)
        return batch

    def _space_of_all(self, given: pa.Array | None, archs: pa.Array) -> str | None:
        """The one space of a batch, None where its rows name several or it has to be worked out."""
        if given is not None:
            names = texts_of(given).unique().to_pylist()
            return names[0].strip() or None if len(names) == 1 else None
        if self._guessed is None:
            self._guessed = space_of_form(archs[0].as_py())
        return self._guessed

    def _row(self, number: int, row: Mapping[str, object]) -> dict[str, object]:
        """One line or row, by the columns of the table."""
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
            raise UsageError(f"{where} names no dataset; write one such as cifar10")
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
        """`name` as stores spell it, remembered. Raises `ValueError` for one that no store can have."""
        if name in self._datasets:
            return self._datasets[name]
        found = stored_dataset(name)
        if len(self._datasets) < _REMEMBERED:
            self._datasets[name] = found
        return found

    def _remember(self, numbers: Sequence[int], batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._waiting.append(batch)
            keys = {name: batch[name] for name in self.key} | {"number": pa.array(numbers, pa.int64())}
            self._remembered.append(pa.RecordBatch.from_pydict(keys))
            self.taken(batch)

    def settle(self) -> None:
        """Check what only all rows until now tell: none comes twice, and keys taken by their form are in the table.

        Raises `UsageError` for the first row of which that is not so.
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
                _at(where, space_of, key)  # says what every space objects to
            _at(where, lambda spelling: key_of(space, spelling), key)
        if repeated is not None:
            raise UsageError(f"{self._where(repeated[0])} repeats {self._unit} {repeated[1]}: {self.same}")

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self._waiting)

    def rows(self) -> Rows:
        """What was added since the last call."""
        table = pa.Table.from_batches(self._waiting, self.schema).combine_chunks()
        self._waiting = []
        return Rows(self.table, next(iter(table.to_batches()), self._record_batch({})))

    def finish(self) -> None:
        """The file as a whole is right: it has rows, and none of them twice."""
        self.settle()
        if not self._remembered:
            raise UsageError(f"{self._path} has a header but no rows")

    def _record_batch(self, gathered: Mapping[str, list[object]]) -> pa.RecordBatch:
        schema = self.schema
        return pa.RecordBatch.from_pydict({name: gathered.get(name, []) for name in schema.names}, schema=schema)


def _mapped(texts: pa.Array, function: Callable[[str], str]) -> pa.Array:
    """`function` of each text, called once for each that differs."""
    encoded = texts.dictionary_encode()
    return pa.array([function(text) for text in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def _at(where: str, call: Callable[[str], T], argument: str) -> T:
    """`call(argument)`, with the place in the file before its complaint."""
    try:
        return call(argument)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _number(given: object, name: str, where: str, kind: pa.DataType, limits: Limits) -> float | None:
    if given is None or given == "":
        return None
    whole = pa.types.is_integer(kind)
    take: Callable[..., float] = int if whole else float
    try:
        value = take(given)
        # Python takes 9_3 for 93.
        if "_" in given if isinstance(given, str) else whole and value != given:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        comma = "; write a decimal point" if isinstance(given, str) and _DECIMAL_COMMA.fullmatch(given) else ""
        raise UsageError(
            f"{where}: {name} is {given!r:.120}, which is no {'whole ' if whole else ''}number{comma}"
        ) from None
    low, high = limits
    if not low <= value <= high or math.isinf(value):
        wanted = "finite, or empty where it is not known" if low == -math.inf else f"between {low:g} and {high:g}"
        raise UsageError(f"{where}: {name} is {given}; it must {'be' if low == -math.inf else 'lie'} {wanted}")
    return value
