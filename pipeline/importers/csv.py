"""Accuracies from a CSV file: one training a line, in the columns of `pipeline.importers.trainings`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from hnas.errors import UsageError
from pipeline.importers.tables import Advance, Rows
from pipeline.importers.trainings import BATCH, Trainings


def read_csv(path: Path, advance: Advance) -> Iterator[Rows]:
    """Its rows in batches. Raises `UsageError` with the line of the first fault."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            for rows in _read(path, text):
                yield rows
                advance(file.tell(), size)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give a CSV file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}); give a CSV file") from error
    except csv.Error as error:
        raise UsageError(f"{path} is no valid CSV: {error}") from error


def _read(path: Path, text: io.TextIOWrapper) -> Iterator[Rows]:
    lines = csv.reader(text, strict=True)
    header = [name.strip() for name in next(lines, [])]
    if not any(header):
        raise UsageError(f"{path} is empty; its first line must name columns such as arch,dataset,epochs,test_accuracy")
    trainings = Trainings(path, "line")
    trainings.check_header(header)
    for record in lines:
        if not record:
            continue
        if len(record) != len(header):
            raise UsageError(f"{path}, line {lines.line_num} has {len(record)} fields; the header names {len(header)}")
        trainings.add(lines.line_num, {name: field.strip() for name, field in zip(header, record, strict=True)})
        if len(trainings) == BATCH:
            yield trainings.rows()
    trainings.finish()
    if len(trainings):
        yield trainings.rows()
