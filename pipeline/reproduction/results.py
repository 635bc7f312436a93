"""The contents of a reproduction: values beside the published ones, a verdict on each, and what is missing.

A value with a published counterpart p is compared at the digits that p is printed with. The verdicts are

- reached: at least as good as p; for a correlation, the sign of p and at least its magnitude;
- within: not reached, but p lies in the interval of the value;
- not reached: neither, with a reason;
- not printed: the paper has no number;
- not computed: we have no number;
- not comparable: ours belongs to other networks than the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Verdict = Literal["reached", "within", "not reached", "not printed", "not computed", "not comparable"]


@dataclass(frozen=True)
class Value:
    """One number: ours, its 95 % interval (`low`, `high`), its `spread` over `of` seeds, and the published one.

    `ours` is None where it was not computed. `form` is the format specification of the numbers. `reason` explains a
    number that is not reached.
    """

    ours: float | None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    of: int | None = None
    published: float | None = None
    published_spread: float | None = None
    verdict: Verdict = "not printed"
    reason: str = ""
    form: str = ".2f"

    @property
    def deviation(self) -> float | None:
        """Ours minus the published number."""
        return None if self.ours is None or self.published is None else self.ours - self.published


@dataclass(frozen=True)
class Row:
    """A row of a section: a value or None for each column, and a remark."""

    name: str
    values: tuple[Value | None, ...]
    remark: str = ""


@dataclass(frozen=True)
class Section:
    """A table: its heading in full and in a word, the names of its columns, and its rows.

    `first` heads the column of row names.
    """

    heading: str
    short: str
    first: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Missing:
    """Data that a store lacks: the commands that provide it, in order, and the time they take."""

    what: str
    commands: tuple[str, ...]
    takes: str


LEGEND = (
    "in brackets: the published number; ✓ at least as good as published, ≈ the published number lies in the interval, "
    "✗ not reached, for the reason below; no mark: not compared"
)


@dataclass(frozen=True)
class Reproduction:
    """A table or figure of the paper, computed now.

    `legend` explains brackets and marks; `drawn` holds what the figure needs beyond the sections.
    """

    what: str
    title: str
    sections: tuple[Section, ...] = ()
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    drawn: Mapping[str, Any] = field(default_factory=dict)
    legend: str = LEGEND


def correlation_verdict(ours: float, published: float, low: float, high: float, digits: int = 2) -> Verdict:
    """The verdict on a correlation: reached with the published sign and at least the published magnitude."""
    sign = np.sign(published)
    if round(ours * sign, digits) >= round(abs(published), digits):
        return "reached"
    return "within" if low <= published <= high else "not reached"


def accuracy_verdict(ours: float, published: float, low: float, high: float, digits: int = 2) -> Verdict:
    """The verdict on a number that is better the higher it is."""
    if round(ours, digits) >= round(published, digits):
        return "reached"
    return "within" if low <= published <= high else "not reached"


def equal_verdict(ours: float, published: float, low: float, high: float, digits: int = 2) -> Verdict:
    """The verdict on a number that should equal the published one."""
    if round(ours, digits) == round(published, digits):
        return "reached"
    return "within" if low <= published <= high else "not reached"
