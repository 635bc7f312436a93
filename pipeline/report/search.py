"""The sections of a search: its trajectory, the plane of (μ, ν) with the Gaussian process's mean, its front."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np

from hnas.errors import UsageError
from hnas.optim.evaluations import Query
from hnas.optim.objective import BOUNDS, Array, SearchRange
from hnas.optim.proposer import Optimiser
from hnas.pipeline.analysis.pareto import PERFORMANCE, pareto
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.io.printable import printable
from hnas.pipeline.report.charts import axis, line, lines, scatter, surface
from hnas.pipeline.report.parts import Chart, Charts, Section, Table, number
from hnas.pipeline.report.points import PointSet, cells_of
from hnas.pipeline.report.run_part import RunPart
from hnas.pipeline.search.settings import SearchSettings

# Points along each side of the picture of the Gaussian process.
_GRID = 48


def search_sections(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    settings: SearchSettings,
    queries: Sequence[Query],
    part: RunPart,
) -> tuple[list[Section], dict[str, PointSet]]:
    """The sections of the search `name`, whose run is `part`, and the points of its charts."""
    points = f"search-{name}"
    archs = [query.arch for query in queries]
    columns = {
        "query": np.array([query.query for query in queries], dtype=float),
        "performance": np.array([query.performance for query in queries], dtype=float),
        "incumbent": _incumbents(connection, name, queries),
        "cost": np.cumsum([query.cost for query in queries]),
    }
    shown = {"query": "query", "performance": "performance", "cost": "cost so far (s)"}
    sections = [_trajectory(name, settings, queries, columns["incumbent"], points)]
    if (plane := _plane(connection, settings, queries, points)) is not None:
        section, asked = plane
        sections.append(section)
        columns |= asked
        shown |= {"mu": "μ", "nu": "ν"}
    sections.append(_front(connection, name, part, archs, points))
    if "params" in part.pool.columns:
        columns["params"] = _of_archs(part, archs)
        shown["params"] = "params"
    cells = cells_of(part.pool.space, archs, part.pool.definitions)
    return [section for section in sections if section.blocks], {points: PointSet(archs, columns, shown, cells)}


def _of_archs(part: RunPart, archs: Sequence[str]) -> Array:
    places = [part.pool.position(arch) for arch in archs]
    params = part.pool.column("params")
    return np.array([np.nan if place is None else params[place] for place in places])


def _incumbents(connection: duckdb.DuckDBPyConnection, name: str, queries: Sequence[Query]) -> Array:
    """The performance (queries,) of the best so far after each query, NaN before the first that succeeded."""
    rows = connection.execute("SELECT query, performance FROM incumbents WHERE search = ?", [name]).fetchall()
    known = dict(rows)
    return np.array([np.nan if (value := known.get(q.query)) is None else value for q in queries], dtype=float)


def _trajectory(
    name: str, settings: SearchSettings, queries: Sequence[Query], incumbents: Array, points: str
) -> Section:
    """What each query found, and the best so far."""
    best = max(
        (q for q in queries if q.failure is None), key=lambda q: (q.epochs or np.inf, q.performance), default=None
    )
    guided = str(settings.signal) if settings.signal is not None else f"the oracle {settings.oracle}"
    text = [
        f"{settings.spec} on run {settings.run} ({settings.space} on {settings.dataset}), seed {settings.seed}, guided "
        f"by {guided}: {len(queries)} queries that cost {number(sum(q.cost for q in queries))} s."
    ]
    if best is not None:
        text.append(f"The best is {best.arch} with {number(best.performance)}, found by query {best.query}.")
    step = line("best so far", 0, len(queries), step=True)
    spec = lines(points, axis("query", "query"), axis("performance", "performance"), [step], dots=True)
    spec["lines"][0]["column"] = "incumbent"
    first, last = (number(float(incumbents[end])) for end in (0, -1))
    about = f"Performance of {len(queries)} queries, and the best so far, which rises from {first} to {last}"
    heads = ["query", "architecture", "performance", "cost (s)", "μ", "ν", "objective", "failure"]
    rows = [
        [
            str(q.query),
            q.arch,
            number(q.performance),
            number(q.cost),
            number(q.mu),
            number(q.nu),
            number(q.objective),
            q.failure or "",
        ]
        for q in queries
    ]
    kept = [k for k in range(len(heads)) if any(row[k] for row in rows)]
    table = Table(
        "All queries",
        [heads[k] for k in kept],
        [[printable(row[k]) for k in kept] for row in rows],
        [heads[k] in ("architecture", "failure") for k in kept],
        folded=True,
    )
    charts = Charts("What each query found", [Chart("Performance by query", about, spec)])
    return Section(f"Search {name}", [printable(sentence) for sentence in text], [charts, table])


def _plane(
    connection: duckdb.DuckDBPyConnection, settings: SearchSettings, queries: Sequence[Query], points: str
) -> tuple[Section, dict[str, Array]] | None:
    """Where the search asked, on the rectangle that it searches, over the Gaussian process's mean of what it was told.

    None for methods that propose no (μ, ν), and where a limit that changes gives each query a rectangle of its own.
    """
    if (
        settings.method != "hnas"
        or "minimise" in settings.options
        or any(q.mu is None or q.nu is None for q in queries)
    ):
        return None
    signal = settings.signal if settings.oracle == "table" else None
    pool = RunPool(connection, settings.run, settings.runs, signal=signal, where=settings.where)
    reach = SearchRange.of(*pool.minimiser(settings.metric or "trace").terms(), settings.t)
    asked = np.array([reach.place(float(q.mu or 0), float(q.nu or 0)) for q in queries])
    optimiser = Optimiser(seed=settings.seed, acquisition_name=settings.acquisition)
    told: list[float] = []
    for (log10_mu, nu_quantile), query in zip(asked.tolist(), queries, strict=True):
        # As `hnas.optim.algorithm.Search.tell` does: one that failed counts as the worst so far.
        told.append(query.performance if query.failure is None else min(told, default=0.0))
        optimiser.register({"log10_mu": log10_mu, "nu_quantile": nu_quantile}, told[-1])
    low, high = BOUNDS["log10_mu"]
    grid = np.stack(np.meshgrid(np.linspace(low, high, _GRID), np.linspace(0, 1, _GRID), indexing="ij"), axis=-1)
    mean = optimiser.mean(grid.reshape(-1, 2)).reshape(_GRID, _GRID)
    x, y = axis("nu_quantile", "ν as a quantile of M²"), axis("log10_mu", "log₁₀ μ, 0 where both terms weigh alike")
    spec = scatter(points, x, y, colour=axis("performance", "performance"))
    spec |= {"surface": surface(mean, (0.0, 1.0), (low, high)), "numbered": "query"}
    about = (
        f"{len(queries)} points of the plane of ν and μ that were asked, over the Gaussian process's mean, which goes "
        f"from {number(float(mean.min()))} to {number(float(mean.max()))}"
    )
    caption = "Points are queries by their numbers, coloured by performance as the surface is"
    section = Section("The plane of μ and ν", (), [Charts(caption, [Chart("Asked points and mean", about, spec)])])
    columns = {
        "log10_mu": asked[:, 0], "nu_quantile": asked[:, 1],
        "mu": np.array([q.mu for q in queries], dtype=float), "nu": np.array([q.nu for q in queries], dtype=float),
    }  # fmt: skip
    return section, columns


def _front(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    part: RunPart,
    archs: Sequence[str],
    points: str,
) -> Section:
    """The front of size and performance among what the search evaluated."""
    title = "Front of the search"
    if "params" not in part.pool.columns:
        return Section(title)
    try:
        found = pareto(connection, part.run, minimise=["params"], maximise=[PERFORMANCE], searches=[name], partial=True)
    except UsageError:  # all failed
        return Section(title)
    rings = [place for place, arch in enumerate(archs) if arch in found.archs]
    spec = scatter(points, axis("params", "params"), axis("performance", "performance"), rings=rings)
    spec["front"] = {"x": found.values[:, 0].tolist(), "y": found.values[:, 1].tolist()}
    about = (
        f"Performance against params of {len(found.everything)} architectures, {len(found.archs)} of them on the front"
    )
    rows = [[printable(arch), *map(number, values)] for arch, values in zip(found.archs, found.values, strict=True)]
    table = Table("The front of the search", ["architecture", "params", "performance"], rows, [True, False, False])
    caption = f"What the search evaluated; the hypervolume of its front is {found.hypervolume:.4f}"
    return Section(title, (), [Charts(caption, [Chart("Performance and params", about, spec)]), table])
