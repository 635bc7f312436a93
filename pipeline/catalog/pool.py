"""The pool of a run, or of the mean of several, in DuckDB: eq. (7) is solved by a query."""

from __future__ import annotations

import math
from collections.abc import Sequence

import duckdb

from hnas.errors import UsageError, unknown
from hnas.metrics.names import COLUMNS
from hnas.optim.algorithm import Solution
from hnas.optim.objective import Array
from hnas.pipeline.catalog.views import sql
from hnas.pipeline.store.run import run_or_mean
from hnas.pipeline.store.schema import ACCURACIES

#: The metrics M that a search may use: all columns but κ.
METRICS = tuple(name for name in COLUMNS if name != "kappa")
#: The accuracies that may guide it.
GUIDES = ACCURACIES[1:]


class DuckDBPool:
    """The candidates of one run: alive, κ finite, and with an accuracy where `with_accuracy` asks for it.

    With `runs` the metric and κ are their means over these runs, of which `run` is one, and the candidates those that
    all of them have. See `hnas.optim.algorithm.Pool`. Raises `UsageError` for an unknown metric or accuracy.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        run: str,
        metric: str,
        accuracy: str = "test_accuracy",
        with_accuracy: bool = False,
        runs: Sequence[str] = (),
    ) -> None:
        if metric not in METRICS:
            raise unknown("the metric", metric, METRICS)
        if accuracy not in GUIDES:
            raise unknown("the accuracy", accuracy, GUIDES)
        self._connection = connection
        if not _is_made(connection, run, metric, runs):
            _make_run_pool(connection, run, metric, runs)
        connection.execute(sql("candidates", accuracy=accuracy), {"any_performance": not with_accuracy})
        # Made for one pool: the next one asks the store again.
        connection.execute("DROP TABLE run_pool")
        connection.execute("CREATE OR REPLACE TEMP TABLE taken (id BIGINT)")
        self._bound, self._argmin = sql("bound"), sql("argmin")

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM candidates").fetchall()[0][0])

    def terms(self) -> tuple[Array, Array]:
        """The metric (n,) and κ (n,) of the candidates, in no order."""
        columns = self._connection.execute("SELECT metric, kappa FROM candidates").fetchnumpy()
        return columns["metric"], columns["kappa"]

    def solve(self, *, mu: float, nu: float, t: float) -> Solution | None:
        """The minimiser of (7) among the candidates whose class is not taken, or None."""
        names = {"mu": mu, "nu": nu, "t": t}
        least = self._connection.execute(self._bound, names).fetchall()[0][0]
        bound = math.inf if least is None else least
        names |= {"bound": bound, "distance": _distance(bound, mu, t)}
        rows = self._connection.execute(self._argmin, names).fetchall()
        return Solution(*rows[0]) if rows else None

    def take(self, arch: str) -> None:
        """Leave the class of `arch` out from now on."""
        self._connection.execute(sql("take"), [arch])

    def performances(self) -> dict[str, float]:
        """The accuracy of each candidate that has one, in percent."""
        rows = self._connection.execute("SELECT arch, performance FROM candidates WHERE performance IS NOT NULL")
        return dict(rows.fetchall())

    def performance(self, arch: str) -> float | None:
        """The accuracy of a candidate in percent, or None where it has none."""
        rows = self._connection.execute("SELECT performance FROM candidates WHERE arch = ?", [arch]).fetchall()
        return float(rows[0][0]) if rows and rows[0][0] is not None else None


def _distance(bound: float, mu: float, t: float) -> float:
    """|M² − ν| at which the second term of (7) alone reaches `bound`, and a little more, for the rounding of powers."""
    share = bound / mu if mu > 0 else math.inf
    if share < 1e-290:  # where powers underflow
        return math.inf
    try:
        return float(share ** (1 / (2 * t)) * (1 + 1e-9))
    except OverflowError:
        return math.inf


def _make_run_pool(connection: duckdb.DuckDBPyConnection, run: str, metric: str, runs: Sequence[str]) -> None:
    """Make the temporary table `run_pool`: what the view `pool` has of one run, but for static columns.

    With `runs` it is what `mean_pool` has of architectures in all of them. It costs a fraction of the view, which ranks
    and averages the accuracies of all spaces.
    """
    found = connection.execute("SELECT space, canonical_dataset(dataset) FROM runs WHERE run = ?", [run]).fetchall()
    space, dataset = found[0] if found else (None, None)
    tables = connection.execute(
        "SELECT DISTINCT source, epochs FROM accuracies WHERE space = ? AND dataset = ?", [space, dataset]
    ).fetchall()
    if len(tables) > 1:
        tables = connection.execute(
            "SELECT source, epochs FROM files.accuracy_tables WHERE space = ? AND dataset = ?", [space, dataset]
        ).fetchall()
    source, epochs = tables[0] if tables else (None, None)
    names = {"space": space, "dataset": dataset, "source": source, "epochs": epochs}
    if runs:
        connection.execute(sql("mean_run_pool", metric=metric), {**names, "runs": list(runs)})
    else:
        connection.execute(sql("run_pool", metric=metric), {**names, "run": run})


def _is_made(connection: duckdb.DuckDBPyConnection, run: str, metric: str, runs: Sequence[str]) -> bool:
    """Whether `run_pool` is there, and of this run or these runs and metric."""
    made = "SELECT count(*) > 0 FROM duckdb_tables() WHERE temporary AND table_name = 'run_pool'"
    if not connection.execute(made).fetchall()[0][0]:
        return False
    return connection.execute("SELECT run, metric_name FROM run_pool LIMIT 1").fetchall() == [
        (" ".join(runs) or run, metric)
    ]


def choose_accuracy(
    connection: duckdb.DuckDBPyConnection,
    run: str,
    wanted: str | None,
    metric: str = "trace",
    runs: Sequence[str] = (),
) -> str:
    """The accuracy column to use: the wanted one, else validation accuracy, else test accuracy, where the run has any.

    Leaves the run's `run_pool` for the `DuckDBPool` of this `metric` and `runs` that follows. Raises `UsageError` for
    an unknown metric or accuracy, and where the architectures of the run have none.
    """
    if metric not in METRICS:
        raise unknown("the metric", metric, METRICS)
    _make_run_pool(connection, run, metric, runs)
    counts = connection.execute("SELECT count(valid_accuracy), count(test_accuracy) FROM run_pool").fetchall()[0]
    having = [name for name, count in zip(GUIDES, counts, strict=True) if count]
    if wanted is not None and wanted not in GUIDES:
        raise unknown("the accuracy", wanted, GUIDES)
    if not having or (wanted is not None and wanted not in having):
        raise UsageError(
            f"no architecture of {run_or_mean(run, runs)} has a {wanted or 'validation or test accuracy'} "
            "on the run's data set; `hnas import` takes a table of them, and --oracle train trains"
        )
    return wanted or having[0]
