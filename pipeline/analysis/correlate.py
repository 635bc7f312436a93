"""How metrics, κ, parameters, FLOPs and accuracies rank the architectures of a run: Table 1 and Figure 1.

Rank correlations are taken over the pool's rows, dead architectures included: their κ is infinite and ranks last.
A pair is compared on the rows where both values are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
from scipy.stats import kendalltau, rankdata

from hnas.errors import UsageError, did_you_mean, unknown
from hnas.metrics.columns import COLUMNS
from hnas.optim.objective import BOUNDS, Array, SearchRange, check_exponent, objective
from hnas.optim.proposer import Optimiser
from hnas.pipeline.catalog.averaging import group_of, left_out
from hnas.pipeline.catalog.views import RunRow, check_complete
from hnas.pipeline.store.run import run_or_mean
from hnas.pipeline.store.schema import ACCURACIES

#: The metrics of Table 1, in its order.
TABLE_1 = ("grad_norm", "snip", "grasp", "trace")

# Bayesian optimisation over (mu, nu). The correlation is free of noise and takes milliseconds, so that half the steps
# can explore. It counts all ranks, not the first alone: its best μ may be a ten-thousandth of the one at which the
# terms of (7) weigh alike in the median, where only the largest distances from ν are felt.
_STEPS, _INITIAL, _NOISE = 60, 30, 0.01
_BOUNDS = {**BOUNDS, "log10_mu": (-6.0, 3.0)}
_FEWEST = 3


@dataclass(frozen=True)
class Boosted:
    """A row of Table 1: correlations of one metric with an accuracy.

    `realizable` is that of M itself, `non_realizable` that of −(7) at its best (μ, ν). NaN where there is none: values
    that do not differ, or fewer than two architectures with a finite κ.
    """

    metric: str
    realizable: float
    non_realizable: float
    mu: float
    nu: float


@dataclass(frozen=True)
class Correlations:
    """Rank correlations over the `n` rows of a run: `matrix` (k, k) between the columns `names` (k).

    κ enters as it is, so that a negative number says that a small κ goes with a large value.
    """

    run: RunRow
    method: str
    n: int
    names: list[str]
    matrix: Array
    target: str | None
    table_1: list[Boosted]
    #: Those whose mean it is, `run` among them, and the number of architectures that only some of them have.
    runs: list[str] = field(default_factory=list)
    left_out: int = 0

    def records(self) -> list[dict[str, Any]]:
        """One record for each pair and for each cell of Table 1, for programs."""
        pairs = [
            {"kind": "pair", "x": x, "y": y, "value": _plain(self.matrix[i, j]), "mu": None, "nu": None}
            for i, x in enumerate(self.names)
            for j, y in enumerate(self.names)
            if i < j
        ]
        boosted = [
            {
                "kind": kind,
                "x": row.metric,
                "y": self.target,
                "value": _plain(value),
                "mu": _plain(mu),
                "nu": _plain(nu),
            }
            for row in self.table_1
            for kind, value, mu, nu in (
                ("realizable", row.realizable, np.nan, np.nan),
                ("non_realizable", row.non_realizable, row.mu, row.nu),
            )
        ]
        run = " ".join(self.runs) or self.run.name
        return [{"run": run, "method": self.method, "n": self.n, **record} for record in pairs + boosted]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def correlate(
    connection: duckdb.DuckDBPyConnection,
    run: RunRow,
    *,
    target: str | None = None,
    method: str = "spearman",
    t: float = 1.0,
    seed: int = 0,
    average: bool = False,
    partial: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Correlations:
    """Correlate the columns of a run with each other, and its metrics with the accuracy `target`.

    With `average` they are those of the mean over all runs that differ from it in seed and batch only, on the
    architectures that all of these have. `partial` allows a run that is unfinished. Without a `target` it is the test
    accuracy where the pool has one. Raises `UsageError` for an unknown method or column, a target without values, a
    run of fewer than three rows, a run that has no other to average with.
    """
    if method not in _MEASURES:
        raise unknown("the method", method, _MEASURES)
    check_exponent(t)
    runs = group_of(connection, run.name) if average else []
    check_complete(connection, runs or [run.name], partial=partial)
    columns = _columns(connection, run.name, runs)
    what = run_or_mean(run.name, runs)
    n = len(columns["kappa"])
    if n < _FEWEST:
        raise UsageError(f"{what} has {n} rows; a correlation needs at least {_FEWEST}")
    if target is not None and target not in columns:
        having = ", ".join(columns)
        raise UsageError(
            f"{what} has no values of {target!r}; it has {having}; `hnas import` adds accuracies"
            f"{did_you_mean(target, columns)}"
        )
    if target is None and "test_accuracy" in columns:
        target = "test_accuracy"
    if target is not None and np.isfinite(columns[target]).sum() < _FEWEST:
        raise UsageError(
            f"only {int(np.isfinite(columns[target]).sum())} architectures of {what} have a {target}; a "
            f"correlation needs at least {_FEWEST}"
        )
    measure = _MEASURES[method]
    names = list(columns)
    matrix = np.eye(len(names))
    for i in range(len(names)):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = measure(columns[names[i]], columns[names[j]])
    table_1 = []
    if target is not None and target in ACCURACIES:
        for k, metric in enumerate(TABLE_1):
            progress(k, len(TABLE_1))
            table_1.append(_boosted(metric, columns, columns[target], measure, t, seed))
        progress(len(TABLE_1), len(TABLE_1))
    return Correlations(run, method, n, names, matrix, target, table_1, runs, left_out(connection, runs))


def _columns(connection: duckdb.DuckDBPyConnection, run: str, runs: list[str]) -> dict[str, Array]:
    """The numeric columns of the run's pool that hold any value, each (n,) with NaN where a value is missing.

    With `runs`, the run's group, of their means on the architectures that all of them have.
    """
    fixed = ("run", "space", "dataset", "arch", "canonical", "status", *COLUMNS, *ACCURACIES)
    numeric = ("BIGINT", "INTEGER", "DOUBLE", "FLOAT", "HUGEINT", "UBIGINT")
    described = connection.execute("DESCRIBE pool").fetchall()
    static = [name for name, kind, *_ in described if name not in fixed and kind in numeric]
    wanted = [*COLUMNS, *static, *ACCURACIES]
    listed = ", ".join(f'CAST("{name}" AS DOUBLE) AS "{name}"' for name in wanted)
    if runs:
        group = "(SELECT run_group FROM files.run_groups WHERE run = ?)"
        source, values_of = f"mean_pool WHERE run_group = {group} AND n_runs = ?", [run, len(runs)]
    else:
        source, values_of = "pool WHERE run = ?", [run]
    values = connection.execute(f"SELECT {listed} FROM {source} ORDER BY arch", values_of).fetchnumpy()
    columns: dict[str, Array] = {
        name: np.ma.filled(np.ma.asarray(values[name], dtype=float), np.nan) for name in wanted
    }
    return {name: column for name, column in columns.items() if name in COLUMNS or not np.isnan(column).all()}


def spearman(x: Array, y: Array) -> float:
    """Spearman's ρ of x (n,) and y (n,), ties by mean rank, infinities in their place; NaN where either is constant."""
    x, y = _known(x, y)
    if len(x) < _FEWEST:
        return float("nan")
    a, b = rankdata(x), rankdata(y)
    a -= a.mean()
    b -= b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def kendall(x: Array, y: Array) -> float:
    """Kendall's τ-b of x (n,) and y (n,), ties and infinities as in `spearman`."""
    x, y = _known(x, y)
    if len(x) < _FEWEST:
        return float("nan")
    return float(kendalltau(rankdata(x), rankdata(y)).statistic)


