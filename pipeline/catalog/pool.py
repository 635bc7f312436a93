"""The pool of a run, or of the mean of several, in DuckDB: eq. (7) is solved by a query."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import duckdb

from hnas.errors import HnasError, UsageError, unknown
from hnas.metrics.columns import COLUMNS
from hnas.optim.algorithm import Solution
from hnas.optim.objective import Array
from hnas.pipeline.catalog.views import sql
from hnas.pipeline.store.run import run_or_mean
from hnas.spaces import search_spaces

#: The metrics M that a search may use: all columns but κ.
METRICS = tuple(name for name in COLUMNS if name != "kappa")
#: The accuracies that may guide a search, the first that a run has where none is asked for.
ACCURACIES = ("valid_accuracy", "test_accuracy")

# Each pool has temporary tables of its own, which no other pool of the connection names.
_numbers = itertools.count(1)


class RunPool:
    """The architectures of a run with one metric, κ and their accuracies: what the view `pool` has of it.

    With `runs`, of which `run` is one, they are the means that `mean_pool` has of the architectures in all of them.
    Raises `UsageError` for an unknown metric.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, run: str, metric: str, runs: Sequence[str] = ()) -> None:
        if metric not in METRICS:
            raise unknown("the metric", metric, METRICS)
        self._connection, self._run, self._metric, self._runs = connection, run, metric, runs
        self._table: str | None = None

    def choose(self, wanted: str | None = None) -> str:
        """The accuracy to use: the wanted one, else validation accuracy, else test accuracy, where there is any.

        Raises `UsageError` for an unknown accuracy, and where the architectures have none.
        """
        if wanted is not None and wanted not in ACCURACIES:
            raise unknown("the accuracy", wanted, ACCURACIES)
        counted = f"SELECT count(valid_accuracy), count(test_accuracy) FROM {self._made()}"
        counts = self._connection.execute(counted).fetchall()[0]
        having = [name for name, count in zip(ACCURACIES, counts, strict=True) if count]
        if not having or (wanted is not None and wanted not in having):
            raise UsageError(
                f"no architecture of {run_or_mean(self._run, self._runs)} has a "
                f"{wanted or 'validation or test accuracy'} on the run's data set; `hnas import` takes a table of "
                "them, and --oracle train trains"
            )
        return wanted or having[0]

    def candidates(self, accuracy: str = "test_accuracy", *, with_accuracy: bool = False) -> DuckDBPool:
        """The architectures that a search may propose: alive, with a finite κ and, if `with_accuracy`, the accuracy.

        Raises `UsageError` for an unknown accuracy.
        """
        if accuracy not in ACCURACIES:
            raise unknown("the accuracy", accuracy, ACCURACIES)
        table, candidates = self._made(), f"candidates_{next(_numbers)}"
        names = {"table": table, "candidates": candidates, "accuracy": accuracy}
        self._connection.execute(sql("candidates", **names), {"any_performance": not with_accuracy})
        # The next candidates are of the store as it is then.
        self._connection.execute(f"DROP TABLE {table}")
        self._table = None
        return DuckDBPool(self._connection, candidates)

    def _made(self) -> str:
        """The table of the architectures, made here unless it is there.

        It costs a fraction of the view, which ranks and averages the accuracies of all spaces.
        """
        if self._table is not None:
            return self._table
        connection = self._connection
        found = connection.execute(
            "SELECT space, canonical_dataset(dataset) FROM runs WHERE run = ?", [self._run]
        ).fetchall()
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
        table = f"run_pool_{next(_numbers)}"
        if self._runs:
            made = sql("mean_run_pool", table=table, metric=self._metric)
            connection.execute(made, {**names, "runs": list(self._runs)})
        else:
            connection.execute(sql("run_pool", table=table, metric=self._metric), {**names, "run": self._run})
        self._table = table
        return table


class DuckDBPool:
    """The candidates in `table`, with columns arch, canonical, metric, kappa, performance.

    See `hnas.optim.algorithm.Pool`, and `RunPool.candidates`, which makes one.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: str) -> None:
        self._connection, self.table, self.taken = connection, table, f"{table}_taken"
        connection.execute(f"CREATE TEMP TABLE {self.taken} (id BIGINT)")
        self._bound, self._argmin, self._take = (
            sql(name, candidates=table, taken=self.taken) for name in ("bound", "argmin", "take")
        )

    def __len__(self) -> int:
        return int(self._connection.execute(f"SELECT count(*) FROM {self.table}").fetchall()[0][0])

    def terms(self) -> tuple[Array, Array]:
        """The metric (n,) and κ (n,) of the candidates, in no order."""
        columns = self._connection.execute(f"SELECT metric, kappa FROM {self.table}").fetchnumpy()
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
        self._connection.execute(self._take, [arch])

    def performances(self) -> dict[str, float]:
        """The accuracy of each candidate that has one, in percent."""
        rows = self._connection.execute(f"SELECT arch, performance FROM {self.table} WHERE performance IS NOT NULL")
        return dict(rows.fetchall())

    def performance(self, arch: str) -> float:
        """The accuracy of a candidate in percent. Raises `HnasError` where it has none."""
        rows = self._connection.execute(f"SELECT performance FROM {self.table} WHERE arch = ?", [arch]).fetchall()
        if not rows or rows[0][0] is None:
            raise HnasError(f"the table has no accuracy of {arch}; import one")
        return float(rows[0][0])

    def smallest_and_largest(self, space: str) -> tuple[str, ...]:
        """The candidates of the fewest and the most parameters; any one where `space` or the store knows of none."""
        rows = self._connection.execute(f"SELECT arch FROM {self.table} LIMIT 1").fetchall()
        if "params" in search_spaces[space].describe(rows[0][0]):
            query = sql("smallest_and_largest", candidates=self.table)
            rows = self._connection.execute(query, [space]).fetchall() or rows
        return tuple(arch for (arch,) in rows)


def _distance(bound: float, mu: float, t: float) -> float:
    """|M² − ν| at which the second term of (7) alone reaches `bound`, and a little more, for the rounding of powers."""
    share = bound / mu if mu > 0 else math.inf
    if share < 1e-290:  # where powers underflow
        return math.inf
    try:
        return float(share ** (1 / (2 * t)) * (1 + 1e-9))
    except OverflowError:
        return math.inf
