"""CSV files of architectures: accuracies, one training per line, with the columns of
`hnas.pipeline.importers.training_rows`; and user columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from hnas.errors import UsageError
from hnas.pipeline.importers.files import open_input
from hnas.pipeline.importers.gathered_rows import BATCH, GatheredRows
from hnas.pipeline.importers.protocol import Advance, Rows
from hnas.pipeline.importers.training_rows import Trainings


def read_csv(path: Path, advance: Advance, gatherer: Callable[[Path, str], GatheredRows] = Trainings) -> Iterator[Rows]:
    """Yield the rows of the file in batches. Raises `UsageError` with the line of the first error."""
    try:
        file, size = open_input(path, "give a CSV file")
        with file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            for rows in _read(path, text, gatherer(path, "line")):
                yield rows
                advance(file.tell() if size else 0, size)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a CSV file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}); give a CSV file") from error
    except csv.Error as error:
        raise UsageError(f"{path} is not valid CSV: {error}") from error


#: The longest line, in characters. An architecture of NAS-Bench-101 with its matrix takes a few hundred.
LONGEST = 2**17
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}


def _lines(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of the file, each of bounded length."""
    number = 0
    while line := text.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise UsageError(f"{path}, line {number} has more than {LONGEST:,} characters; give a CSV file")
        if number == 1 and "," not in line:
            _check_separator(path, line)
        yield line


def _check_separator(path: Path, header: str) -> None:
    """Raise `UsageError` if a one-column header is really several columns separated by something other than commas."""
    for separator, name in _SEPARATORS.items():
        names = [name.strip().strip('"') for name in header.split(separator)]
        if len(names) > 1 and "arch" in names:
            raise UsageError(f"{path} separates its columns by {name}; write commas between them, and decimal points")


def _read(path: Path, text: io.TextIOWrapper, gathered: GatheredRows) -> Iterator[Rows]:
    lines = csv.reader(_lines(path, text), strict=True)
    header = [name.strip() for name in next(lines, [])]
    if not any(header):
        raise UsageError(f"{path} is empty; its first line must name columns such as arch,dataset,epochs,test_accuracy")
    gathered.check_header(header)
    for numbers, records, error in _batches(path, header, lines):
        if records:
            columns = (pa.array([field.strip() for field in column]) for column in zip(*records, strict=True))
            gathered.add(numbers, dict(zip(header, columns, strict=True)))
        if error is not None:
            gathered.settle()  # an earlier line may have an error of its own
            raise error
        if len(records) == BATCH:
            yield gathered.rows()
    gathered.finish()
    if len(gathered):
        yield gathered.rows()


def _batches(
    path: Path, header: list[str], lines: Any
) -> Iterator[tuple[list[int], list[list[str]], Exception | None]]:
    """Yield the records of the `csv` reader `lines` with their line numbers, and with the last batch the error that
    ended it."""
    numbers: list[int] = []
    records: list[list[str]] = []
    problem: Exception | None = None
    try:
        for record in lines:
            if not record:
                continue
            if len(record) != len(header):
                raise UsageError(
                    f"{path}, line {lines.line_num} has {len(record)} fields; the header names {len(header)}"
                )
            records.append(record)
            numbers.append(lines.line_num)
            if len(records) == BATCH:
                yield numbers, records, None
                numbers, records = [], []
    except (UsageError, OSError, UnicodeDecodeError, csv.Error) as error:
        problem = error
    yield numbers, records, problem
