"""Results of `hnas correlate` and `hnas pareto` as text and as records."""

from __future__ import annotations

import csv
import json
from typing import Any, TextIO

import numpy as np

from hnas.pipeline.analysis.correlate import Correlations
from hnas.pipeline.analysis.pareto import Front
from hnas.pipeline.catalog.report import left_out_lines
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.terminal_tables import cut, table
from hnas.pipeline.store.run import run_or_mean


def correlation_text(correlations: Correlations, width: int | None = None) -> str:
    """Return both tables as text."""
    label = {"spearman": "Spearman's rho", "kendall": "Kendall's tau"}[correlations.method]
    run = correlations.run
    what = run_or_mean(run.name, correlations.runs)
    heading = f"{what}: {run.settings.space} on {run.settings.dataset}, {correlations.n:,} architectures, {label}"
    lines = [printable(heading)]
    lines += [*left_out_lines(correlations.left_out), ""]
    short = {name: name.replace("accuracy", "acc") for name in correlations.names}
    rows = [["", *(short[name] for name in correlations.names)]]
    for i, name in enumerate(correlations.names):
        rows.append([short[name], *(_number(correlations.matrix[i, j]) for j in range(len(correlations.names)))])
    remedy = "`--format csv` has all"
    lines.append(table(rows, texts=[True, *[False] * len(correlations.names)], width=width, remedy=remedy))
    for lines_of in (_table_1(correlations), _partial_table(correlations)):
        if lines_of:
            lines += ["", table(lines_of, texts=[True, *[False] * (len(lines_of[0]) - 1)], width=width, remedy=remedy)]
    if correlations.partials and correlations.alive < correlations.n:
        lines += ["", f"partial correlations are those of the {correlations.alive:,} architectures with a finite kappa"]
    if len(correlations.given) > 1:
        lines += ["", "Kendall's partial tau is defined given one column; Spearman's rho stands for several"]
    if correlations.missing:
        listed = ", ".join(f"{printable(name)} {count:,}" for name, count in correlations.missing.items())
        lines += ["", f"rows without a value, left out of a column's pairs: {listed}"]
    if correlations.signals:
        named = [printable(f"{signal.accuracy}: {signal}") for signal in correlations.signals]
        lines += ["", *(named if width is None else (cut(line, width) for line in named))]
    if correlations.target is None:
        lines += ["", "no accuracies of these architectures are in the store; `hnas import` adds them"]
    return "\n".join(lines)


def front_text(front: Front, width: int | None = None) -> str:
    """Return a front as text: its architectures, and the share of the pool's box that it dominates."""
    run = front.run
    evaluated = f"what {', '.join(front.searches)} evaluated of " if front.searches else ""
    of = f"{evaluated}{run_or_mean(run.name, front.runs)}"
    heading = (
        f"{of}: {run.settings.space} on {run.settings.dataset}, the front of {len(front.everything):,} architectures "
        f"has {len(front.archs):,}, hypervolume {front.hypervolume:.4f}"
    )
    lines = [printable(heading), *(f"{signal.accuracy}: {signal}" for signal in front.signals)]
    if front.left_out:
        lines.append(f"left out: {front.left_out:,} architectures without one of the columns")
    arrows = ["max" if rises else "min" for rises in front.maximised]
    rows = [[*(f"{printable(name)} ({arrow})" for name, arrow in zip(front.names, arrows, strict=True)), "arch"]]
    rows += [
        [*(_value(value) for value in values), printable(arch)]
        for values, arch in zip(front.values.tolist(), front.archs, strict=True)
    ]
    texts = [*[False] * len(front.names), True]
    return "\n".join([*lines, "", table(rows, texts=texts, width=width, remedy="`--format csv` has all")])


def _value(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _table_1(correlations: Correlations) -> list[list[str]]:
    """Return Table 1: one row per metric, both measures; mu and nu are those of the best rho."""
    if not correlations.table_1:
        return []
    rows = [[f"with {correlations.target}", "rho", "non-realizable rho", "tau", "non-realizable tau", "mu", "nu"]]
    by_metric = {(row.metric, row.method): row for row in correlations.table_1}
    for metric in dict.fromkeys(row.metric for row in correlations.table_1):
        rho, tau = by_metric[metric, "spearman"], by_metric[metric, "kendall"]
        values = [rho.realizable, rho.non_realizable, tau.realizable, tau.non_realizable]
        rows.append([metric, *map(_number, values), _number(rho.mu, ".3g"), _number(rho.nu, ".4g")])
    return rows


def _partial_table(correlations: Correlations) -> list[list[str]]:
    """Return the partial correlations, one row per column."""
    if not correlations.partials:
        return []
    given = ", ".join(correlations.given)
    methods = list(dict.fromkeys(row.method for row in correlations.partials))
    symbols = {"spearman": "rho", "kendall": "tau"}
    rows = [[f"with {correlations.target} given {given}", *(symbols[method] for method in methods)]]
    values = {(row.name, row.method): row.value for row in correlations.partials}
    names = dict.fromkeys(row.name for row in correlations.partials)
    return [*rows, *([name, *(_number(values[name, method]) for method in methods)] for name in names)]


def _number(value: float, form: str = ".2f") -> str:
    return "n/a" if np.isnan(value) else f"{value:{form}}"


def write_records(records: list[dict[str, Any]], form: str, out: TextIO) -> None:
    """Write records as a JSON array, or as CSV with a header; unknown values are null or empty."""
    if form == "json":
        json.dump(records, out, indent=2)
        out.write("\n")
        return
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
