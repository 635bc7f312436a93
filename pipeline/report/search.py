"""The sections of a search: its trajectory, the (μ, ν) plane with the Gaussian process's mean, and its front."""

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

# Points along each side of the image of the Gaussian process's mean.
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
        section, queried = plane
        sections.append(section)
        columns |= queried
        shown |= {"mu": "μ", "nu": "ν"}
    sections.append(_front(connection, name, settings, part, archs, points))
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
    """The incumbent's performance (queries,) after each query, NaN before the first success."""
    rows = connection.execute("SELECT query, performance FROM incumbents WHERE search = ?", [name]).fetchall()
    by_query = dict(rows)
    return np.array([np.nan if (value := by_query.get(q.query)) is None else value for q in queries], dtype=float)


def _trajectory(
    name: str, settings: SearchSettings, queries: Sequence[Query], incumbents: Array, points: str
) -> Section:
    """The performance of each query, and the incumbent."""
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
    charts = Charts("The performance of each query", [Chart("Performance by query", about, spec)])
    return Section(f"Search {name}", [printable(sentence) for sentence in text], [charts, table])


def _plane(
    connection: duckdb.DuckDBPyConnection, settings: SearchSettings, queries: Sequence[Query], points: str
) -> tuple[Section, dict[str, Array]] | None:
    """The queried points of the search rectangle, over the posterior mean of the Gaussian process.

    None for methods that do not propose (μ, ν), and where a changing limit gives each query its own rectangle.
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
    queried = np.array([reach.place(float(q.mu or 0), float(q.nu or 0)) for q in queries])
    optimiser = Optimiser(seed=settings.seed, acquisition_name=settings.acquisition)
    performances: list[float] = []
    for (log10_mu, nu_quantile), query in zip(queried.tolist(), queries, strict=True):
        # As in `hnas.optim.algorithm.Search.tell`, a failed query counts as the worst so far.
        performances.append(query.performance if query.failure is None else min(performances, default=0.0))
        optimiser.register({"log10_mu": log10_mu, "nu_quantile": nu_quantile}, performances[-1])
    low, high = BOUNDS["log10_mu"]
    grid = np.stack(np.meshgrid(np.linspace(low, high, _GRID), np.linspace(0, 1, _GRID), indexing="ij"), axis=-1)
    mean = optimiser.mean(grid.reshape(-1, 2)).reshape(_GRID, _GRID)
    x, y = axis("nu_quantile", "ν as a quantile of M²"), axis("log10_mu", "log₁₀ μ, 0 where both terms weigh the same")
    spec = scatter(points, x, y, colour=axis("performance", "performance"))
    spec |= {"surface": surface(mean, (0.0, 1.0), (low, high)), "numbered": "query"}
    about = (
        f"{len(queries)} queried points of the (ν, μ) plane over the Gaussian process's mean, which goes from "
        f"{number(float(mean.min()))} to {number(float(mean.max()))}"
    )
    caption = "Points are queries with their numbers; points and surface are coloured by performance"
    section = Section("The plane of μ and ν", (), [Charts(caption, [Chart("Queried points and mean", about, spec)])])
    columns = {
        "log10_mu": queried[:, 0], "nu_quantile": queried[:, 1],
        "mu": np.array([q.mu for q in queries], dtype=float), "nu": np.array([q.nu for q in queries], dtype=float),
    }  # fmt: skip
    return section, columns


def _front(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    settings: SearchSettings,
    part: RunPart,
    archs: Sequence[str],
    points: str,
) -> Section:
    """The front of size and performance among the evaluated architectures."""
    title = "Front of the search"
    if "params" not in part.pool.columns:
        return Section(title)
    try:
        found = pareto(
            connection,
            part.run,
            runs=settings.runs,
            minimise=["params"],
            maximise=[PERFORMANCE],
            searches=[name],
            partial=True,
        )
    except UsageError:  # all evaluations failed
        return Section(title)
    rings = [place for place, arch in enumerate(archs) if arch in found.archs]
    spec = scatter(points, axis("params", "params"), axis("performance", "performance"), rings=rings)
    spec["front"] = {"x": found.values[:, 0].tolist(), "y": found.values[:, 1].tolist()}
    about = (
        f"Performance against params of {len(found.everything)} architectures, {len(found.archs)} of them on the front"
    )
    rows = [[printable(arch), *map(number, values)] for arch, values in zip(found.archs, found.values, strict=True)]
    table = Table("The front of the search", ["architecture", "params", "performance"], rows, [True, False, False])
    caption = f"The evaluated architectures; the hypervolume of their front is {found.hypervolume:.4f}"
    return Section(title, (), [Charts(caption, [Chart("Performance and params", about, spec)]), table])
