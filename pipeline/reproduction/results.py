"""What a reproduction has: values beside the published ones, a verdict on each, and what is missing.

The verdict on a value with a published counterpart p, at the digits that p is printed with:

- reached: at least as good as p; of a correlation, of p's sign and at least p's magnitude;
- within: not that, but p lies in the interval of the value;
- not reached: neither; a reason says why.

Where there is none, the number is not printed; where we have none, not computed; where ours is of other networks than
the paper's, not comparable.
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

    `ours` is None where it was not computed. `form` is how numbers are shown. `reason` explains what is not reached.
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
    """A line of a section: a value, or None where there is none, for each of the section's columns; a remark."""

    name: str
    values: tuple[Value | None, ...]
    remark: str = ""


@dataclass(frozen=True)
class Section:
    """A table: what it is of, in full and in a word, its columns' names, its rows.

    `first` heads the column of the rows' names.
    """

    heading: str
    short: str
    first: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Missing:
    """What a store lacks: the commands that bring it, one after the other, and how long that takes."""

    what: str
    commands: tuple[str, ...]
    takes: str


LEGEND = (
    "in brackets: the published number; ✓ at least as good as printed, ≈ the printed number lies in the interval, ✗ "
    "not reached, for the reason below; no mark: not judged"
)


@dataclass(frozen=True)
class Reproduction:
    """A table or figure of the paper, computed now.

    `legend` says what brackets and marks mean, `drawn` has what its figure needs beyond the sections.
    """

    what: str
    title: str
    sections: tuple[Section, ...] = ()
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    drawn: Mapping[str, Any] = field(default_factory=dict)
    legend: str = LEGEND


def correlation_verdict(ours: float, published: float, low: float, high: float, digits: int = 2) -> Verdict:
    """The verdict on a correlation: of the published sign and at least its magnitude is reached."""
    sign = np.sign(published)
    if round(ours * sign, digits) >= round(abs(published), digits):
        return "reached"
    return "within" if low <= published <= high else "not reached"


def accuracy_verdict(ours: float, published: float, low: float, high: float, digits: int = 2) -> Verdict:
    """The verdict on a number of which more is better."""
    if round(ours, digits) >= round(published, digits):
        return "reached"
    return "within" if low <= published <= high else "not reached"


def equal_verdict(ours: float, published: float, low: float, high: float, digits: int = 2) -> Verdict:
    """The verdict on a number that should be the published one, neither more nor less."""
    if round(ours, digits) == round(published, digits):
        return "reached"
    return "within" if low <= published <= high else "not reached"
