"""The incumbent against the budget: the numbers behind Figure 2 of the paper.

The incumbent of a search at a point of its budget is the best architecture, by the signal, evaluated so far; the curve
shows its test error. Searches of one method are averaged at common points of the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hnas.pipeline.comparison.statistics import Array

_POINTS = 200


@dataclass(frozen=True)
class Course:
    """One search: cumulative cost after each query (queries,), in seconds or queries, and errors of its incumbents.

    `errors` (queries, data sets): test error in percent, NaN if the store has no test accuracy of the incumbent.
    """

    spent: Array
    errors: Array


@dataclass(frozen=True)
class Curve:
    """One method: `budget` (points,), and the `mean` and standard `error` over seeds, each (points, data sets)."""

    method: str
    budget: Array
    mean: Array
    error: Array


def average(method: str, courses: Sequence[Course], *, by_queries: bool, at: Sequence[float] = ()) -> Curve:
    """Average searches from the point where each has evaluated something to the end of the longest.

    The points are those of a grid, and the budgets `at` that lie between. A finished search keeps its last incumbent.
    The standard error is s/√n with the sample deviation s, 0 for n = 1.
    """
    start, end = max(course.spent[0] for course in courses), max(course.spent[-1] for course in courses)
    budget = np.arange(start, end + 1.0) if by_queries else np.linspace(start, end, _POINTS)
    budget = np.union1d(budget, [point for point in at if start <= point <= end])
    errors = np.stack([c.errors[np.searchsorted(c.spent, budget + 1e-9, side="right") - 1] for c in courses])
    n = len(courses)
    spread = errors.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(errors.shape[1:])
    return Curve(method, budget, errors.mean(axis=0), spread)
