"""Results of `hnas correlate` as people and as programs read them."""

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


def correlation_text(found: Correlations, width: int | None = None) -> str:
    """Both tables for people."""
    label = {"spearman": "Spearman's rho", "kendall": "Kendall's tau"}[found.method]
    run = found.run
    what = run_or_mean(run.name, found.runs)
    heading = f"{what}: {run.settings.space} on {run.settings.dataset}, {found.n:,} architectures, {label}"
    lines = [printable(heading)]
    lines += [*left_out_lines(found.left_out), ""]
    short = {name: name.replace("accuracy", "acc") for name in found.names}
    rows = [["", *(short[name] for name in found.names)]]
    for i, name in enumerate(found.names):
        rows.append([short[name], *(_number(found.matrix[i, j]) for j in range(len(found.names)))])
    remedy = "`--format csv` has all"
    lines.append(table(rows, texts=[True, *[False] * len(found.names)], width=width, remedy=remedy))
    for lines_of in (_table_1(found), _partial_table(found)):
        if lines_of:
            lines += ["", table(lines_of, texts=[True, *[False] * (len(lines_of[0]) - 1)], width=width, remedy=remedy)]
    if found.partials and found.alive < found.n:
        lines += ["", f"partial correlations are those of the {found.alive:,} architectures with a finite kappa"]
    if len(found.given) > 1:
        lines += ["", "Kendall's partial tau is defined given one column; Spearman's rho stands for several"]
    if found.missing:
        listed = ", ".join(f"{printable(name)} {count:,}" for name, count in found.missing.items())
        lines += ["", f"rows without a value, left out of a column's pairs: {listed}"]
    if found.signals:
        named = [printable(f"{signal.accuracy}: {signal}") for signal in found.signals]
        lines += ["", *(named if width is None else (cut(line, width) for line in named))]
    if found.target is None:
        lines += ["", "no accuracies of these architectures are in the store; `hnas import` adds them"]
    return "\n".join(lines)


def front_text(found: Front, width: int | None = None) -> str:
    """A front for people: its architectures, and what share of the box of the pool it dominates."""
    run = found.run
    of = f"what {', '.join(found.searches)} evaluated" if found.searches else f"run {run.name}"
    heading = (
        f"{of}: {run.settings.space} on {run.settings.dataset}, the front of {len(found.everything):,} architectures "
        f"has {len(found.archs):,}, hypervolume {found.hypervolume:.4f}"
    )
    lines = [printable(heading), *(f"{signal.accuracy}: {signal}" for signal in found.signals)]
    if found.left_out:
        lines.append(f"left out: {found.left_out:,} architectures without one of the columns")
    arrows = ["max" if rises else "min" for rises in found.maximised]
    rows = [[*(f"{printable(name)} ({arrow})" for name, arrow in zip(found.names, arrows, strict=True)), "arch"]]
    rows += [
        [*(_value(value) for value in values), printable(arch)]
        for values, arch in zip(found.values.tolist(), found.archs, strict=True)
    ]
    texts = [*[False] * len(found.names), True]
    return "\n".join([*lines, "", table(rows, texts=texts, width=width, remedy="`--format csv` has all")])


def _value(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def _table_1(found: Correlations) -> list[list[str]]:
    """Table 1: a row for each metric, both measures; mu and nu are those of the best rho."""
    if not found.table_1:
        return []
    rows = [[f"with {found.target}", "rho", "non-realizable rho", "tau", "non-realizable tau", "mu", "nu"]]
    by_metric = {(row.metric, row.method): row for row in found.table_1}
    for metric in dict.fromkeys(row.metric for row in found.table_1):
        rho, tau = by_metric[metric, "spearman"], by_metric[metric, "kendall"]
        values = [rho.realizable, rho.non_realizable, tau.realizable, tau.non_realizable]
        rows.append([metric, *map(_number, values), _number(rho.mu, ".3g"), _number(rho.nu, ".4g")])
    return rows


def _partial_table(found: Correlations) -> list[list[str]]:
    """The partial correlations: a row for each column."""
    if not found.partials:
        return []
    given = ", ".join(found.given)
    methods = list(dict.fromkeys(row.method for row in found.partials))
    symbols = {"spearman": "rho", "kendall": "tau"}
    rows = [[f"with {found.target} given {given}", *(symbols[method] for method in methods)]]
    values = {(row.name, row.method): row.value for row in found.partials}
    names = dict.fromkeys(row.name for row in found.partials)
    return [*rows, *([name, *(_number(values[name, method]) for method in methods)] for name in names)]


def _number(value: float, form: str = ".2f") -> str:
    return "n/a" if np.isnan(value) else f"{value:{form}}"


def write_records(records: list[dict[str, Any]], form: str, out: TextIO) -> None:
    """Records as a JSON array or as CSV with a header; what is not known is null or empty."""
    if form == "json":
        json.dump(records, out, indent=2)
        out.write("\n")
        return
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
