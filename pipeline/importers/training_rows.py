"""Trainings, a batch at a time, as CSV and Parquet files list them: one set of columns, and one set of checks.

Columns: `arch` and `dataset`, at least one of `train_accuracy`, `valid_accuracy`, `test_accuracy` in percent; `space`,
`epochs`, `seed` and `seconds` where they are known. Without a `space` column it is the one that takes the first
architecture.

A batch whose columns are plainly right is taken whole (`hnas.pipeline.importers.training_columns`); any other goes row
by row, which takes unusual spellings and says what is wrong with the first faulty row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from hnas.errors import UsageError, did_you_mean
from hnas.pipeline.importers.protocol import Rows
from hnas.pipeline.importers.training_columns import INT32, INT64, column_of, first_repeated
from hnas.pipeline.io.dataset_names import TEN_CLASSES, stored_dataset
from hnas.pipeline.store.schema import ACCURACIES, SCHEMAS
from hnas.spaces import SearchSpace, Tabulated, key_of, search_spaces, space_of, space_of_form

REQUIRED = ("arch", "dataset")
OPTIONAL = ("space", "epochs", "seed", "seconds", *ACCURACIES)

#: Rows that an importer gathers before it yields them.
BATCH = 2**15

_REMEMBERED = 1000
_KEY = ["space", "arch", "dataset", "epochs", "seed"]

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

T = TypeVar("T")


class Trainings:
    """Checks the trainings of the file `path` and gathers them into rows of `accuracies`.

    `unit` is what the file consists of: a line, a row. Every method raises `UsageError` naming the place of a fault. It
    remembers the architecture, data set, epochs and seed of each training, to tell repeated ones.
    """

    def __init__(self, path: Path, unit: str) -> None:
        self._path, self._unit = path, unit
        self._waiting: list[pa.RecordBatch] = []
        self._remembered: list[pa.RecordBatch] = []
        # The keys that were taken by their form alone, by the space in whose table they are yet to be found.
        self._by_form: dict[str, list[pa.Array]] = {}
        self._spaces: dict[str, SearchSpace] = {}
        self._datasets: dict[str, str] = {}
        self._guessed: str | None = None
        self._highest = dict.fromkeys(ACCURACIES, 0.0)
        self._counts = dict.fromkeys(ACCURACIES, 0)
        self._last_on = dict.fromkeys(ACCURACIES, "")

    def check_header(self, header: list[str]) -> None:
        """`header` has the columns that are needed, each once, and no others."""
        missing = [name for name in REQUIRED if name not in header]
        if missing or not any(name in header for name in ACCURACIES):
            needed = f"{' and '.join(missing)}" if missing else f"one of {', '.join(ACCURACIES)}"
            raise UsageError(f"{self._path} has no column {needed}; its header is {','.join(header)[:200]}")
        known = (*REQUIRED, *OPTIONAL)
        unknown = [name for name in header if name not in known]
        if unknown or len(set(header)) < len(header):
            what = f"a column {unknown[0]!r} that is not known" if unknown else "a column twice"
            hint = did_you_mean(unknown[0], known) if unknown else ""
            raise UsageError(f"{self._path} has {what}; the columns are {', '.join(known)}{hint}")

    def add(self, numbers: Sequence[int], columns: Mapping[str, pa.Array]) -> None:
        """Take the trainings of the lines or rows `numbers`, at least one, in ascending order.

        Numbers come as such or as text, null or "" where nothing is known.
        """
        batch = self._whole(columns)
        if batch is not None:
            self._remember(numbers, batch)
            return
        if not self._remembered:
            self._guessed = None
        gathered: dict[str, list[object]] = {name: [] for name in SCHEMAS["accuracies"].names}
        rows = zip(*(column.to_pylist() for column in columns.values()), strict=True)
        try:
            for number, values in zip(numbers, rows, strict=True):
                row = self._row(number, dict(zip(columns, values, strict=True)))
                for name, value in row.items():
                    gathered[name].append(value)
        except UsageError:
            self._remember(numbers[: len(gathered["arch"])], _record_batch(gathered))
            self.settle()  # a row before this one may repeat another
            raise
        self._remember(numbers, _record_batch(gathered))

    def _whole(self, columns: Mapping[str, pa.Array]) -> pa.RecordBatch | None:
        """The rows of a batch of one space whose columns are right as they stand; None where any has to be looked at.

        Keys of a space that has them in a table are taken by their form here, and looked up together in `settle`.
        """
        try:
            archs = column_of(columns["arch"], "arch")
            name = self._space_of_all(columns.get("space"), archs)
            if name is None:
                return None
            space = self._spaces.setdefault(name, search_spaces[name])
            by_form = isinstance(space, Tabulated) and pc.all(pc.match_substring_regex(archs, space.key_form)).as_py()
            if not by_form:
                archs = _mapped(archs, lambda arch: key_of(space, arch))
            made: dict[str, pa.Array] = {
                "space": pa.repeat(name, len(archs)),
                "arch": archs,
                "dataset": _mapped(column_of(columns["dataset"], "dataset"), self._dataset),
            }
            for field in SCHEMAS["accuracies"]:
                if field.name not in made:
                    given = columns.get(field.name)
                    made[field.name] = (
                        pa.nulls(len(archs), field.type) if given is None else column_of(given, field.name)
                    )
        except (UsageError, ValueError, TypeError, pa.ArrowException):  # whatever it is, the row itself says it
            return None
        if pc.any(
            pc.and_(pc.and_(*(made[name].is_null() for name in ACCURACIES[:2])), made[ACCURACIES[2]].is_null())
        ).as_py():
            return None
        if by_form:
            self._by_form.setdefault(name, []).append(archs)
        return pa.RecordBatch.from_pydict(made, schema=SCHEMAS["accuracies"])

    def _space_of_all(self, given: pa.Array | None, archs: pa.Array) -> str | None:
        """The one space of a batch, None where its rows name several or it has to be worked out."""
        if given is not None:
            names = column_of(given, "space").unique().to_pylist()
            return names[0].strip() or None if len(names) == 1 else None
        if self._guessed is None:
            self._guessed = space_of_form(archs[0].as_py())
        return self._guessed

    def _row(self, number: int, row: Mapping[str, object]) -> dict[str, object]:
        """The training of one line or row, by the columns of `accuracies`."""
        where = self._where(number)
        arch, dataset = str(row["arch"] or "").strip(), str(row["dataset"] or "").strip()
        name = str(row.get("space") or self._guessed or "").strip()
        if not name:
            name = self._guessed = _at(where, space_of, arch).name
        if name not in self._spaces:
            self._spaces[name] = _at(where, search_spaces.__getitem__, name)
        space = self._spaces[name]
        arch = _at(where, lambda spelling: key_of(space, spelling), arch)
        if not dataset:
            raise UsageError(f"{where} names no dataset; write one such as cifar10")
        try:
            dataset = self._dataset(dataset)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
        values: dict[str, object] = {
            "space": name,
            "arch": arch,
            "dataset": dataset,
            "epochs": _number(row.get("epochs"), "epochs", where, int, 1, INT32),
            "seed": _number(row.get("seed"), "seed", where, int, 0, INT64),
            "seconds": _number(row.get("seconds"), "seconds", where, float, 0, math.inf),
        }
        accuracies = {a: _number(row.get(a), a, where, float, 0, 100) for a in ACCURACIES}
        if all(value is None for value in accuracies.values()):
            raise UsageError(f"{where} gives no accuracy; fill at least one of {', '.join(ACCURACIES)}")
        return values | accuracies

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
        if not batch.num_rows:
            return
        self._waiting.append(batch)
        keys = {name: batch[name] for name in _KEY} | {"number": pa.array(numbers, pa.int64())}
        self._remembered.append(pa.RecordBatch.from_pydict(keys))
        for name in ACCURACIES:
            known = batch[name].is_valid()
            count = known.true_count
            if count:
                self._counts[name] += count
                self._highest[name] = max(self._highest[name], pc.max(batch[name]).as_py())
                self._last_on[name] = batch["dataset"].filter(known)[-1].as_py()

    def settle(self) -> None:
        """Check what only all rows until now tell: no training comes twice, keys taken by their form are in the table.

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
        repeated = first_repeated(rows, _KEY)
        if unknown and (repeated is None or min(unknown) <= repeated[0]):
            number = min(unknown)
            space, key = unknown[number]
            where = self._where(number)
            if self._guessed == space.name and number == rows["number"][0].as_py():
                _at(where, space_of, key)  # says what every space objects to
            _at(where, lambda spelling: key_of(space, spelling), key)
        if repeated is not None:
            raise UsageError(
                f"{self._where(repeated[0])} repeats {self._unit} {repeated[1]}: the same architecture, dataset, "
                "epochs and seed; tell trainings apart by a seed column"
            )

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self._waiting)

    def rows(self) -> Rows:
        """The trainings that were added since the last call."""
        table = pa.Table.from_batches(self._waiting, SCHEMAS["accuracies"]).combine_chunks()
        self._waiting = []
        return Rows("accuracies", next(iter(table.to_batches()), _record_batch({})))

    def finish(self) -> None:
        """The file as a whole: there are rows, and they are percent."""
        self.settle()
        if not self._remembered:
            raise UsageError(f"{self._path} has a header but no rows")
        for name in ACCURACIES:
            # One value may be that low, but not 0.9 % of ten classes, where chance is 10 %.
            alone = self._counts[name] == 1 and self._last_on[name] in TEN_CLASSES and self._highest[name] > 0
            if (self._counts[name] > 1 or alone) and self._highest[name] <= 1:
                raise UsageError(
                    f"{self._path}: no {name} exceeds 1, so they look like fractions; give percent, 0 to 100"
                )


def _record_batch(gathered: Mapping[str, list[object]]) -> pa.RecordBatch:
    schema = SCHEMAS["accuracies"]
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


def _number(given: object, name: str, where: str, kind: Callable[..., float], low: float, high: float) -> float | None:
    if given is None or given == "":
        return None
    whole = kind is not float
    try:
        value = kind(given)
        # Python takes 9_3 for 93.
        if "_" in given if isinstance(given, str) else whole and value != given:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        comma = "; write a decimal point" if isinstance(given, str) and _DECIMAL_COMMA.fullmatch(given) else ""
        raise UsageError(
            f"{where}: {name} is {given!r:.120}, which is no {'whole ' if whole else ''}number{comma}"
        ) from None
    if not low <= value <= high or math.isinf(value):
        raise UsageError(f"{where}: {name} is {given}; it must lie between {low:g} and {high:g}")
    return value
