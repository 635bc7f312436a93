"""The pool of a run in DuckDB: eq. (7) is solved by a query."""

from __future__ import annotations

import duckdb

from hnas.algorithm import Solution
from hnas.errors import UsageError
from hnas.metrics.names import COLUMNS
from hnas.objective import Array
from pipeline.catalog import sql

#: The metrics M that a search may use: all columns but κ.
METRICS = tuple(name for name in COLUMNS if name != "kappa")
ACCURACIES = ("valid_accuracy", "test_accuracy")


class DuckDBPool:
    """The candidates of one run: alive, κ finite, and with an accuracy where `with_accuracy` asks for it.

    See `hnas.algorithm.Pool`. Raises `UsageError` for an unknown metric or accuracy.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        run: str,
        metric: str,
        accuracy: str = "test_accuracy",
        with_accuracy: bool = False,
    ) -> None:
        if metric not in METRICS:
            raise UsageError(f"the metric {metric!r} is unknown; choose from {', '.join(METRICS)}")
        if accuracy not in ACCURACIES:
            raise UsageError(f"the accuracy {accuracy!r} is unknown; choose from {', '.join(ACCURACIES)}")
        self._connection = connection
        connection.execute(
            sql("candidates", metric=metric, accuracy=accuracy), {"run": run, "any_performance": not with_accuracy}
        )
        connection.execute("CREATE OR REPLACE TEMP TABLE taken (canonical VARCHAR)")
        self._argmin = sql("argmin")

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM candidates").fetchall()[0][0])

    def terms(self) -> tuple[Array, Array]:
        """The metric (n,) and κ (n,) of the candidates, in the order of their names."""
        columns = self._connection.execute("SELECT metric, kappa FROM candidates ORDER BY arch").fetchnumpy()
        return columns["metric"], columns["kappa"]

    def solve(self, *, mu: float, nu: float, t: float) -> Solution | None:
        """The minimiser of (7) among the candidates whose class is not taken, or None."""
        rows = self._connection.execute(self._argmin, {"mu": mu, "nu": nu, "t": t}).fetchall()
        return Solution(*rows[0]) if rows else None

    def take(self, arch: str) -> None:
        """Leave the class of `arch` out from now on."""
        self._connection.execute("INSERT INTO taken SELECT canonical FROM candidates WHERE arch = ?", [arch])

    def performances(self) -> dict[str, float]:
        """The accuracy of each candidate that has one, in percent."""
        rows = self._connection.execute("SELECT arch, performance FROM candidates WHERE performance IS NOT NULL")
        return dict(rows.fetchall())


def choose_accuracy(connection: duckdb.DuckDBPyConnection, run: str, wanted: str | None) -> str:
    """The accuracy column to use: the wanted one, else validation accuracy, else test accuracy, where the run has any.

    Raises `UsageError` where the architectures of the run have none.
    """
    counts = connection.execute(
        "SELECT count(valid_accuracy), count(test_accuracy) FROM pool WHERE run = ?", [run]
    ).fetchall()[0]
    having = [name for name, count in zip(ACCURACIES, counts, strict=True) if count]
    if wanted is not None and wanted not in ACCURACIES:
        raise UsageError(f"the accuracy {wanted!r} is unknown; choose from {', '.join(ACCURACIES)}")
    if not having or (wanted is not None and wanted not in having):
        raise UsageError(
            f"no architecture of run {run} has a {wanted or 'validation or test accuracy'} on the run's data set; "
            "`hnas import` takes a table of them, and --oracle train trains"
        )
    return wanted or having[0]
