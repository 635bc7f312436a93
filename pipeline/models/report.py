"""Predictions as tables, CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import TextIO

from hnas.pipeline.io.printable import is_text, printable
from hnas.pipeline.io.terminal_tables import table
from hnas.pipeline.models.predictions import Prediction


def write_predictions(found: Iterable[Prediction], form: str, top: int, out: TextIO, width: int | None = None) -> int:
    """Write a row per image: its path, and its `top` labels with their probabilities, the most probable first.

    The columns are `image, label, probability`, then `label_2, probability_2, …`. CSV is written as predictions arrive.
    Without any image, nothing is written. Returns the number of rows.
    """
    names = ["image", *(f"{name}{'' if k == 1 else f'_{k}'}" for k in range(1, top + 1) for name in _COLUMNS)]
    rows = ([_path(one), *(cell for pair in one.top(top) for cell in pair)] for one in found)
    count = 0
    if form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        for count, row in enumerate(rows, 1):
            writer.writerows([names, row] if count == 1 else [row])
        return count
    labelled = list(rows)
    if form == "json" and labelled:
        records = [dict(zip(names, row, strict=False)) for row in labelled]
        out.write(json.dumps(records, indent=2) + "\n")
    elif labelled:
        cells = [names, *([_cell(value) for value in row] for row in labelled)]
        texts = [not name.startswith("probability") for name in names]
        out.write(table(cells, texts=texts, width=width, remedy="`--format csv` has all") + "\n")
    return len(labelled)


def unread_text(count: int, labelled: int) -> str:
    """Return how many images have no label, and whether any has one."""
    if not labelled:
        return f"none of the {count:,} images could be read"
    return f"{count:,} {'image' if count == 1 else 'images'} could not be read; all others are labelled"


_COLUMNS = ("label", "probability")


def _path(one: Prediction) -> str:
    """Return the path, with escapes if it is not valid text."""
    path = one.image or ""
    return path if is_text(path) else printable(path)


def _cell(value: str | float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else printable(value)
