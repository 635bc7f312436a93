"""The sections of a comparison: its table, and the incumbents' errors against the budget."""

from __future__ import annotations

import duckdb
import numpy as np

from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.comparison.report import table_of_all
from hnas.pipeline.comparison.request import Comparison
from hnas.pipeline.comparison.results import Results
from hnas.pipeline.io.printable import printable
from hnas.pipeline.report.charts import axis, line, lines
from hnas.pipeline.report.parts import Chart, Charts, Section, Table, number
from hnas.pipeline.report.points import PointSet
from hnas.pipeline.store.store import Store


def comparison_sections(
    store: Store, connection: duckdb.DuckDBPyConnection, comparison: Comparison
) -> tuple[list[Section], dict[str, PointSet]]:
    """The sections of a comparison, and the points of its charts. Raises what `Results` raises."""
    first = comparison.methods[0]
    signal = first.signal if first.oracle == "table" else None
    pool = RunPool(connection, first.run, first.runs, signal=signal, where=first.where)
    results = Results(store, connection, comparison, pool)
    table = results.table()
    head, rows = table_of_all(table)
    shown = [[printable(cell) for cell in row] for row in rows]
    texts = [name in ("method", "kind", "space") for name in head]
    blocks: list[Table | Charts] = [Table("Methods", [printable(name) for name in head], shown, texts)]
    curves, by_queries = results.curves()
    points = f"comparison-{comparison.name}"
    names = [curve.method for curve in curves for _ in curve.budget]
    spent = "queries" if by_queries else "budget (s)"
    columns = {"budget": np.concatenate([curve.budget for curve in curves])}
    labels = {"budget": spent}
    charts = []
    for k, dataset in enumerate(results.datasets):
        column = f"error-{k}"
        columns[column] = np.concatenate([curve.mean[:, k] for curve in curves])
        labels[column] = f"error on {dataset} (%)"
        drawn, first_point = [], 0
        for curve in curves:
            last = first_point + len(curve.budget)
            band = {"low": curve.mean[:, k] - curve.error[:, k], "high": curve.mean[:, k] + curve.error[:, k]}
            drawn.append(line(curve.method, first_point, last, step=by_queries, **band))
            first_point = last
        spec = lines(points, axis("budget", spent), axis(column, "error of the incumbent (%)"), drawn)
        if not np.isnan(results.optimum[k]):
            spec["level"] = {"name": "optimum", "y": float(100 - results.optimum[k])}
        ends = ", ".join(f"{curve.method} {number(float(curve.mean[-1, k]))}" for curve in curves)
        charts.append(Chart(printable(dataset), f"Errors at the end of the budget: {printable(ends)}", spec))
    caption = "Error of the incumbent, the mean over seeds; bands are standard errors"
    blocks.append(Charts(caption, charts))
    text = [printable(table.heading), *(printable(note) for note in table.notes)]
    return [Section(f"Comparison {comparison.name}", text, blocks)], {points: PointSet(names, columns, labels)}
