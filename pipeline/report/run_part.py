"""A run in a report: its pool, its accuracies, and the architectures to draw."""

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

#: The most architectures to draw. Larger pools are sampled, always with the same seed.
MOST_POINTS = 20_000


@dataclass(frozen=True)
class RunPart:
    """A run in a report, whose charts draw the `rows` (n,) of the pool as the point set `points`.

    `target` is the accuracy, None if the store has none. `accuracies` maps names to the (N,) of the whole pool.
    """

    run: RunRow
    pool: RunPool
    correlations: Correlations | None
    rows: NDArray[np.int64]
    points: str
    target: str | None
    accuracies: dict[str, Array]
    archs: list[str]

    def whole(self, name: str) -> Array:
        """The values (N,) over the whole pool of an accuracy or an expression over its columns."""
        return self.accuracies[name] if name in self.accuracies else self.pool.column(name)

    def column(self, name: str) -> Array:
        """The values (n,) of the drawn rows."""
        return self.whole(name)[self.rows]

    def canonical(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        """The canonical architectures (n) of the drawn rows."""
        names = connection.execute(f"SELECT canonical FROM {self.pool.table} ORDER BY id").fetchnumpy()["canonical"]
        return [str(names[row]) for row in self.rows]

    @property
    def signal(self) -> Signal | None:
        """The signal that `target` names."""
        signals = self.correlations.signals if self.correlations is not None else []
        return next((signal for signal in signals if signal.accuracy == self.target), None)


def open_run(connection: duckdb.DuckDBPyConnection, run: RunRow) -> RunPart:
    """Read what the sections of a run need. Raises what reading its rows raises."""
    pool = RunPool(connection, run.name)
    correlations = correlate(connection, run, partial=True) if len(pool) >= FEWEST else None
    accuracies = (
        {} if correlations is None else {signal.accuracy: pool.accuracies(signal) for signal in correlations.signals}
    )
    rows = np.arange(len(pool))
    if len(pool) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(len(pool), MOST_POINTS, replace=False))
    archs = [pool.archs[row] for row in rows.tolist()]
    target = None if correlations is None else correlations.target
    return RunPart(run, pool, correlations, rows, f"run-{run.name}", target, accuracies, archs)


def point_set(part: RunPart) -> PointSet:
    """The drawn points of a run, with all correlated columns."""
    names = part.correlations.names if part.correlations is not None else list(COLUMNS)
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
