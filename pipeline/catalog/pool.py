"""The pool of a run, or of the mean of several runs, in DuckDB, where a query solves eq. (7)."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, cast

import duckdb
import numpy as np

from hnas.errors import HnasError, UsageError
from hnas.optim.evaluations import Evaluation
from hnas.optim.objective import Array
from hnas.optim.pools import Classes, Solution
from hnas.pipeline.catalog.expressions import check_expression
from hnas.pipeline.catalog.score_columns import means
from hnas.pipeline.catalog.signals import Signal
from hnas.pipeline.catalog.views import sql
from hnas.pipeline.store.run import run_or_mean
from hnas.spaces import search_spaces
from hnas.spaces.protocols import Recalling, SearchSpace

#: The mean of the stored matrices, available from `RunPool.column`. It is not a column, because reading them is slow.
GRAM_MEAN = "gram_mean"
# Numbers for the temporary tables of pools, unique within the process.
_numbers = itertools.count(1)


class RunPool:
    """The architectures of a run that a search may evaluate: a `hnas.optim.pools.Pool` over DuckDB.

    With `runs`, which includes `run`, the columns are means over these runs, for the architectures in all of them. With
    a `signal`, the candidates are the architectures that have it, and `evaluate` looks it up; otherwise they are all
    architectures. `where` is an SQL condition over the columns. Raises `UsageError` for an invalid condition.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        run: str,
        runs: Sequence[str] = (),
        *,
        signal: Signal | None = None,
        where: str | None = None,
    ) -> None:
        self._connection, self._run, self._runs, self._signal = connection, run, runs, signal
        query = "SELECT space, canonical_dataset(dataset) FROM runs WHERE run = ?"
        rows = connection.execute(query, [run]).fetchall()
        self.space_name: str = rows[0][0] if rows else ""
        number = next(_numbers)
        pool, performances, self.table = f"run_pool_{number}", f"signal_{number}", f"pool_rows_{number}"
        names = {"space": self.space_name, "dataset": rows[0][1] if rows else None}
        if runs:
            scores = [name for (name,) in connection.execute("SELECT name FROM files.score_columns").fetchall()]
            made = sql("mean_run_pool", table=pool, means=means(scores))
            connection.execute(made, {**names, "runs": list(runs)})
        else:
            connection.execute(sql("run_pool", table=pool), {**names, "run": run})
        self.columns = connection.sql(f"FROM {pool}").columns
        self._look_up(performances, signal)
        condition = "TRUE" if where is None else self._condition(where, pool)
        known = pool
        if where is not None and (scores := self.scores()):
            # NaN, a network that has no such score, is above all numbers in SQL, and would satisfy "naswot > 0".
            known = ", ".join(f"nullif({name}, 'nan'::DOUBLE) AS {name}" for name, _ in scores)
            known = f"(SELECT * REPLACE ({known}) FROM {pool})"
        made = sql("pool_rows", table=self.table, pool=pool, known=known, signal=performances, where=condition)
        with _computing(f"--where {where!r:.200} cannot be computed"):
            connection.execute(made, {"any_performance": signal is None})
        for table in (pool, performances):
            connection.execute(f"DROP TABLE {table}")
        self._values: dict[str, Array] = {}
        self._candidates: dict[tuple[str, str | None], str] = {}
        self._others: dict[int, dict[str, tuple[float, float | None]]] = {}

    def _condition(self, where: str, pool: str) -> str:
        check_expression(self._connection, where, self.columns, "--where")
        with _computing(f"--where {where!r:.200} cannot be computed"):
            kind = str(self._connection.sql(f"SELECT ({where}\n) FROM {pool}").types[0])
        if kind != "BOOLEAN":
            raise UsageError(f"--where {where!r:.200} is {kind.lower()}, not a condition; an example is params < 1e6")
        return f"{where}\n"

    def scores(self) -> list[tuple[str, str]]:
        """Return the columns of scores, and the score that each is of."""
        found = self._connection.execute("SELECT name, score FROM files.score_columns").fetchall()
        return [(name, score) for name, score in found if name in self.columns]

    def _look_up(self, table: str, signal: Signal | None, epochs: int | None = None) -> None:
        _look_up(self._connection, table, self.space_name, signal or Signal("valid_accuracy", "", "", None), epochs)

    def __len__(self) -> int:
        return len(self.archs)

    @cached_property
    def archs(self) -> Sequence[str]:
        """See `Pool`."""
        rows = self._connection.execute(f"SELECT arch FROM {self.table} ORDER BY id").fetchnumpy()
        return list(rows["arch"])

    @cached_property
    def classes(self) -> Classes:
        """See `Pool`."""
        rows = self._connection.execute(f"SELECT class FROM {self.table} ORDER BY id").fetchnumpy()
        return np.asarray(rows["class"], dtype=np.int64)

    @property
    def space(self) -> SearchSpace | None:
        """See `Pool`."""
        space: Any = search_spaces.get(self.space_name)
        if isinstance(space, Recalling) and {"operations", "adjacency"} <= set(self.columns):
            space.recall = self._definition
        return cast("SearchSpace | None", space)

    @property
    def definitions(self) -> dict[str, str]:
        """What the static columns say that each architecture is, of those of which they say it."""
        if not {"operations", "adjacency"} <= set(self.columns):
            return {}
        query = (
            f"SELECT arch, operations || ':' || adjacency AS definition FROM {self.table} WHERE definition IS NOT NULL"
        )
        return dict(self._connection.execute(query).fetchall())

    def _definition(self, arch: str) -> str | None:
        """Return the definition of an architecture from the static columns, or None if they do not contain it."""
        query = f"SELECT operations || ':' || adjacency FROM {self.table} WHERE arch = ?"
        rows = self._connection.execute(query, [arch]).fetchall()
        return str(rows[0][0]) if rows and rows[0][0] is not None else None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {arch: i for i, arch in enumerate(self.archs)}

    def position(self, arch: str) -> int | None:
        """See `Pool`."""
        return self._positions.get(arch)

    def column(self, expression: str) -> Array:
        """Return the values (n,) of an SQL expression over the pool's columns; see `Pool`."""
        if expression == GRAM_MEAN and expression not in self.columns:
            return self._gram_means
        if expression not in self._values:
            self._check(expression)
            query = f"SELECT ({expression}\n)::DOUBLE AS value FROM {self.table} ORDER BY id"
            with _computing(f"the column {expression!r:.200} does not give numbers"):
                values = self._connection.execute(query).fetchnumpy()["value"]
            self._values[expression] = _filled(values)
        return self._values[expression]

    @cached_property
    def _gram_means(self) -> Array:
        """The means (n,) of the stored matrices, over all runs of an average. Read only on request."""
        runs = list(self._runs) or [self._run]
        kept = "SELECT count(*) FROM files.grams WHERE list_contains(?, run)"
        if not self._connection.execute(kept, [runs]).fetchall()[0][0]:
            raise UsageError(
                f"{self} keeps no Gram matrices, and so has no {GRAM_MEAN}; `hnas precompute` with --keep-gram keeps "
                "them"
            )
        made = sql("gram_means", rows=self.table)
        return _filled(self._connection.execute(made, {"runs": runs}).fetchnumpy()["value"])

    def score_seconds(self, expression: str) -> Array:
        """Return the seconds (n,) that the scores took whose columns an SQL expression reads, 0 where unknown."""
        read = {score for column, score in self.scores() if _reads(expression, column)}
        costs = [self.column(f"{score}_seconds") for score in sorted(read) if f"{score}_seconds" in self.columns]
        return np.nansum(costs, axis=0) if costs else np.zeros(len(self))

    def complete(self, column: str) -> bool:
        """Return whether the pool has `column` for every candidate. NaN counts: a network without a value."""
        if column not in self.columns:
            return False
        size, known = self._counts([column])
        return known == size

    def _counts(self, columns: Sequence[str]) -> list[int]:
        """Return the number of candidates, then of those that have each column; NaN counts."""
        counted = ", ".join(["count(*)", *(f'count("{column}")' for column in columns)])
        return list(self._connection.execute(f"SELECT {counted} FROM {self.table}").fetchall()[0])

    def remarks(self) -> list[str]:
        """Return a sentence for each requested score that some candidates lack.

        NaN counts as a score: that of a network without any other.
        """
        named = " ".join([*self._values, *(text for key in self._candidates for text in key if text)])
        asked = [(column, score) for column, score in self.scores() if _reads(named, column)]
        size, *known = self._counts([column for column, _ in asked])
        return [
            f"{size - count:,} of the {size:,} candidates lack the score {column}, and come last or not at all; the "
            f"run's `hnas precompute` with --scores {score} computes it"
            for (column, score), count in zip(asked, known, strict=True)
            if count < size and column != f"{score}_seconds"
        ]

    def minimiser(self, metric: str, limited: str | None = None) -> DuckDBMinimiser:
        """See `Pool`; `metric` and `limited` may be SQL expressions."""
        key = (metric, limited)
        if key not in self._candidates:
            named = [expression for expression in key if expression is not None]
            for expression in named:
                self._check(expression)
            table = f"candidates_{next(_numbers)}"
            of = f"the column {' or '.join(f'{expression!r:.200}' for expression in named)} does not give numbers"
            limit = "0" if limited is None else f"{limited}\n"
            with _computing(of):
                self._connection.execute(
                    sql("candidates", table=table, metric=f"{metric}\n", limited=limit, rows=self.table)
                )
            self._candidates[key] = table
        return DuckDBMinimiser(self, self._connection, self._candidates[key])

    def _check(self, expression: str) -> None:
        check_expression(self._connection, expression, self.columns, "the column")

    @cached_property
    def _evaluations(self) -> tuple[Array, Array]:
        """The performance and cost (n,) of each candidate by the signal."""
        rows = self._connection.execute(f"SELECT performance, cost FROM {self.table} ORDER BY id").fetchnumpy()
        return _filled(rows["performance"]), _filled(rows["cost"])

    @property
    def performances(self) -> Array:
        """The accuracy (n,) of each candidate by the signal, in percent."""
        return self._evaluations[0]

    @property
    def costs(self) -> Array:
        """The seconds (n,) of each candidate's training, NaN if the source does not record them."""
        return self._evaluations[1]

    def accuracies(self, signal: Signal) -> Array:
        """Return the accuracy (n,) of each candidate by another signal, in percent, NaN if there is none."""
        table = f"signal_{next(_numbers)}"
        self._look_up(table, signal)
        rows = self._connection.execute(
            f"SELECT s.performance FROM {self.table} AS p LEFT JOIN {table} AS s ON p.arch = s.arch ORDER BY p.id"
        ).fetchnumpy()
        self._connection.execute(f"DROP TABLE {table}")
        return _filled(rows["performance"])

    def evaluate(self, arch: str, epochs: int | None = None) -> Evaluation:
        """The table oracle: return a candidate's accuracy by the signal, and the seconds of its training, or 0.

        `epochs` other than the signal's are looked up in the curves of the same trainings. Raises `HnasError` if the
        table lacks the value.
        """
        assert self._signal is not None
        if epochs is None or epochs == self._signal.epochs:
            position = self.position(arch)
            entry = None if position is None else (self.performances[position], self.costs[position])
        else:
            entry = self._after(epochs).get(arch)
        if entry is None:
            after = "" if epochs is None else f" after {epochs} epochs"
            raise HnasError(f"the table has no accuracy of {arch}{after} ({self._signal.source}); import one")
        performance, cost = entry
        return Evaluation(float(performance), 0.0 if cost is None or math.isnan(cost) else float(cost))

    def continued(self, arch: str, since: int, epochs: int) -> Evaluation:
        """See `hnas.optim.evaluations.Continuing`."""
        evaluation = self.evaluate(arch, epochs)
        before = 0.0 if since == 0 else self.evaluate(arch, since).cost
        return evaluation._replace(cost=(evaluation.cost or 0.0) - (before or 0.0))

    __call__ = evaluate

    def _after(self, epochs: int) -> dict[str, tuple[float, float | None]]:
        if epochs not in self._others:
            table = f"signal_{next(_numbers)}"
            self._look_up(table, self._signal, epochs)
            rows = self._connection.execute(f"FROM {table}").fetchall()
            self._connection.execute(f"DROP TABLE {table}")
            if not rows:
                raise HnasError(
                    f"{self._signal} has no curves with epoch {epochs}; `hnas import nats-bench` imports curves, and "
                    "--oracle train trains"
                )
            self._others[epochs] = {arch: (performance, cost) for arch, performance, cost in rows}
        return self._others[epochs]

    def knows(self, epochs: int) -> bool:
        """Whether accuracies after `epochs` are available: the curves have that epoch, or trainings are made."""
        if self._signal is None:
            return True
        with suppress(HnasError):
            return bool(self._after(epochs))
        return False

    def smallest_and_largest(self) -> tuple[str, ...]:
        """Return the candidates with the fewest and the most parameters; the first of all if these are unknown."""
        if "params" in self.columns:
            params = self.column("params")
            if not np.isnan(params).all():
                return self.archs[int(np.nanargmin(params))], self.archs[int(np.nanargmax(params))]
        return (self.archs[0],)

    def __str__(self) -> str:
        return run_or_mean(self._run, self._runs)


