"""A comparison as a terminal table, Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hnas.pipeline.comparison.request import Comparison
from hnas.pipeline.comparison.table import Cell, ComparisonTable, Row
from hnas.pipeline.io.latex import latex_row
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.terminal_tables import table

FORMATS = ("table", "markdown", "latex", "csv", "json")


def written(found: ComparisonTable, comparison: Comparison, form: str, width: int | None = None) -> str:
    """Return the comparison in one of `FORMATS`; a terminal's table is `width` wide and says how to see searches."""
    if form == "json":
        return comparison_json(found, comparison.name, [asdict(settings) for settings in comparison.methods])
    if form != "table":
        return {"markdown": comparison_markdown, "latex": comparison_latex, "csv": comparison_csv}[form](found)
    searches = f"""`hnas sql "FROM searches WHERE comparison = '{comparison.name}'"` has its searches"""
    return f"{comparison_text(found, width)}\n\ncomparison {comparison.name}: {searches}"


def comparison_text(found: ComparisonTable, width: int | None = None) -> str:
    """Return Table 3 for a terminal, followed by intervals, tests and notes; `width` limits both."""
    rows = [["method", *found.datasets, "cost s", "queries", "kind", "space"]]
    rows += [[row.method, *map(_mean, row.cells), *_costs(row), row.kind, row.applicable] for row in found.rows]
    texts = [True, *[False] * (len(found.datasets) + 2), True, True]
    lines = [*_broken([found.heading], width), _terminal_table(rows, texts, width), *_belief(found, width)]
    return "\n".join([*lines, *(["", *_broken(found.notes, width)] if found.notes else [])])


def _belief(found: ComparisonTable, width: int | None) -> list[str]:
    """Return confidence intervals of means and p-values, one row per method that has any."""
    uncertain = [row for row in found.rows if any(cell and cell.interval for cell in row.cells)]
    if not uncertain:
        return []
    tested = _tested(found)
    heads = [head for name in found.datasets for head in (name, "p")[: 1 + tested]]
    rows = [["method", *heads]]
    rows += [
        [row.method, *(text for cell in row.cells for text in (_interval(cell), _p(cell))[: 1 + tested])]
        for row in uncertain
    ]
    against = f"; p: Mann-Whitney against {found.reference}, Holm's correction" if tested else ""
    heading = f"95 % interval of the mean{against}"
    return ["", *_broken([heading], width), _terminal_table(rows, [True, *[False] * len(heads)], width)]


def _broken(sentences: Sequence[str], width: int | None) -> list[str]:
    """Wrap sentences to the `width` of a terminal."""
    lines = [printable(sentence) for sentence in sentences]
    return lines if width is None else [part for line in lines for part in textwrap.wrap(line, width)]


def _tested(found: ComparisonTable) -> bool:
    return any(cell and cell.p is not None for row in found.rows for cell in row.cells)


def _terminal_table(rows: list[list[str]], texts: list[bool], width: int | None) -> str:
    shown = [[printable(cell) for cell in row] for row in rows]
    return table(shown, texts=texts, width=width, remedy="`--format csv` has all")


def comparison_markdown(found: ComparisonTable) -> str:
    """Return the table in Markdown, with intervals in brackets and the p-values of all data sets in one column."""
    head, rows = table_of_all(found)
    lines = [head, ["---"] * len(head), *rows]
    body = [f"| {' | '.join(printable(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
    notes = [f"\n{printable(note)}" for note in (found.heading, *found.notes)]
    return "\n".join([*body, *notes])


def comparison_latex(found: ComparisonTable) -> str:
    """Return the table in LaTeX with the rules of `booktabs`, and heading and notes as comments above it."""
    head, rows = table_of_all(found)
    lines = [f"% {printable(line)}" for line in (found.heading, *found.notes)]
    k = len(found.datasets)
    lines += [rf"\begin{{tabular}}{{l{'r' * (k + 2)}ll{'r' * (len(head) - k - 5)}}}", r"\toprule"]
    lines += [latex_row(head), r"\midrule", *map(latex_row, rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines)


def comparison_records(found: ComparisonTable) -> list[dict[str, Any]]:
    """Return one record per method and data set; missing values are None."""
    return [
        {
            "method": row.method,
            "dataset": dataset,
            "mean": cell and cell.mean,
            "deviation": cell and cell.deviation,
            "low": cell.interval[0] if cell and cell.interval else None,
            "high": cell.interval[1] if cell and cell.interval else None,
            "p": cell and cell.p,
            "seeds": row.seeds,
            "cost": row.cost,
            "queries": row.queries,
            "kind": row.kind or None,
            "space": row.applicable or None,
        }
        for row in found.rows
        for dataset, cell in zip(found.datasets, row.cells, strict=True)
    ]


def comparison_csv(found: ComparisonTable) -> str:
    """Return the records as CSV with a header."""
    out = io.StringIO()
    records = comparison_records(found)
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().rstrip("\n")


def comparison_json(found: ComparisonTable, name: str, methods: list[dict[str, Any]]) -> str:
    """Return one JSON object: the comparison's name, the settings of its methods, the records, the notes."""
    content = {
        "comparison": name,
        "heading": found.heading,
        "reference": found.reference,
        "methods": methods,
        "results": comparison_records(found),
        "notes": list(found.notes),
    }
    return json.dumps(content, indent=2)


def table_of_all(found: ComparisonTable) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of one table with all values."""
    tested = _tested(found)
    head = ["method", *found.datasets, "cost (s)", "queries", "kind", "space", *(["p"] if tested else [])]
    rows = []
    for row in found.rows:
        means = [" ".join(filter(None, (_mean(cell), _interval(cell)))) for cell in row.cells]
        p = [" / ".join(map(_p, row.cells)) if any(map(_p, row.cells)) else ""] if tested else []
        rows.append([row.method, *means, *_costs(row), row.kind, row.applicable, *p])
    return head, rows


def _mean(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.mean:.2f}" if cell.deviation is None else f"{cell.mean:.2f} ± {cell.deviation:.2f}"


def _interval(cell: Cell | None) -> str:
    return f"[{cell.interval[0]:.2f}, {cell.interval[1]:.2f}]" if cell and cell.interval else ""


def _p(cell: Cell | None) -> str:
    """Format a p-value: 0.012, 0.12, or <0.0001."""
    if cell is None or cell.p is None:
        return ""
    return "<0.0001" if cell.p < 1e-4 else f"{cell.p:.2g}"


def _costs(row: Row) -> list[str]:
    cost = "" if row.cost is None else f"{row.cost:,.0f}"
    if row.queries is None:
        return [cost, ""]
    whole = row.queries == int(row.queries) or row.queries >= 100
    return [cost, f"{row.queries:,.0f}" if whole else f"{row.queries:.1f}"]
