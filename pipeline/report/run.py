"""The sections of a run: correlations, metrics against accuracy, Pareto front, spectra and learning curves."""

from __future__ import annotations

from collections.abc import Collection

import duckdb
import numpy as np

from hnas.errors import UsageError
from hnas.pipeline.analysis.correlate import TABLE_1, Correlations
from hnas.pipeline.analysis.pareto import pareto
from hnas.pipeline.analysis.ranks import spearman
from hnas.pipeline.io.printable import printable
from hnas.pipeline.report.charts import axis, bulk, scatter
from hnas.pipeline.report.learning_curves import learning_curves
from hnas.pipeline.report.parts import Chart, Charts, Section, Table, number
from hnas.pipeline.report.points import PointSet
from hnas.pipeline.report.run_part import RunPart, coefficient, point_set, words
from hnas.pipeline.report.spectra import spectra

# Rows of the table of the best architectures.
_BEST = 10


def run_sections(
    connection: duckdb.DuckDBPyConnection, part: RunPart, evaluated: Collection[str]
) -> tuple[list[Section], dict[str, PointSet]]:
    """The sections of a run, and the points of its charts, with rings around those that a search `evaluated`."""
    sets = {part.points: point_set(part)}
    sections = [_summary(part)]
    if part.correlations is not None:
        sections.append(_correlations(part.correlations))
        rings = [place for place, arch in enumerate(part.archs) if arch in evaluated]
        sections += [_accuracy(part, rings), _trainability(part, rings)]
        sections.append(_front(connection, part))
        for section, points in (spectra(connection, part), learning_curves(connection, part, evaluated)):
            sections.append(section)
            sets |= points
    return [section for section in sections if section.blocks or section.text], sets


def _summary(part: RunPart) -> Section:
    settings = part.run.settings
    kappa = part.pool.column("kappa")
    dead = int(np.isinf(kappa).sum())
    text = [
        f"{len(kappa):,} architectures of {settings.space} with one batch of {settings.batch_size} images of "
        f"{settings.dataset}, networks of {settings.channels} channels and {settings.cells} cells a stage, "
        f"{settings.init} weights of seed {settings.seed}; {dead:,} of them have an infinite κ and are not candidates."
    ]
    if len(part.rows) < len(kappa):
        text.append(f"Charts show {len(part.rows):,} of them, drawn at random; all other numbers use all of them.")
    if part.signal is not None:
        text.append(f"Accuracy: {part.signal}.")
    elif part.target is None:
        text.append("The store has no accuracies of these architectures; `hnas import` adds them.")
    rank = -part.whole(part.target) if part.target else kappa
    order = [i for i in np.argsort(rank, kind="stable")[:_BEST].tolist() if np.isfinite(rank[i])]
    names = [*([part.target] if part.target else []), "kappa", *TABLE_1]
    names += [name for name in ("params", "flops") if name in part.pool.columns]
    columns = [part.whole(name) for name in names]
    rows = [[printable(part.pool.archs[i]), *(number(float(column[i])) for column in columns)] for i in order]
    best = f"The highest {words(part.target)}" if part.target else "The smallest κ"
    heads = ["architecture", *map(words, names)]
    table = Table(best, heads, rows, [True, *[False] * len(names)])
    return Section(f"Run {part.run.name}", [printable(sentence) for sentence in text], [table] if rows else [])


def _correlations(found: Correlations) -> Section:
    """The matrix as a table with coloured cells, and the form of Table 1 if there is an accuracy."""
    heads = ["", *map(words, found.names)]
    rows = [[words(name), *(coefficient(value) for value in found.matrix[i])] for i, name in enumerate(found.names)]
    shades = [[None, *(None if np.isnan(value) else float(value) for value in values)] for values in found.matrix]
    caption = f"Spearman's ρ between each pair of columns over {found.n:,} architectures"
    blocks = [Table(caption, heads, rows, [True, *[False] * len(found.names)], shades)]
    if found.table_1:
        by_metric = {(row.metric, row.method): row for row in found.table_1}
        heads = ["metric", "realizable ρ", "non-realizable ρ", "realizable τ", "non-realizable τ"]
        rows = []
        for metric in dict.fromkeys(row.metric for row in found.table_1):
            rho, tau = by_metric[metric, "spearman"], by_metric[metric, "kendall"]
            values = (rho.realizable, rho.non_realizable, tau.realizable, tau.non_realizable)
            rows.append([words(metric), *map(coefficient, values)])
        caption = f"The form of the paper's Table 1: correlation with {words(str(found.target))}"
        blocks.append(Table(caption, heads, rows, [True, *[False] * 4]))
    text = ["A negative coefficient of κ means that a small κ goes with a large value; an infinite κ ranks last."]
    return Section("Correlations", text, blocks)