def _reads(expression: str, column: str) -> bool:
    return re.search(rf"\b{column}\b", expression, re.IGNORECASE) is not None


def known_accuracies(connection: duckdb.DuckDBPyConnection, space: str, signal: Signal) -> dict[str, float]:
    """Return the accuracy, in percent, of each architecture of `space` that `signal` has, by name."""
    table = f"signal_{next(_numbers)}"
    _look_up(connection, table, space, signal)
    rows = connection.execute(f"SELECT arch, performance FROM {table} ORDER BY arch").fetchall()
    connection.execute(f"DROP TABLE {table}")
    return dict(rows)


def _look_up(
    connection: duckdb.DuckDBPyConnection, table: str, space: str, signal: Signal, epochs: int | None = None
) -> None:
    """Create `table` of arch, performance and cost by `signal`, or after fewer `epochs` of the same trainings."""
    name, of, at = "signal_of", signal.epochs, None
    if signal.of is not None or epochs is not None:
        name, of, at = "signal_on_the_way", signal.of or signal.epochs, epochs or signal.epochs
    names = {"space": space, "dataset": signal.dataset, "source": signal.source, "epochs": of}
    if at is not None:
        names["epoch"] = at
    connection.execute(sql(name, table=table, accuracy=signal.accuracy), names)


