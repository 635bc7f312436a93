"""`--warm-start`: known performances from a store's accuracies or a CSV file for the beginning of a search."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np

from hnas.errors import UsageError
from hnas.optim.methods.warm import normal_scores
from hnas.pipeline.catalog.pool import known_accuracies
from hnas.pipeline.catalog.signals import choose_signal
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.io.input_files import regular_file
from hnas.pipeline.io.printable import printable
from hnas.pipeline.search.settings import WarmStart
from hnas.pipeline.store.warm_starts import digest_of
from hnas.spaces import key_of, search_spaces

_FORM = "give SOURCE, SOURCE:DATASET or SOURCE:DATASET:EPOCHS of the store's accuracies, or a .csv file"


def read_warm_start(
    connection: duckdb.DuckDBPyConnection, space: str, dataset: str, given: Sequence[str]
) -> tuple[WarmStart, dict[str, float]]:
    """Return the known performances of architectures of `space` from `given` texts: stored sources or CSV files.

    A source without a data set refers to `dataset`. With several texts, an architecture's value is its mean normal
    score. Raises `UsageError` if a source or file has no values.
    """
    names, tables = zip(*(_read(connection, space, dataset, text) for text in given), strict=True)
    known = tables[0] if len(tables) == 1 else _mean_scores(tables)
    return WarmStart(sources=list(names), architectures=len(known), digest=digest_of(known)), known


def _mean_scores(tables: Sequence[dict[str, float]]) -> dict[str, float]:
    scores: dict[str, list[float]] = {}
    for table in tables:
        for arch, score in zip(table, normal_scores(list(table.values())).tolist(), strict=True):
            scores.setdefault(arch, []).append(score)
    return {arch: float(np.mean(values)) for arch, values in scores.items()}


def _read(connection: duckdb.DuckDBPyConnection, space: str, dataset: str, text: str) -> tuple[str, dict[str, float]]:
    if text.lower().endswith(".csv"):
        return printable(Path(text).name), _of_file(space, Path(text))
    source, *rest = text.split(":")
    if not source or len(rest) > 2 or not all(rest):
        raise UsageError(f"--warm-start {text!r:.200} is not valid; {_FORM}")
    epochs = None
    if len(rest) == 2:
        if not rest[1].isascii() or not rest[1].isdigit():
            raise UsageError(f"--warm-start {text!r:.200} has the invalid number of epochs {rest[1]!r:.50}; {_FORM}")
        epochs = min(int(rest[1]), 2**31 - 1)
    on = canonical_dataset(rest[0] if rest else dataset)
    signal = choose_signal(connection, space, on, source=source, epochs=epochs)
    if signal is None:
        raise UsageError(f"the store has no accuracies of {space} on {on} for --warm-start {text!r:.200}; {_FORM}")
    return str(signal), known_accuracies(connection, space, signal)


def _of_file(space: str, path: Path) -> dict[str, float]:
    """Return the rows of a CSV file with the columns arch and performance."""
    regular_file(path, "a CSV file with the columns arch,performance")
    known: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"arch", "performance"} <= set(rows.fieldnames or ()):
                raise UsageError(f"{printable(path)} lacks columns; a warm start needs arch and performance")
            for row in rows:
                where = f"{printable(path)}, line {rows.line_num}"
                try:
                    arch = key_of(search_spaces[space], row["arch"] or "")
                except UsageError as error:
                    raise UsageError(f"{where}: {error}") from error
                if arch in known:
                    raise UsageError(f"{where} repeats an architecture; give each once")
                known[arch] = _number(row["performance"], where)
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be read: {error.strerror}; {_FORM}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{printable(path)} is not valid CSV: {error}") from error
    return known


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where} has the performance {text!r:.100}; it must be a finite number")
    return value
