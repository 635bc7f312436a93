"""Pareto fronts over the columns of a pool, or over evaluated architectures, and their hypervolume.

a dominates b if it is at least as good in every objective and better in one; the front consists of all architectures
that none dominates. Of architectures with equal values, the front has the first by name. The hypervolume is the share
of a box that the front dominates. The box spans the worst to the best value of each objective in the pool, so 1 would
be a front with the best of everything, and fronts over the same pool can be compared.

Source: Zitzler and Thiele, PPSN 1998; computed by moocore (Fonseca, Paquete, López-Ibáñez, CEC 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import moocore
import numpy as np

from hnas.errors import UsageError, did_you_mean
from hnas.optim.objective import Array
from hnas.pipeline.catalog.averaging import check_runs, group_of
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import ACCURACIES, Signal, choose_signal
from hnas.pipeline.catalog.views import RunRow, check_complete, pick_run
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.store.run import run_or_mean

#: The objective of evaluated architectures: their performance in the search.
PERFORMANCE = "performance"


@dataclass(frozen=True)
class Front:
    """The front (k, d) of `n` rows in the objectives `names` (d); `maximised` (d) says which are maximised.

    The rows are those of `run`, or of the mean of `runs` if there are any.
    `values` are sorted by the first objective, the best first. `everything` (n, d) holds all rows. `signals` are the
    accuracies among the objectives, `left_out` counts the rows with an unknown objective.
    """

    run: RunRow
    runs: list[str]
    names: list[str]
    maximised: list[bool]
    archs: list[str]
    values: Array
    hypervolume: float
    everything: Array
    left_out: int
    signals: list[Signal]
    searches: list[str]

    def records(self) -> list[dict[str, Any]]:
        """Return one record per architecture of the front, for programs."""
        return [
            {"arch": arch, **dict(zip(self.names, row, strict=True))}
            for arch, row in zip(self.archs, self.values.tolist(), strict=True)
        ]


def front_runs(
    connection: duckdb.DuckDBPyConnection,
    *,
    run: str | None = None,
    space: str | None = None,
    dataset: str | None = None,
    searches: Sequence[str] = (),
    average: bool = False,
) -> tuple[RunRow, list[str]]:
    """Return the run that a front is of, and the runs of its mean, or none.

    Without a named `run`, they are those of the `searches`, or the newest run. With `average`, the mean is over all
    runs that differ only in seed and batch. Raises `UsageError` if none matches, or the searches have different runs,
    and `HnasError` if the store no longer has a run of theirs.
    """
    runs: list[str] = []
    if searches and run is None:
        query = "SELECT search, run, runs FROM searches WHERE list_contains(?, search) ORDER BY search"
        found = connection.execute(query, [list(searches)]).fetchall()
        if any(row[1:] != found[0][1:] for row in found):
            listed = ", ".join(f"{search} ({run_or_mean(of, of_mean)})" for search, of, of_mean in found)
            raise UsageError(f"the searches {listed} are of different runs; name one run with --run, or one search")
        if found:
            _, run, runs = found[0]
            check_runs(connection, runs)
    chosen = pick_run(connection, run=run, space=space, dataset=dataset)
    return chosen, runs or (group_of(connection, chosen.name) if average else [])


def pareto(
    connection: duckdb.DuckDBPyConnection,
    run: RunRow,
    *,
    runs: Sequence[str] = (),
    minimise: Sequence[str] = (),
    maximise: Sequence[str] = (),
    searches: Sequence[str] = (),
    where: str | None = None,
    epochs: int | None = None,
    source: str | None = None,
    partial: bool = False,
) -> Front:
    """Return the front of a run's pool, or that of the mean of `runs`, or of what `searches` evaluated of it.

    Only architectures that satisfy the condition `where` count. An objective is a column of the pool, an SQL expression
    over its columns, an accuracy (of `epochs` and `source`, by default those of `choose_signal`), or with searches
    their `performance`. Raises `UsageError` for unknown or contradictory objectives, and if no row has all of them.
    """
    names, maximised = [*minimise, *maximise], [False] * len(minimise) + [True] * len(maximise)
    if len(names) < 2:
        raise UsageError("a front needs at least two objectives, such as --minimise params --maximise test_accuracy")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice!r} is an objective twice; name each once, to minimise or to maximise")
    if (epochs is not None or source is not None) and not set(names) & set(ACCURACIES):
        raise UsageError(
            "--epochs and --source choose an accuracy, and none is among the objectives; leave them out, or add "
            f"--maximise {ACCURACIES[-1]}"
        )
    performances = _performances(connection, searches)
    check_complete(connection, runs or [run.name], partial=partial)
    pool = RunPool(connection, run.name, runs, where=where)
    dataset = canonical_dataset(run.settings.dataset)
    signals, columns = [], []
    for name in names:
        if name == PERFORMANCE and searches:
            columns.append(_performance_of_all(connection, pool, searches[0], performances))
        elif name in ACCURACIES:
            signal = choose_signal(connection, run.settings.space, dataset, accuracy=name, epochs=epochs, source=source)
            if signal is None:
                raise UsageError(
                    f"the store has no {name} of {run.settings.space} on {dataset}; `hnas import` adds them"
                )
            signals.append(signal)
            columns.append(pool.accuracies(signal))
        else:
            columns.append(pool.column(name))
    everything = np.column_stack(columns)
    complete = np.isfinite(everything).all(axis=1)
    chosen = complete & np.array([arch in performances for arch in pool.archs]) if searches else complete
    if not chosen.any():
        under = f" under --where {where!r:.200}" if where else ""
        raise UsageError(f"no architecture of {pool}{under} has all of {', '.join(names)}")
    rows = np.flatnonzero(chosen)
    points = everything[rows]
    front = np.flatnonzero(moocore.is_nondominated(points, maximise=maximised))
    front = front[np.argsort(points[front, 0] * (-1 if maximised[0] else 1), kind="stable")]
    return Front(
        run=run,
        runs=list(runs),
        names=names,
        maximised=maximised,
        archs=[pool.archs[rows[i]] for i in front],
        values=points[front],
        hypervolume=hypervolume(points[front], everything[complete], maximised),
        everything=points,
        left_out=int((~complete).sum()),
        signals=signals,
        searches=list(searches),
    )


def hypervolume(front: Array, pool: Array, maximised: Sequence[bool]) -> float:
    """Return the share of the box between the worst and the best of `pool` (n, d) that `front` (k, d) dominates.

    Objectives that do not vary in the pool are ignored.
    """
    sign = np.where(maximised, -1.0, 1.0)
    low, high = (pool * sign).min(axis=0), (pool * sign).max(axis=0)
    varies = high > low
    if not varies.any():
        return 1.0
    scaled = ((front * sign - low) / np.where(varies, high - low, 1.0))[:, varies]
    return float(moocore.hypervolume(scaled, ref=np.ones(int(varies.sum()))))


def _performance_of_all(
    connection: duckdb.DuckDBPyConnection, pool: RunPool, search: str, evaluated: dict[str, float]
) -> Array:
    """Return the performance (n,) of the pool's architectures by the signal of `search`, so that its box is the pool's.

    For trained architectures, only evaluated performances are known.
    """
    query = "SELECT accuracy, source, dataset, epochs FROM searches WHERE search = ? AND source IS NOT NULL"
    performances = np.full(len(pool), np.nan)
    for accuracy, source, dataset, epochs in connection.execute(query, [search]).fetchall():
        at = canonical_dataset(dataset)
        signal = choose_signal(connection, pool.space_name, at, accuracy=accuracy, epochs=epochs, source=source)
        if signal is not None:
            performances = pool.accuracies(signal)
    return np.array([evaluated.get(arch, value) for arch, value in zip(pool.archs, performances.tolist(), strict=True)])


def _performances(connection: duckdb.DuckDBPyConnection, searches: Sequence[str]) -> dict[str, float]:
    """Return the best performance of each evaluated architecture. Raises `UsageError` for an unknown search."""
    best: dict[str, float] = {}
    for search in searches:
        rows = connection.execute("SELECT arch, max(performance) FROM queries WHERE search = ? GROUP BY arch", [search])
        performances = dict(rows.fetchall())
        if not performances:
            names = [name for (name,) in connection.execute("SELECT search FROM searches").fetchall()]
            raise UsageError(
                f"there is no search {search!r} with queries in the store; `hnas sql 'FROM searches'` lists them"
                f"{did_you_mean(search, names)}"
            )
        succeeded = {arch: value for arch, value in performances.items() if value is not None}
        best |= {arch: max(value, best.get(arch, value)) for arch, value in succeeded.items()}
    return best