def _known(x: Array, y: Array) -> tuple[Array, Array]:
    known = ~(np.isnan(x) | np.isnan(y))
    return x[known], y[known]


_MEASURES: dict[str, Callable[[Array, Array], float]] = {"spearman": spearman, "kendall": kendall}


def _boosted(
    metric: str, columns: dict[str, Array], target: Array, measure: Callable[[Array, Array], float], t: float, seed: int
) -> Boosted:
    m, kappa = columns[metric], columns["kappa"]
    realizable = measure(m, target)
    nothing = (np.nan, np.nan, np.nan)
    try:
        search_range = SearchRange.of(m, kappa, t)
    except UsageError:  # too few architectures that (7) may propose
        return Boosted(metric, realizable, *nothing)
    found = []
    optimiser = Optimiser(seed=seed, bounds=_BOUNDS, initial=_INITIAL, noise=_NOISE)
    for _ in range(_STEPS):
        point = optimiser.suggest()
        mu, nu = search_range.point(**point)
        value = measure(-objective(m, kappa, mu=mu, nu=nu, t=t), target)
        optimiser.register(point, -1.0 if np.isnan(value) else value)
        if not np.isnan(value):
            found.append((value, mu, nu))
    return Boosted(metric, realizable, *max(found, default=nothing))
