"""A run as a report shows it: its pool, its accuracies, the architectures that are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from hnas.metrics.columns import COLUMNS
from hnas.optim.objective import Array
from hnas.pipeline.analysis.correlate import TABLE_1, Correlations, correlate
from hnas.pipeline.analysis.ranks import FEWEST
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import Signal
from hnas.pipeline.catalog.views import RunRow
from hnas.pipeline.io.printable import printable
from hnas.pipeline.report.points import PointSet, cells_of

#: The most architectures that are drawn; of larger pools a sample is, with the same seed always.
MOST_POINTS = 20_000


@dataclass(frozen=True)
class RunPart:
    """A run as a report shows it: its `rows` (n,) of the pool that are drawn, and the point set `points` of these.

    `target` is the accuracy, None where the store has none; `accuracies` (N,) of all rows of the pool, by name.
    """

    run: RunRow
    pool: RunPool
    found: Correlations | None
    rows: NDArray[np.int64]
    points: str
    target: str | None
    accuracies: dict[str, Array]
    archs: list[str]

    def whole(self, name: str) -> Array:
        """The numbers (N,) of the pool: an accuracy, or an expression over its columns."""
        return self.accuracies[name] if name in self.accuracies else self.pool.column(name)

    def column(self, name: str) -> Array:
        """The same (n,) of what is drawn."""
        return self.whole(name)[self.rows]

    def canonical(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        """The canonical architectures (n) of what is drawn."""
        found = connection.execute(f"SELECT canonical FROM {self.pool.table} ORDER BY id").fetchnumpy()["canonical"]
        return [str(found[row]) for row in self.rows]

    @property
    def signal(self) -> Signal | None:
        """What the target is."""
        signals = self.found.signals if self.found is not None else []
        return next((signal for signal in signals if signal.accuracy == self.target), None)


def open_run(connection: duckdb.DuckDBPyConnection, run: RunRow) -> RunPart:
    """A run with what its sections need. Raises what reading its rows raises."""
    pool = RunPool(connection, run.name)
    found = correlate(connection, run, partial=True) if len(pool) >= FEWEST else None
    accuracies = {} if found is None else {signal.accuracy: pool.accuracies(signal) for signal in found.signals}
    rows = np.arange(len(pool))
    if len(pool) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(len(pool), MOST_POINTS, replace=False))
    archs = [pool.archs[row] for row in rows.tolist()]
    target = None if found is None else found.target
    return RunPart(run, pool, found, rows, f"run-{run.name}", target, accuracies, archs)


def point_set(part: RunPart) -> PointSet:
    """What is drawn of a run, with all columns that were correlated."""
    names = part.found.names if part.found is not None else list(COLUMNS)
    names = [name for name in names if name in part.accuracies or name in part.pool.columns]
    columns = {name: part.column(f'"{name}"' if name not in part.accuracies else name) for name in names}
    columns |= {f"|{name}|": np.abs(columns[name]) for name in TABLE_1 if name in columns}
    shown = {name: name.replace("_", " ") for name in names}
    cells = cells_of(part.pool.space, part.archs, part.pool.definitions)
    return PointSet(part.archs, columns, shown, cells)


def words(name: str) -> str:
    return {"kappa": "κ"}.get(name, printable(name.replace("_", " ")))


def coefficient(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
