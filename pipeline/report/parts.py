"""The parts of a report: sections with paragraphs, tables and charts, and the points that charts share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hnas.pipeline.io.printable import printable
from hnas.pipeline.report.points import PointSet


@dataclass(frozen=True)
class Table:
    """A table of strings under a `caption`. Columns that are not `texts` are aligned to the right.

    `shades` (rows, columns) colours each cell that has a number from −1 to 1. `folded` tables open on demand.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[bool]
    shades: Sequence[Sequence[float | None]] | None = None
    folded: bool = False

    def shade(self, row: int, column: int) -> str:
        """The CSS class of a cell, in steps of 0.1."""
        value = None if self.shades is None else self.shades[row][column]
        return "" if value is None else f" {'n' if value < 0 else 'p'}{min(10, round(abs(value) * 10))}"


@dataclass(frozen=True)
class Chart:
    """A chart: `title` stands above it, `about` is its text for screen readers, and report.js draws `spec`."""

    title: str
    about: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Charts:
    """Charts side by side, as many as fit, with one `caption`."""

    caption: str
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Section:
    """A section with a heading. Its anchor is derived from the title."""

    title: str
    text: Sequence[str] = ()
    blocks: Sequence[Table | Charts] = ()

    @property
    def anchor(self) -> str:
        """The id that links point to."""
        return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in self.title.lower()).split())

    @property
    def parts(self) -> list[tuple[str, Table | Charts]]:
        """The blocks with their kinds."""
        return [("table" if isinstance(block, Table) else "charts", block) for block in self.blocks]


@dataclass
class Document:
    """A whole report: its sections, the points of its charts by name, and the tables of its footer."""

    title: str
    lead: str
    sections: list[Section] = field(default_factory=list)
    sets: dict[str, PointSet] = field(default_factory=dict)
    provenance: list[Table] = field(default_factory=list)


def number(value: float | None) -> str:
    """A number for people: whole numbers in full, others with five digits, an empty string for None and NaN."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) < 1e15 and float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.5g}"


def records_table(caption: str, records: Sequence[dict[str, Any]], *, most: int = 50, folded: bool = False) -> Table:
    """A table of the first `most` records, which share their keys; the caption says if there are more."""
    shown = records[:most]
    if len(records) > most:
        caption = f"{caption}: the first {most} of {len(records):,}"
    texts = [any(isinstance(record[name], str) for record in shown) for name in shown[0]]
    rows = [[_cell(value) for value in record.values()] for record in shown]
    return Table(caption, [name.replace("_", " ") for name in shown[0]], rows, texts, folded=folded)


def settings_table(caption: str, settings: dict[str, Any]) -> Table:
    """A table of names and values. Nested names become paths such as `training.epochs`."""
    return Table(caption, ["name", "value"], [[name, _cell(value)] for name, value in _flat(settings)], [True, True])


def _flat(settings: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{path}{name}.")
        elif value not in (None, [], ""):
            pairs.append((printable(f"{path}{name}"), value))
    return pairs


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return number(value) if isinstance(value, int | float) else printable("" if value is None else str(value))
