"""Trainings one at a time, as CSV and Parquet files list them: one set of columns, and one set of checks.

Columns: `arch` and `dataset`, at least one of `train_accuracy`, `valid_accuracy`, `test_accuracy` in percent; `space`,
`epochs`, `seed` and `seconds` where they are known. Without a `space` column it is the one that takes the first
architecture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from hnas.errors import UsageError, did_you_mean
from hnas.pipeline.importers.protocol import Rows
from hnas.pipeline.io.dataset_names import TEN_CLASSES, stored_dataset
from hnas.pipeline.store.schema import ACCURACIES, SCHEMAS
from hnas.spaces import SearchSpace, key_of, search_spaces, space_of

REQUIRED = ("arch", "dataset")
OPTIONAL = ("space", "epochs", "seed", "seconds", *ACCURACIES)

#: Rows that an importer gathers before it yields them.
BATCH = 2**15

_INT32 = 2**31 - 1
_REMEMBERED = 1000

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

T = TypeVar("T")


class Trainings:
    """Checks the trainings of the file `path` and gathers them into rows of `accuracies`.

    `unit` is what the file consists of: a line, a row. Every method raises `UsageError` naming the place of a fault. It
    remembers sixteen bytes of each training, to tell repeated ones.
    """

    def __init__(self, path: Path, unit: str) -> None:
        self._path, self._unit = path, unit
        self._columns = _no_rows()
        self._spaces: dict[str, SearchSpace] = {}
        self._datasets: dict[str, str] = {}
        self._guessed: str | None = None
        self._seen: dict[bytes, int] = {}
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

    def add(self, number: int, row: Mapping[str, object]) -> None:
        """Take the training of line or row `number`: numbers as such or as text, None or "" where nothing is known."""
        where = f"{self._path}, {self._unit} {number}"
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
            dataset = self._datasets[dataset] if dataset in self._datasets else self._dataset(dataset)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from error
        values: dict[str, object] = {
            "space": name,
            "arch": arch,
            "dataset": dataset,
            "epochs": _number(row.get("epochs"), "epochs", where, int, 1, _INT32),
            "seed": _number(row.get("seed"), "seed", where, int, 0, 2**63 - 1),
            "seconds": _number(row.get("seconds"), "seconds", where, float, 0, math.inf),
        }
        accuracies = {a: _number(row.get(a), a, where, float, 0, 100) for a in ACCURACIES}
        if all(value is None for value in accuracies.values()):
            raise UsageError(f"{where} gives no accuracy; fill at least one of {', '.join(ACCURACIES)}")
        self._check_new(number, where, (name, arch, dataset, values["epochs"], values["seed"]))
        for column, value in accuracies.items():
            if value is not None:
                self._counts[column] += 1
                self._highest[column] = max(self._highest[column], value)
                self._last_on[column] = dataset
        for column, found in (values | accuracies).items():
            self._columns[column].append(found)

    def _dataset(self, name: str) -> str:
        """`name` as stores spell it, remembered. Raises `ValueError` for one that no store can have."""
        found = stored_dataset(name)
        if len(self._datasets) < _REMEMBERED:
            self._datasets[name] = found
        return found

    def _check_new(self, number: int, where: str, training: tuple[object, ...]) -> None:
        key = blake2b(repr(training).encode(), digest_size=16).digest()
        before = self._seen.setdefault(key, number)
        if before != number:
            raise UsageError(
                f"{where} repeats {self._unit} {before}: the same architecture, dataset, epochs and seed; tell "
                "trainings apart by a seed column"
            )

    def __len__(self) -> int:
        return len(self._columns["arch"])

    def rows(self) -> Rows:
        """What was added since the last call."""
        batch = pa.RecordBatch.from_pydict(self._columns, schema=SCHEMAS["accuracies"])
        self._columns = _no_rows()
        return Rows("accuracies", batch)

    def finish(self) -> None:
        """The file as a whole: there are rows, and they are percent."""
        if not self._seen:
            raise UsageError(f"{self._path} has a header but no rows")
        for name in ACCURACIES:
            # One value may be that low, but not 0.9 % of ten classes, where chance is 10 %.
            alone = self._counts[name] == 1 and self._last_on[name] in TEN_CLASSES and self._highest[name] > 0
            if (self._counts[name] > 1 or alone) and self._highest[name] <= 1:
                raise UsageError(
                    f"{self._path}: no {name} exceeds 1, so they look like fractions; give percent, 0 to 100"
                )


def _no_rows() -> dict[str, list[object]]:
    return {name: [] for name in SCHEMAS["accuracies"].names}


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
