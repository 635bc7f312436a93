"""The spectra of a run's NTKs."""

from __future__ import annotations

import duckdb
import numpy as np

from hnas.optim.objective import Array
from hnas.pipeline.analysis.ranks import FEWEST
from hnas.pipeline.report.charts import axis, line, lines
from hnas.pipeline.report.parts import Chart, Charts, Section, number
from hnas.pipeline.report.points import PointSet
from hnas.pipeline.report.run_part import RunPart, words

_TITLE = "Spectra of the NTK"


def spectra(connection: duckdb.DuckDBPyConnection, part: RunPart) -> tuple[Section, dict[str, PointSet]]:
    """Eigenvalues by rank: the median and the 10th to 90th percentiles of three groups of architectures.

    The groups are thirds by accuracy, or by κ without accuracies. Eigenvalues that are not positive are left out.
    """
    ranked = _by_quality(connection, part)
    if len(ranked) < FEWEST:
        return Section(_TITLE), {}
    m = ranked.shape[1]
    what = words(part.target) if part.target else "κ"
    sides = ("highest", "middle", "lowest") if part.target else ("smallest", "middle", "largest")
    drawn, medians = [], []
    names: list[str] = []
    for side, group in zip(sides, np.array_split(ranked, 3), strict=True):
        name = f"{side} third by {what}"
        low, median, high = _quantiles(group)
        drawn.append(line(name, len(names), len(names) + m, low=low, high=high))
        names += [name] * m
        medians.append(median)
    columns = {"rank": np.tile(np.arange(1.0, m + 1), 3), "eigenvalue": np.concatenate(medians)}
    points = f"spectra-{part.run.name}"
    spec = lines(points, axis("rank", "rank of the eigenvalue"), axis("eigenvalue", "eigenvalue", log=True), drawn)
    ends = [
        f"{group['name']}: {number(float(median[0]))} to {number(float(median[-1]))}"
        for group, median in zip(drawn, medians, strict=True)
    ]
    about = f"Median eigenvalues from the largest to the smallest, {'; '.join(ends)}"
    caption = f"Medians over {len(ranked):,} canonical architectures, bands from the 10th to the 90th percentile"
    sets = {points: PointSet(names, columns, {"rank": "rank", "eigenvalue": "median eigenvalue"})}
    return Section(_TITLE, (), [Charts(caption, [Chart("Eigenvalues by rank", about, spec)])]), sets


def _by_quality(connection: duckdb.DuckDBPyConnection, part: RunPart) -> Array:
    """The spectra (k, m) of the drawn canonical architectures, best architecture first, eigenvalues descending."""
    quality = part.column(part.target) if part.target else -part.column("kappa")
    if not connection.execute("SELECT 1 FROM files.eigenvalues WHERE run = ? LIMIT 1", [part.run.name]).fetchall():
        return np.empty((0, 0))  # this copy of the run has no arrays
    canonical = part.canonical(connection)
    rows = connection.execute(
        "SELECT canonical, eigenvalues FROM spectra WHERE run = ? AND canonical IN (SELECT unnest(?))",
        [part.run.name, sorted(set(canonical))],
    ).fetchall()
    by_name = {name: values[::-1] for name, values in rows if values}
    ranked_quality = {
        name: value for name, value in zip(canonical, quality.tolist(), strict=True)
        if np.isfinite(value) and name in by_name
    }  # fmt: skip
    order = sorted(ranked_quality, key=lambda name: (-ranked_quality[name], name))
    return np.array([by_name[name] for name in order], dtype=float)


def _quantiles(group: Array) -> tuple[Array, Array, Array]:
    """The 10th, 50th and 90th percentiles (m,) of the positive numbers in each column of `group` (k, m)."""
    by_name = np.full((3, group.shape[1]), np.nan)
    for j, column in enumerate(group.T):
        positive = column[column > 0]
        if len(positive):
            by_name[:, j] = np.quantile(positive, [0.1, 0.5, 0.9])
    return by_name[0], by_name[1], by_name[2]