def _accuracy(part: RunPart, rings: list[int]) -> Section:
    """M against accuracy for each metric."""
    if part.target is None:
        return Section("Metrics against accuracy")
    values = part.column(part.target)
    y = axis(part.target, f"{words(part.target)} (%)", reach=bulk(values))
    charts = []
    for metric in TABLE_1:
        rho = spearman(np.abs(part.whole(metric)), part.whole(part.target))
        about = f"M = |{words(metric)}| against {words(part.target)}; Spearman's ρ is {coefficient(rho)}"
        spec = scatter(part.points, axis(f"|{metric}|", f"|{words(metric)}|", log=True), y, rings=rings)
        charts.append(Chart(f"|{words(metric)}|: ρ = {coefficient(rho)}", about, spec))
    hidden = int((values < y["reach"][0]).sum()) if "reach" in y else 0
    text = [f"{hidden:,} architectures lie below the charts: zoom out with the wheel tool."] if hidden else []
    return Section("Metrics against accuracy", text, [Charts("M against accuracy, M on a logarithmic axis", charts)])


def _trainability(part: RunPart, rings: list[int]) -> Section:
    """κ against M, coloured by accuracy: the plane of eq. (7)."""
    charts = []
    colour = None
    if part.target is not None:
        colour = axis(part.target, f"{words(part.target)} (%)", reach=bulk(part.column(part.target)))
    for metric in TABLE_1:
        about = f"κ against M = |{words(metric)}|" + (f", coloured by {words(part.target)}" if part.target else "")
        x, y = axis(f"|{metric}|", f"|{words(metric)}|", log=True), axis("kappa", "κ", log=True)
        charts.append(Chart(f"|{words(metric)}|", about, scatter(part.points, x, y, colour=colour, rings=rings)))
    caption = "κ against M" + (f", coloured by {words(part.target)}" if part.target else "")
    text = ["Eq. (7) weighs κ/M against the distance of M² from ν; the search takes the minimum."]
    return Section("κ against M", text, [Charts(f"{caption}, both on logarithmic axes", charts)])


def _front(connection: duckdb.DuckDBPyConnection, part: RunPart) -> Section:
    """The front of size and accuracy, or of κ and the trace norm if accuracies or sizes are missing."""
    low, high = ("params", part.target) if part.target and "params" in part.pool.columns else ("kappa", "trace")
    try:
        found = pareto(connection, part.run, minimise=[low], maximise=[high], partial=True)
    except UsageError:  # no architecture has both
        return Section("Pareto front")
    heads = ["architecture", words(low), words(high)]
    rows = [[printable(arch), *map(number, values)] for arch, values in zip(found.archs, found.values, strict=True)]
    places = {arch: place for place, arch in enumerate(part.archs)}
    rings = [places[arch] for arch in found.archs if arch in places]
    x = axis(low, words(low), log=True)
    y = axis(high, words(high), log=high == "trace", reach=None if high == "trace" else bulk(part.column(high)))
    spec = scatter(part.points, x, y, rings=rings)
    spec["front"] = {"x": found.values[:, 0].tolist(), "y": found.values[:, 1].tolist()}
    text = [
        f"{len(found.archs):,} of {len(found.everything):,} architectures are not dominated in small {words(low)} and "
        f"high {words(high)}; their hypervolume is {found.hypervolume:.4f}."
    ]
    about = f"{words(high)} against {words(low)} with the front as a line of {len(found.archs)} architectures"
    chart = Charts("The front among all architectures", [Chart(f"{words(high)} and {words(low)}", about, spec)])
    table = Table("The front", heads, rows, [True, False, False], folded=True)
    return Section("Pareto front", text, [chart, table])
