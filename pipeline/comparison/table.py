"""Table 3 of the paper, computed from the results of a comparison's searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hnas.pipeline.comparison.statistics import Array, bootstrap_interval, holm, mann_whitney


@dataclass(frozen=True)
class Outcome:
    """The results of one method's searches.

    `reported` (seeds, data sets): the test accuracy of each winner in percent, NaN if the store has none. `cost`
    (seeds,): the seconds of its evaluations, NaN if unknown. `queries` (seeds,): their number. A method that does not
    `vary` gives the same result with every seed.
    """

    method: str
    kind: str
    applicable: str
    varies: bool
    reported: Array
    cost: Array
    queries: Array


@dataclass(frozen=True)
class Cell:
    """A method on a data set: mean and deviation over seeds in percent, interval of the mean, adjusted p-value.

    Undefined values are None: the deviation of one seed; the interval and the test of a deterministic method.
    """

    mean: float
    deviation: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table; a `cell` is None if the store lacks the test accuracy of a winner on that data set."""

    method: str
    cells: tuple[Cell | None, ...]
    seeds: int | None = None
    cost: float | None = None
    queries: float | None = None
    kind: str = ""
    applicable: str = ""


@dataclass(frozen=True)
class ComparisonTable:
    """Rows by method in the requested order, preceded by manual architectures and followed by the optimum.

    `heading` says what was compared by which signal; `notes` explain how to read the numbers.
    """

    heading: str
    datasets: tuple[str, ...]
    rows: tuple[Row, ...]
    reference: str | None = None
    notes: tuple[str, ...] = field(default=())


def make_rows(
    outcomes: Sequence[Outcome],
    *,
    reference: str | None = None,
    manual: Mapping[str, Array] | None = None,
    optimum: Array | None = None,
) -> tuple[Row, ...]:
    """Return the rows of the table: manual architectures, `outcomes`, and the best value on each data set.

    `reference` is the method that all others are tested against. `manual` and `optimum` hold the accuracies on each
    data set, NaN if unknown.
    """
    by_method = {outcome.method: outcome for outcome in outcomes}
    tested = by_method.get(reference) if reference is not None else None
    p_values = np.full((len(outcomes), 0), None, dtype=object)
    if outcomes:
        columns = [_p_values(outcomes, tested, k) for k in range(outcomes[0].reported.shape[1])]
        p_values = np.array(columns, dtype=object).T
    found = [_row(outcome, list(p)) for outcome, p in zip(outcomes, p_values, strict=True)]
    before = [_fixed(name, values, "manual") for name, values in (manual or {}).items()]
    after = [] if optimum is None else [_fixed("optimum", optimum, "")]
    return tuple(before + found + after)


def _p_values(outcomes: Sequence[Outcome], reference: Outcome | None, k: int) -> list[float | None]:
    """Return adjusted p-values of each outcome against the reference on data set k."""
    return holm([_p_value(reference, outcome, k) for outcome in outcomes])


def _p_value(reference: Outcome | None, rival: Outcome, k: int) -> float | None:
    if reference is None or rival is reference or not (reference.varies and rival.varies):
        return None
    ours, theirs = reference.reported[:, k], rival.reported[:, k]
    return None if np.isnan(ours).any() or np.isnan(theirs).any() else mann_whitney(ours, theirs)


def _row(outcome: Outcome, p_values: Sequence[float | None]) -> Row:
    cells = tuple(_cell(outcome, k, p) for k, p in enumerate(p_values))
    cost = float(outcome.cost.mean())
    return Row(
        outcome.method,
        cells,
        seeds=len(outcome.queries),
        cost=None if np.isnan(cost) else cost,
        queries=float(outcome.queries.mean()),
        kind=outcome.kind,
        applicable=outcome.applicable,
    )


def _cell(outcome: Outcome, k: int, p: float | None) -> Cell | None:
    values = outcome.reported[:, k]
    if np.isnan(values).any():
        return None
    if not outcome.varies or len(values) == 1:
        return Cell(float(values.mean()))
    return Cell(float(values.mean()), float(values.std()), bootstrap_interval(values), p)


def _fixed(name: str, values: Array, kind: str) -> Row:
    return Row(name, tuple(None if np.isnan(value) else Cell(float(value)) for value in values), kind=kind)
