"""Rank correlations between metrics, κ, parameters, FLOPs and accuracies of a run: Table 1 and Figure 1.

Correlations are taken over the pool's rows, including dead architectures, whose κ is infinite and ranks last. A pair of
columns is compared on the rows where both values are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np

from hnas.errors import UsageError, did_you_mean, unknown
from hnas.metrics.columns import COLUMNS
from hnas.optim.objective import Array, check_exponent
from hnas.pipeline.analysis.boosting import Boosted, boosted
from hnas.pipeline.analysis.ranks import FEWEST, MEASURES, partial_kendall, partial_spearman, pearson, ranks
from hnas.pipeline.catalog.averaging import group_of, left_out
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import ACCURACIES as SIGNALS
from hnas.pipeline.catalog.signals import Signal, choose_signal
from hnas.pipeline.catalog.views import RunRow, check_complete, sql
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.store.run import run_or_mean
from hnas.pipeline.store.schema import ACCURACIES

#: The metrics of Table 1, in its order.
TABLE_1 = ("grad_norm", "snip", "grasp", "trace")

# The column types that are correlated.
_NUMERIC = ("BIGINT", "INTEGER", "DOUBLE", "FLOAT", "HUGEINT", "UBIGINT")


@dataclass(frozen=True)
class Partial:
    """The partial correlation of the column `name` with the target by one `method`, over the rows with a finite κ.

    NaN if the given columns determine either of them.
    """

    name: str
    method: str
    value: float


@dataclass(frozen=True)
class Correlations:
    """Rank correlations over the `n` rows of a run: `matrix` (k, k) between the columns `names` (k), by `method`.

    κ is not negated, so a negative number means that a small κ goes with a large value. `table_1` has both methods for
    each metric, `partials` those for each column that is neither the target nor `given`.
    """

    run: RunRow
    method: str
    n: int
    names: list[str]
    matrix: Array
    target: str | None
    table_1: list[Boosted]
    given: list[str] = field(default_factory=list)
    partials: list[Partial] = field(default_factory=list)
    #: The number of rows with a finite κ, over which partial correlations are taken.
    alive: int = 0
    #: The accuracies that were used.
    signals: list[Signal] = field(default_factory=list)
    #: The averaged runs, including `run`, and the number of architectures that only some of them have.
    runs: list[str] = field(default_factory=list)
    left_out: int = 0
    #: Number of rows without a value, by column; accuracies and complete columns are omitted.
    missing: dict[str, int] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """Return one record per pair, cell of Table 1 and partial correlation, for programs."""
        run = " ".join(self.runs) or self.run.name

        def record(
            method: str, kind: str, x: str, y: str | None, value: float, mu: float = np.nan, nu: float = np.nan
        ) -> dict[str, Any]:
            n = self.alive if kind == "partial" else self.n
            common = {"run": run, "method": method, "n": n, "kind": kind, "x": x, "y": y, "value": _plain(value)}
            given = ",".join(self.given) if kind == "partial" else None
            return {**common, "mu": _plain(mu), "nu": _plain(nu), "given": given}

        pairs = [
            record(self.method, "pair", x, y, self.matrix[i, j])
            for i, x in enumerate(self.names)
            for j, y in enumerate(self.names)
            if i < j
        ]
        for row in self.table_1:
            pairs.append(record(row.method, "realizable", row.metric, self.target, row.realizable))
            best = (row.non_realizable, row.mu, row.nu)
            pairs.append(record(row.method, "non_realizable", row.metric, self.target, *best))
        pairs += [record(row.method, "partial", row.name, self.target, row.value) for row in self.partials]
        return pairs


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def correlate(
    connection: duckdb.DuckDBPyConnection,
    run: RunRow,
    *,
    target: str | None = None,
    given: Sequence[str] = (),
    method: str = "spearman",
    epochs: int | None = None,
    source: str | None = None,
    t: float = 1.0,
    average: bool = False,
    partial: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Correlations:
    """Correlate the columns of a run with each other, and its metrics with the column `target`.

    With `given` columns, also compute each other column's partial correlation with the target. `epochs` and `source`
    select the accuracies, as for a search. With `average`, columns are means over all runs that differ only in seed and
    batch, on the architectures that all of them have. `partial` allows an unfinished run. The default `target` is the
    test accuracy, or the validation accuracy if the pool has no test accuracy.

    Raises `UsageError` for an unknown method or column, a target without values, a run of fewer than three rows, a run
    that has no others to average with, and accuracies that the store does not have.
    """
    if method not in MEASURES:
        raise unknown("the method", method, MEASURES)
    check_exponent(t)
    runs = group_of(connection, run.name) if average else []
    check_complete(connection, runs or [run.name], partial=partial)
    columns, archs = _columns(connection, run.name, runs)
    what = run_or_mean(run.name, runs)
    n = len(archs)
    if n < FEWEST:
        raise UsageError(f"{what} has {n} rows; a correlation needs at least {FEWEST}")
    signals = _signals(connection, run, target, epochs, source)
    columns |= _accuracies(connection, run.settings.space, signals, archs)
    if target is None:
        target = next((name for name in ("test_accuracy", "valid_accuracy") if name in columns), None)
    if given and target is None:
        raise UsageError("--given requires a column to correlate with; give --with COLUMN")
    for name in (*([target] if target is not None else []), *given):
        if name not in columns:
            raise UsageError(
                f"{what} has no values of {name!r}; it has {', '.join(columns)}; `hnas import` adds accuracies and "
                f"columns{did_you_mean(name, columns)}"
            )
        count = int((~np.isnan(columns[name])).sum())
        if count < FEWEST:
            raise UsageError(
                f"only {count} architectures of {what} have a {name}; a correlation needs at least {FEWEST}"
            )
    if target in given or len(set(given)) < len(given):
        raise UsageError(f"--given {','.join(given)} names the target {target} or a column twice; name other columns")
    names = list(columns)
    table_1, partials = [], []
    if target is not None:
        metrics = [name for name in TABLE_1 if name != target]
        for k, metric in enumerate(metrics):
            progress(k, len(metrics))
            table_1 += boosted(metric, columns[metric], columns["kappa"], columns[target], t)
        progress(len(metrics), len(metrics))
        if given:
            partials = _partials(columns, target, given)
    return Correlations(
        run,
        method,
        n,
        names,
        _matrix([columns[name] for name in names], method),
        target,
        table_1,
        list(given),
        partials,
        int(np.isfinite(columns["kappa"]).sum()),
        signals,
        runs,
        left_out(connection, runs),
        {name: count for name, column in columns.items() if name not in ACCURACIES and (count := _missing(column))},
    )


def _missing(column: Array) -> int:
    return int(np.isnan(column).sum())


def _matrix(columns: list[Array], method: str) -> Array:
    """Return the correlations (k, k) between k columns (n,)."""
    matrix = np.eye(len(columns))
    ranked = [ranks(column) if method == "spearman" and not np.isnan(column).any() else None for column in columns]
    for i, x in enumerate(columns):
        for j, y in enumerate(columns[:i]):
            a, b = ranked[i], ranked[j]
            value = MEASURES[method](x, y) if a is None or b is None else pearson(a, b)
            matrix[i, j] = matrix[j, i] = value
    return matrix


def _partials(columns: dict[str, Array], target: str, given: Sequence[str]) -> list[Partial]:
    # Dead networks have zero metrics at any size, so they would dominate what a metric says beyond size.
    alive = np.isfinite(columns["kappa"])
    columns = {name: column[alive] for name, column in columns.items()}
    others = [columns[name] for name in given]
    partials = []
    for name in columns:
        if name != target and name not in given:
            partials.append(Partial(name, "spearman", partial_spearman(columns[name], columns[target], others)))
            if len(given) == 1:
                partials.append(Partial(name, "kendall", partial_kendall(columns[name], columns[target], others[0])))
    return partials


def _columns(
    connection: duckdb.DuckDBPyConnection, run: str, runs: Sequence[str]
) -> tuple[dict[str, Array], list[str]]:
    """Return the run's numeric columns that hold any value, each (n,) with NaN for missing values, and the rows.

    With `runs`, the run's group, the columns are means on the architectures that all of them have.
    """
    pool = RunPool(connection, run, runs)
    rows = connection.sql(f"FROM {pool.table}")
    kinds = dict(zip(rows.columns, map(str, rows.types), strict=True))
    costs = {f"{score}_seconds" for _, score in pool.scores()}
    static = [name for name in pool.columns if name not in COLUMNS and name not in costs and kinds[name] in _NUMERIC]
    names = [*COLUMNS, *static]
    listed = ", ".join(f'CAST("{name}" AS DOUBLE) AS "{name}"' for name in names)
    values = connection.execute(
        f"SELECT DISTINCT ON (arch) arch, {listed} FROM {pool.table} ORDER BY arch"
    ).fetchnumpy()
    columns: dict[str, Array] = {name: np.ma.filled(np.ma.asarray(values[name], dtype=float), np.nan) for name in names}
    kept = {name: column for name, column in columns.items() if name in COLUMNS or not np.isnan(column).all()}
    return kept, list(values["arch"])


def _signals(
    connection: duckdb.DuckDBPyConnection, run: RunRow, target: str | None, epochs: int | None, source: str | None
) -> list[Signal]:
    """Return the accuracies of the run's data set that match `epochs` and `source`, apart from training accuracies."""
    signals, refused = [], None
    dataset = canonical_dataset(run.settings.dataset)
    for accuracy in SIGNALS:
        try:
            signal = choose_signal(
                connection, run.settings.space, dataset, accuracy=accuracy, epochs=epochs, source=source
            )
        except UsageError as error:
            if accuracy == target:
                raise
            refused = error
            continue
        if signal is not None:
            signals.append(signal)
    if not signals and (epochs is not None or source is not None):
        raise refused or UsageError(f"the store has no accuracies of {run.settings.space} on {dataset} to choose from")
    return signals


def _accuracies(
    connection: duckdb.DuckDBPyConnection, space: str, signals: Sequence[Signal], archs: Sequence[str]
) -> dict[str, Array]:
    """Return the accuracies (n,) of `archs` by each signal, and the training accuracy of the last one's trainings."""
    signal_of = {signal.accuracy: signal for signal in signals}
    if signals:
        signal_of["train_accuracy"] = signals[-1]
    columns: dict[str, Array] = {}
    for accuracy in ACCURACIES:
        if (signal := signal_of.get(accuracy)) is not None:
            names = {"space": space, "dataset": signal.dataset, "source": signal.source, "epochs": signal.epochs}
            if signal.of is not None:
                names |= {"epochs": signal.of, "epoch": signal.epochs}
            query = "signal_of" if signal.of is None else "signal_on_the_way"
            connection.execute(sql(query, table="correlated_accuracies", accuracy=accuracy), names)
            rows = connection.execute("SELECT arch, performance FROM correlated_accuracies").fetchall()
            values = dict(rows)
            column = np.array([values.get(arch, np.nan) for arch in archs], dtype=float)
            if not np.isnan(column).all():
                columns[accuracy] = column
    return columns
