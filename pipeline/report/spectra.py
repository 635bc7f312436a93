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
    """Eigenvalues by rank: the median and the middle four fifths of three groups of architectures.

    They are thirds by accuracy, or by κ where there is none. Eigenvalues that are not positive are left out.
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
    caption = f"Medians over {len(ranked):,} canonical architectures, bands of their middle four fifths"
    sets = {points: PointSet(names, columns, {"rank": "rank", "eigenvalue": "median eigenvalue"})}
    return Section(_TITLE, (), [Charts(caption, [Chart("Eigenvalues by rank", about, spec)])]), sets


def _by_quality(connection: duckdb.DuckDBPyConnection, part: RunPart) -> Array:
    """The spectra (k, m) of the canonical architectures that are drawn, each descending, the best first."""
    quality = part.column(part.target) if part.target else -part.column("kappa")
    if not connection.execute("SELECT 1 FROM files.eigenvalues WHERE run = ? LIMIT 1", [part.run.name]).fetchall():
        return np.empty((0, 0))  # a copy of the run without its arrays
    canonical = part.canonical(connection)
    rows = connection.execute(
        "SELECT canonical, eigenvalues FROM spectra WHERE run = ? AND canonical IN (SELECT unnest(?))",
        [part.run.name, sorted(set(canonical))],
    ).fetchall()
    found = {name: values[::-1] for name, values in rows if values}
    known = {
        name: value for name, value in zip(canonical, quality.tolist(), strict=True)
        if np.isfinite(value) and name in found
    }  # fmt: skip
    order = sorted(known, key=lambda name: (-known[name], name))
    return np.array([found[name] for name in order], dtype=float)


def _quantiles(group: Array) -> tuple[Array, Array, Array]:
    """The quantiles 0.1, 0.5 and 0.9 (m,) of the positive numbers in each column of `group` (k, m)."""
    found = np.full((3, group.shape[1]), np.nan)
    for j, column in enumerate(group.T):
        positive = column[column > 0]
        if len(positive):
            found[:, j] = np.quantile(positive, [0.1, 0.5, 0.9])
    return found[0], found[1], found[2]
