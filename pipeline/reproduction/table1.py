"""Table 1: how each metric ranks architectures, by itself (realizable) and through eq. (7) (non-realizable).

The table adds to the paper's numbers both readings of a metric, the trivial baselines κ, params and FLOPs, intervals
over architectures, the spread over initialisations, and held-out non-realizable columns: (μ, ν) are fitted on each of
two random halves of the classes, −(7) is correlated with the accuracies of the other half, and the two coefficients are
averaged. The interval of a non-realizable number keeps the fitted (μ, ν).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from hnas.optim.objective import Array, objective
from hnas.pipeline.analysis.boosting import Boosted, boosted
from hnas.pipeline.analysis.ranks import FEWEST, MEASURES, dense
from hnas.pipeline.reproduction.bootstrap import RESAMPLES, interval, resample
from hnas.pipeline.reproduction.measured import Measured, lacking_accuracies, measured
from hnas.pipeline.reproduction.published import TABLE_1
from hnas.pipeline.reproduction.results import Missing, Reproduction, Row, Section, Value, correlation_verdict
from hnas.threads import physical_cores

_METHODS = ("spearman", "kendall")
_COLUMNS = (
    "realizable ρ", "realizable τ", "non-realizable ρ", "non-realizable τ", "held-out ρ", "held-out τ",
)  # fmt: skip
#: The readings of each metric, the published program's first. Eq. (7) takes |M|, so the two of GraSP coincide there.
_READINGS = {
    "grad_norm": ("grad_norm", "grad_norm_l2"),
    "snip": ("snip", "snip_inner"),
    "grasp": ("grasp", "grasp_abs"),
    "trace": ("trace",),
}
_REALIZABLE_ONLY = ("grasp_abs", "kappa", "params", "flops")
_BASELINES = ("kappa", "params", "flops")
_COLUMNS_READ = [*(name for names in _READINGS.values() for name in names), *_BASELINES]

_ONE_DRAW = (
    "one initialisation: κ depends on the draw, which moves a non-realizable number by about 0.03; "
    "`hnas precompute {space} --dataset cifar10{cells} --seed 1` adds another"
)
#: How to request the cells of a run again: those of a sample from a file.
_CELLS = {"nasbench101": " --architectures FILE", "nasbench201": ""}
_REASONS = {
    "grad_norm_l2": "another reading: one norm over all weights; the published program adds a norm for each layer",
    "snip_inner": "another reading: θᵀg of a layer before batch norm is 0, so |θᵀg| is little but the classifier's",
    "grasp_abs": "another reading: the absolute value, where the published program keeps the sign",
    "grasp": "GraSP is signed here, as in the published program; the published correlation has the sign of |GraSP|'s",
}


@dataclass(frozen=True)
class _Fit:
    """A column to correlate: its values (n,) on `rows`, and their correlation with the target there."""

    rows: NDArray[np.int64]
    values: Array
    correlation: float


@dataclass(frozen=True)
class _Run:
    """The numbers of one run by row and column of the table, and the same in each resample, (resamples,)."""

    numbers: dict[tuple[str, int], float]
    resampled: dict[tuple[str, int], Array]


@dataclass(frozen=True)
class _Table:
    """A table to compute: the classes (n,) and accuracies (n,) of architectures, and the columns of each run."""

    space: str
    heading: str
    label: str
    classes: NDArray[np.int64]
    y: Array
    runs: Sequence[dict[str, Array]]
    averaged: bool = False

    def section(self, runs: Sequence[_Run]) -> Section:
        """The finished table, given the numbers of its runs."""
        rows = []
        for metric, names in [*_READINGS.items(), *((name, (name,)) for name in _BASELINES)]:
            for name in names:
                values = tuple(
                    _value(self.space, metric, name, k, runs, averaged=self.averaged)
                    if (name, k) in runs[0].numbers
                    else None
                    for k in range(len(_COLUMNS))
                )
                rows.append(Row(name, values))
        return Section(self.heading, self.label, "metric", _COLUMNS, tuple(rows))


def compute(connection: duckdb.DuckDBPyConnection) -> Reproduction:
    """Table 1 of both spaces from the runs and accuracies of the catalog. Deterministic."""
    tables: list[_Table] = []
    missing: list[Missing] = []
    notes: list[str] = []
    for space in TABLE_1:
        data = measured(connection, space, _COLUMNS_READ)
        if isinstance(data, Missing):
            missing.append(data)
        elif data.target is None or len(np.unique(data.classes[~np.isnan(data.target)])) < FEWEST:
            missing.append(lacking_accuracies(space))
        else:
            of_space, note = _tables(space, data, data.target)
            tables += of_space
            notes.append(note)
    if tables:
        notes += [
            f"± is the deviation over initialisations; the 95 % intervals are over architectures, from {RESAMPLES:,} "
            "resamples of the classes, at the fitted (μ, ν).",
            "non-realizable: (μ, ν) of eq. (7) fitted on all architectures, as in the paper; held-out: fitted on a "
            "random half of the classes and evaluated on the other, averaged over both directions.",
            "kappa, params and flops are trivial baselines. A metric below params says less than the size of the "
            "network.",
        ]
    found = iter(
        Parallel(n_jobs=physical_cores())(
            delayed(_measured)(table.classes, table.y, run, RESAMPLES) for table in tables for run in table.runs
        )
    )
    sections = tuple(table.section([next(found) for _ in table.runs]) for table in tables)
    return Reproduction("table1", "Table 1: correlation with test accuracy", sections, tuple(missing), tuple(notes))


def _tables(space: str, data: Measured, target: Array) -> tuple[list[_Table], str]:
    labelled = np.flatnonzero(~np.isnan(target))
    classes, y = data.classes[labelled], target[labelled]
    runs = [{name: column[labelled] for name, column in columns.items()} for columns in data.columns]
    what = f"{space} on {data.chosen.settings.dataset}, {len(y):,} architectures of {len(np.unique(classes)):,} classes"
    tables = [_Table(space, f"{what}, {data.initialisations}", space, classes, y, runs)]
    if data.means is not None:
        mean = {name: column[labelled] for name, column in data.means.items()}
        heading = f"{what}, the mean of {data.initialisations}"
        tables.append(_Table(space, heading, f"{space}, mean", classes, y, [mean], averaged=True))
    note = f"{space}: run{'s' if len(runs) > 1 else ''} {', '.join(data.runs)}; {data.signal}."
    if data.left_out:
        note += f" Left out, without some of the architectures: {', '.join(data.left_out)}."
    return tables, note


def _measured(classes: NDArray[np.int64], y: Array, run: dict[str, Array], resamples: int) -> _Run:
    """Compute the numbers of a run from its columns, each (n,). Runs in a process of its own."""
    halves = _halves(classes)
    everything = np.arange(len(y))
    # One fit for each cell of the table, or the fits of the two halves.
    cells: dict[tuple[str, int], list[_Fit]] = {}
    for name in _COLUMNS_READ:
        m, kappa = run[name], run["kappa"]
        for k, method in enumerate(_METHODS):
            cells[name, k] = [_fit(everything, m, y, method)]
        if name in _REALIZABLE_ONLY:
            continue
        whole = _points(name, m, kappa, y)
        parts = [_points(name, m[half], kappa[half], y[half]) for half in halves]
        for k, method in enumerate(_METHODS):
            cells[name, 2 + k] = [_fit(everything, _seven(m, kappa, whole[k]), y, method)]
            cells[name, 4 + k] = [
                _fit(half, _seven(m[half], kappa[half], part[k]), y[half], method)
                for half, part in zip(halves, reversed(parts), strict=True)
            ]
    numbers = {place: float(np.mean([fit.correlation for fit in fits])) for place, fits in cells.items()}
    return _Run(numbers, _resampled(classes, y, [everything, *halves], cells, resamples))


def _halves(classes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of two random halves of the classes. Deterministic."""
    places = dense(classes)
    count = int(places.max()) + 1
    first = np.zeros(count, bool)
    first[np.random.default_rng(0).permutation(count)[: count // 2]] = True
    return [np.flatnonzero(first[places]), np.flatnonzero(~first[places])]


def _points(name: str, m: Array, kappa: Array, y: Array) -> list[Boosted]:
    """The best (μ, ν) for ρ, and the best for τ."""
    by_method = {row.method: row for row in boosted(name, m, kappa, y, 1.0)}
    return [by_method[method] for method in _METHODS]


def _seven(m: Array, kappa: Array, point: Boosted) -> Array:
    """−(7) at a point (μ, ν), with dead rows last; constant where the fit found no point."""
    if np.isnan(point.mu):
        return np.zeros(len(m))
    return -objective(m, kappa, mu=point.mu, nu=point.nu)


def _fit(rows: NDArray[np.int64], values: Array, y: Array, method: str) -> _Fit:
    return _Fit(rows, values, MEASURES[method](values, y))


def _resampled(
    classes: NDArray[np.int64],
    y: Array,
    parts: Sequence[NDArray[np.int64]],
    cells: dict[tuple[str, int], list[_Fit]],
    resamples: int,
) -> dict[tuple[str, int], Array]:
    """Each cell in each resample, (resamples,); its halves are averaged within a resample."""
    sums: dict[tuple[str, int], Array] = {}
    for number, part in enumerate(parts):
        in_part = [(place, fit) for place, fits in cells.items() for fit in fits if fit.rows is part]
        if not in_part:
            continue
        values = [fit.values for _, fit in in_part]
        drawn = resample(classes[part], y[part], values, resamples=resamples, seed=number)
        for column, (place, _) in enumerate(in_part):
            share = (drawn.spearman, drawn.kendall)[place[1] % 2][:, column] / len(cells[place])
            sums[place] = sums[place] + share if place in sums else share
    return sums


def _value(space: str, metric: str, name: str, k: int, runs: Sequence[_Run], *, averaged: bool) -> Value | None:
    by_run = [run.numbers[name, k] for run in runs]
    ours = float(np.mean(by_run))
    bounds = interval(np.mean([run.resampled[name, k] for run in runs], axis=0))
    if np.isnan(ours) or bounds is None:
        return None
    spread = float(np.std(by_run, ddof=1)) if len(by_run) > 1 else None
    of = len(by_run)
    low, high = bounds
    if metric not in TABLE_1[space] or k > 3:
        return Value(ours, low, high, spread, of)
    published = TABLE_1[space][metric][k]
    # The published numbers come from other draws of the weights than ours.
    margin = 2 * (spread or 0.0)
    verdict = correlation_verdict(ours, published, low - margin, high + margin)
    reason = "" if verdict != "not reached" else _reason(space, name, k, of, averaged=averaged)
    return Value(ours, low, high, spread, of, published, verdict=verdict, reason=reason)


def _reason(space: str, name: str, k: int, of: int, *, averaged: bool) -> str:
    if name in _REASONS and (k < 2 or name != "grasp"):
        return _REASONS[name]
    if k > 1 and of == 1 and not averaged:
        return _ONE_DRAW.format(space=space, cells=_CELLS[space])
    return (
        "the paper draws a new batch and new weights for each architecture; here all architectures of a run share them"
    )
