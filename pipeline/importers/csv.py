"""Accuracies from a CSV file: one training a line, the architecture as the string that its space uses.

Columns: `arch` and `dataset`, at least one of `train_accuracy`, `valid_accuracy`, `test_accuracy` in percent; `space`,
`epochs`, `seed` and `seconds` where they are known. Without a `space` column it is the one that takes the first
architecture.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hnas.errors import UsageError
from hnas.spaces import SearchSpace, search_spaces, space_of

ACCURACIES = ("train_accuracy", "valid_accuracy", "test_accuracy")
_REQUIRED = ("arch", "dataset")
_OPTIONAL = ("space", "epochs", "seed", "seconds", *ACCURACIES)
_INT32 = 2**31 - 1

T = TypeVar("T")


def read_csv(path: Path) -> dict[str, list[object]]:
    """The columns of the common table. Raises `UsageError` with the line of the first fault."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read(path, csv.reader(file, strict=True))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a CSV file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}); give a CSV file") from error
    except csv.Error as error:
        raise UsageError(f"{path} is no valid CSV: {error}") from error


def _read(path: Path, lines: Any) -> dict[str, list[object]]:
    """`lines` is a `csv.reader`, which knows the number of the line that it read last."""
    header = [name.strip() for name in next(lines, [])]
    _check_header(path, header)
    columns: dict[str, list[object]] = {name: [] for name in (*_REQUIRED, *_OPTIONAL)}
    spaces: dict[str, SearchSpace] = {}
    guessed: str | None = None
    seen: dict[tuple[object, ...], int] = {}
    for record in lines:
        where = f"{path}, line {lines.line_num}"
        if not record:
            continue
        if len(record) != len(header):
            raise UsageError(f"{where} has {len(record)} fields; the header names {len(header)}")
        row = {name: text.strip() for name, text in zip(header, record, strict=True)}
        arch = row["arch"]
        name = row.get("space") or guessed
        if name is None:
            name = guessed = _at(where, space_of, arch).name
        if name not in spaces:
            spaces[name] = _at(where, search_spaces.__getitem__, name)
        _at(where, spaces[name].canonical, arch)
        if not row["dataset"]:
            raise UsageError(f"{where} names no dataset; write one such as cifar10")
        values: dict[str, object] = {
            "space": name,
            "arch": arch,
            "dataset": row["dataset"],
            "epochs": _number(row.get("epochs"), "epochs", where, int, 1, _INT32),
            "seed": _number(row.get("seed"), "seed", where, int, 0, 2**63 - 1),
            "seconds": _number(row.get("seconds"), "seconds", where, float, 0, math.inf),
        }
        values |= {a: _number(row.get(a), a, where, float, 0, 100) for a in ACCURACIES}
        if all(values[a] is None for a in ACCURACIES):
            raise UsageError(f"{where} gives no accuracy; fill at least one of {', '.join(ACCURACIES)}")
        key = (name, arch, values["dataset"], values["epochs"], values["seed"])
        if key in seen:
            raise UsageError(
                f"{where} repeats line {seen[key]}: the same architecture, dataset, epochs and seed; tell trainings "
                "apart by a seed column"
            )
        seen[key] = lines.line_num
        for column, value in values.items():
            columns[column].append(value)
    if not columns["arch"]:
        raise UsageError(f"{path} has a header but no rows")
    _check_percent(path, columns)
    return columns


def _check_header(path: Path, header: list[str]) -> None:
    known = (*_REQUIRED, *_OPTIONAL)
    if not any(header):
        raise UsageError(f"{path} is empty; its first line must name columns such as arch,dataset,epochs,test_accuracy")
    missing = [name for name in _REQUIRED if name not in header]
    if missing or not any(name in header for name in ACCURACIES):
        needed = f"{' and '.join(missing)}" if missing else f"one of {', '.join(ACCURACIES)}"
        raise UsageError(f"{path} has no column {needed}; its header is {','.join(header)[:200]}")
    unknown = [name for name in header if name not in known]
    if unknown or len(set(header)) < len(header):
        what = f"a column {unknown[0]!r} that is not known" if unknown else "a column twice"
        raise UsageError(f"{path} has {what}; the columns are {', '.join(known)}")


def _at(where: str, call: Callable[[str], T], argument: str) -> T:
    """`call(argument)`, with the place in the file before its complaint."""
    try:
        return call(argument)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _number(
    text: str | None, name: str, where: str, kind: Callable[[str], float], low: float, high: float
) -> float | None:
    if not text:
        return None
    try:
        value = kind(text)
    except ValueError:
        raise UsageError(f"{where}: {name} is {text!r}, which is no {'whole ' if kind is int else ''}number") from None
    if not low <= value <= high or math.isinf(value):
        raise UsageError(f"{where}: {name} is {text}; it must lie between {low:g} and {high:g}")
    return value


def _check_percent(path: Path, columns: dict[str, list[object]]) -> None:
    for name in ACCURACIES:
        values = [v for v in columns[name] if isinstance(v, float)]
        if len(values) > 1 and max(values) <= 1:
            raise UsageError(f"{path}: no {name} exceeds 1, so they look like fractions; give percent, 0 to 100")