class DuckDBMinimiser:
    """Eq. (7) over `table`, with columns arch, class, metric, kappa, limited: see `hnas.optim.pools.Minimiser`."""

    def __init__(self, pool: RunPool, connection: duckdb.DuckDBPyConnection, table: str) -> None:
        self._pool, self._connection, self.table = pool, connection, table
        self._taken: list[int] = []
        self.limit = math.inf
        self._bound, self._argmin = (sql(name, candidates=table) for name in ("bound", "argmin"))

    def limited(self) -> Array:
        """See `Minimiser`."""
        return _filled(self._connection.execute(f"SELECT limited FROM {self.table}").fetchnumpy()["limited"])

    def terms(self) -> tuple[Array, Array]:
        """See `Minimiser`."""
        query = f"SELECT metric, kappa FROM {self.table} WHERE limited <= $1"
        columns = self._connection.execute(query, [self.limit]).fetchnumpy()
        return columns["metric"], columns["kappa"]

    def solve(self, *, mu: float, nu: float, t: float) -> Solution | None:
        """See `Minimiser`."""
        names = {"mu": mu, "nu": nu, "t": t, "taken": self._taken, "limit": self.limit}
        least = self._connection.execute(self._bound, names).fetchall()[0][0]
        bound = math.inf if least is None else least
        names |= {"bound": bound, "distance": _distance(bound, mu, t)}
        rows = self._connection.execute(self._argmin, names).fetchall()
        return Solution(*rows[0]) if rows else None

    def take(self, arch: str) -> None:
        """See `Minimiser`."""
        position = self._pool.position(arch)
        assert position is not None  # `solve` returns architectures of the pool
        self._taken.append(int(self._pool.classes[position]))


def _filled(values: Any) -> Array:
    """Return a column of numbers with NaN in place of NULL."""
    filled: Array = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    return filled


@contextmanager
def _computing(what: str) -> Iterator[None]:
    """Convert DuckDB's errors in computing an expression to a `UsageError`: `what`, and the reason."""
    try:
        yield
    except (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError) as error:
        raise UsageError(f"{what}: {str(error).splitlines()[0]}") from error


def _distance(bound: float, mu: float, t: float) -> float:
    """Return |M² − ν| at which the second term of (7) alone reaches `bound`, plus a margin for rounding of powers."""
    share = bound / mu if mu > 0 else math.inf
    if share < 1e-290:  # powers would underflow
        return math.inf
    try:
        return float(share ** (1 / (2 * t)) * (1 + 1e-9))
    except OverflowError:
        return math.inf
