"""Figure 2: test error of the incumbent against the search budget, for HNAS with the trace norm and its rivals.

The paper draws the curves and prints no numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import duckdb
import numpy as np

from hnas.pipeline.comparison.curves import Curve
from hnas.pipeline.comparison.driver import Progress
from hnas.pipeline.reproduction import searches
from hnas.pipeline.reproduction.published import DATASETS, FIGURE_2_BUDGETS
from hnas.pipeline.reproduction.results import Reproduction, Row, Section, Value
from hnas.pipeline.store.store import Store

_METHODS = ("hnas:trace", "random", "rea", "reinforce", "zero-cost")


def compute(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    *,
    seeds: int,
    progress: Callable[[Progress], None],
) -> Reproduction:
    """Figure 2 from `seeds` searches of each method, which are kept in the store as those of `compare` are."""
    title = "Figure 2: test error (%) of the incumbent against the search budget (s)"
    if (missing := searches.missing_data(connection)) is not None:
        return Reproduction("figure2", title, missing=(missing,))
    methods = [f"{name}@{FIGURE_2_BUDGETS[-1]}s" for name in _METHODS]
    results, _ = searches.run_searches(store, connection, methods, seeds=seeds, progress=progress)
    plotted, by_queries = results.curves(FIGURE_2_BUDGETS)
    curves = [replace(curve, method=name) for curve, name in zip(plotted, _METHODS, strict=True)]
    sections = []
    for k, dataset in enumerate(results.datasets):
        rows = tuple(
            Row(name, tuple(_value(curve, k, budget, seeds) for budget in FIGURE_2_BUDGETS))
            for name, curve in zip(_METHODS, curves, strict=True)
        )
        columns = tuple(f"{budget:,}" for budget in FIGURE_2_BUDGETS)
        sections.append(Section(f"{dataset}, {seeds} searches of each method", dataset, "method", columns, rows))
    sections.sort(key=lambda section: DATASETS.index(section.short) if section.short in DATASETS else len(DATASETS))
    table = results.table()
    notes = [f"{table.heading}.", "The interval is the mean ± 1.96 standard errors."]
    notes += _claims(sections)
    drawn = {
        "curves": curves, "datasets": results.datasets, "optimum": 100 - results.optimum, "by_queries": by_queries,
    }  # fmt: skip
    return Reproduction("figure2", title, tuple(sections), notes=tuple(notes), drawn=drawn)


def _value(curve: Curve, k: int, budget: float, seeds: int) -> Value | None:
    """The mean error at a budget, None until every search has evaluated an architecture."""
    place = int(np.searchsorted(curve.budget, budget, side="right")) - 1
    if place < 0 or np.isnan(curve.mean[place, k]):
        return None
    mean, error = float(curve.mean[place, k]), float(curve.error[place, k])
    return Value(mean, mean - 1.96 * error, mean + 1.96 * error, of=seeds)


def _claims(sections: list[Section]) -> list[str]:
    """Whether the paper's claim holds here: HNAS is below all other methods at every budget."""
    plotted = []
    for section in sections:
        ours, *others = [[_error(value) for value in row.values] for row in section.rows]
        behind = [
            column
            for k, column in enumerate(section.columns)
            if not np.isnan(ours[k]) and any(other[k] < ours[k] for other in others)
        ]
        verdict = f"not at {', '.join(behind)} s" if behind else "yes, as in the paper"
        plotted.append(f"HNAS below all others at every budget on {section.short}: {verdict}.")
    return plotted


def _error(value: Value | None) -> float:
    return np.nan if value is None or value.ours is None else value.ours
