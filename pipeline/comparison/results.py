"""The results of a comparison's searches, read from the store: Table 3 and the curves of Figure 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hnas.errors import HnasError, UsageError
from hnas.optim.methods.registry import methods as known_methods
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import Signal, reported, test_accuracies
from hnas.pipeline.comparison.curves import Course, Curve, average
from hnas.pipeline.comparison.request import Comparison
from hnas.pipeline.comparison.statistics import Array
from hnas.pipeline.comparison.table import ComparisonTable, Outcome, make_rows
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.comparisons import FOLDER, stored_parts
from hnas.pipeline.store.run import run_or_mean
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.trainings import is_trained
from hnas.spaces import Named, SearchSpace, key_of

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """One search: the incumbents after each query, as indices into `Results.archs`, and cumulative cost, (queries,).

    An incumbent is -1 until an evaluation succeeds. `failed` counts the failed evaluations of the search; `elapsed` is
    the time of its evaluations in seconds, given parallelism.
    """

    incumbents: Indices
    cost: Array
    failed: int = 0
    elapsed: float = float("nan")


class Results:
    """The finished searches of a comparison, and test accuracies (architectures, data sets) of their results."""

    def __init__(
        self,
        store: Store,
        connection: duckdb.DuckDBPyConnection,
        comparison: Comparison,
        pool: RunPool,
        own: Signal | None = None,
    ) -> None:
        """Read the results of searches over `pool`. `own` holds the test accuracies of their own trainings."""
        self._comparison = comparison
        space = comparison.methods[0].space
        self.archs = list(pool.archs)
        places = {arch: i for i, arch in enumerate(self.archs)}
        self.searches = [_read(store, comparison, k, places) for k in range(len(comparison.methods))]
        manual = _manual(pool.space)
        tables = reported(connection, space)
        if own is not None:
            # Of several scales of trainings, report the one of this comparison.
            tables = [own if table.dataset == own.dataset and is_trained(table.source) else table for table in tables]
        elif comparison.methods[0].training is not None:
            tables = [table for table in tables if not is_trained(table.source)]
        known = test_accuracies(connection, space, tables, None)
        winners = np.array([found.incumbents[-1] for method in self.searches for found in method])
        winners = winners[winners >= 0]
        #: The reported accuracies; if the store has none for the winners, the accuracies that guided the searches.
        self.tables: list[Signal] = []
        columns = []
        for table in tables:
            values = known[table.dataset]
            column = np.array([values.get(arch, np.nan) for arch in self.archs])
            if not winners.size or not np.isnan(column[winners]).all():
                self.tables.append(table)
                columns.append(column)
        self.datasets = [table.dataset for table in self.tables]
        self.manual = {
            name: np.array([known[table.dataset].get(arch, np.nan) for table in self.tables])
            for name, arch in manual.items()
        }
        self.manual = {name: values for name, values in self.manual.items() if not np.isnan(values).all()}
        if columns:
            self.accuracies = np.stack(columns, axis=1)
        else:
            settings = comparison.methods[0]
            self.datasets = [f"{settings.dataset} {settings.accuracy.removesuffix('_accuracy')}"]
            self.accuracies = self._guiding(store)[:, None]
            trained = {name: self.accuracies[places[arch]] for name, arch in manual.items() if arch in places}
            self.manual = {name: values for name, values in trained.items() if not np.isnan(values).any()}

    def _guiding(self, store: Store) -> Array:
        """Return the performance (architectures,) that guided the searches, NaN for architectures not evaluated."""
        values = np.full(len(self.archs), np.nan)
        places = {arch: i for i, arch in enumerate(self.archs)}
        for part in stored_parts(store, self._comparison.name):
            table = store.read_table(["arch", "performance"], FOLDER, self._comparison.name, part.name)
            for arch, performance in zip(table["arch"].to_pylist(), table["performance"].to_pylist(), strict=True):
                values[places[arch]] = np.nan if performance is None else performance
        return values

    def _reported(self, incumbents: Indices) -> Array:
        """Return the accuracies (n, data sets) of incumbents (n,), NaN where there is none yet."""
        return np.where(incumbents[:, None] >= 0, self.accuracies[incumbents], np.nan)

    @property
    def optimum(self) -> Array:
        """The best accuracy (data sets,) of all candidates, NaN if none is known."""
        known = np.where(np.isnan(self.accuracies).all(axis=0), np.nan, 0.0)
        best: Array = known + np.fmax.reduce(self.accuracies, axis=0)
        return best

    def table(self) -> ComparisonTable:
        """Return Table 3 of the paper."""
        outcomes = [
            Outcome(
                label,
                (method := known_methods[settings.method]).kind,
                method.applicable,
                method.varies,
                self._reported(np.array([found.incumbents[-1] for found in searches])),
                np.array([found.cost[-1] if self._costs_known else np.nan for found in searches]),
                np.array([float(len(found.cost)) for found in searches]),
            )
            for label, settings, searches in zip(
                self._comparison.labels, self._comparison.methods, self.searches, strict=True
            )
        ]
        optimum = self.optimum if self.tables else None
        rows = make_rows(outcomes, reference=self._comparison.reference, manual=self.manual, optimum=optimum)
        return ComparisonTable(self._heading(), tuple(self.datasets), rows, self._comparison.reference, self._notes())

    @property
    def _costs_known(self) -> bool:
        return any(found.cost[-1] > 0 for searches in self.searches for found in searches)

    def curves(self, at: Sequence[float] = ()) -> tuple[list[Curve], bool]:
        """Return the curves of Figure 2, and whether the budget is in queries because no method has one in seconds.

        They have points at the budgets `at`, among others.
        """
        by_queries = not self._costs_known or all(settings.budget is None for settings in self._comparison.methods)
        curves = []
        for label, searches in zip(self._comparison.labels, self.searches, strict=True):
            courses = [
                Course(
                    np.arange(1.0, len(found.cost) + 1) if by_queries else found.cost,
                    100 - self._reported(found.incumbents),
                )
                for found in searches
            ]
            curves.append(average(label, courses, by_queries=by_queries, at=at))
        return curves, by_queries

    def _heading(self) -> str:
        settings = self._comparison.methods[0]
        where = f" under {settings.where}" if settings.where else ""
        guided = "trainings" if settings.own is None else printable(settings.oracle)
        guided = guided if settings.signal is None else str(settings.signal)
        seeds = self._comparison.seeds
        return (
            f"{settings.space} on {settings.dataset}, {len(self.archs):,} architectures of "
            f"{run_or_mean(settings.run, settings.runs)}{where}; {seeds} seed{'' if seeds == 1 else 's'}; "
            f"guided by {guided}"
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        by_table: dict[tuple[str, int | None], list[str]] = {}
        for table in self.tables:
            by_table.setdefault((table.source, table.epochs), []).append(table.dataset)
        sources = [
            f"{', '.join(datasets)} after {epochs} epochs ({printable(source)})"
            if epochs is not None
            else f"{', '.join(datasets)} ({printable(source)})"
            for (source, epochs), datasets in by_table.items()
        ]
        notes.append(
            f"Reported: test accuracy of the winner in percent, {'; '.join(sources)}; mean ± deviation over seeds (of "
            "the population), none where all seeds give the same."
            if sources
            else "The store has no test accuracies: the performance that guided the searches is reported."
        )
        if (parallel := self._comparison.methods[0].parallel) > 1:
            times = [np.mean([found.elapsed for found in searches]) for searches in self.searches]
            each = [f"{label} {time:,.0f} s" for label, time in zip(self._comparison.labels, times, strict=True)]
            notes.append(f"With {parallel} evaluations at a time the searches take, by their costs: {', '.join(each)}.")
        signal = self._comparison.methods[0].signal
        if signal is not None and signal.accuracy == "test_accuracy":
            notes.append(
                "No validation accuracy guides the searches: each winner is chosen by the test accuracy, so its own is "
                "the best of many and no estimate."
            )
        if failed := sum(found.failed for searches in self.searches for found in searches):
            name = self._comparison.name
            notes.append(
                f'{failed} evaluation{"" if failed == 1 else "s"} failed: `hnas sql "SELECT search, arch, failure FROM '
                f"queries WHERE search LIKE '{name}-%' AND failure IS NOT NULL\"` says why."
            )
        if without := sum(bool(found.incumbents[-1] < 0) for searches in self.searches for found in searches):
            notes.append(
                f"{without} of {self._comparison.searches} searches have no winner, because all their evaluations "
                "failed; the cells of their methods are empty."
            )
        if self.tables:
            notes.append("optimum: the best of the candidates on each data set, each by itself.")
        return tuple(notes)


def _manual(space: SearchSpace | None) -> dict[str, str]:
    """Return the named architectures of the literature by their keys."""
    if space is None or not isinstance(space, Named):
        return {}
    return {name: key_of(space, arch) for name, arch in space.named().items()}


def _read(store: Store, comparison: Comparison, k: int, places: dict[str, int]) -> list[Found]:
    """Return the searches of method `k` in the order of their seeds. Raises `HnasError` if one is missing."""
    seeds_requested = range(comparison.seeds_of(k))
    parts = [p for p in stored_parts(store, comparison.name) if p.k == k and p.first < len(seeds_requested)]
    columns = ["seed", "arch", "performance", "cost", "epochs"]
    if comparison.methods[k].parallel > 1:
        columns.append("elapsed")
    found: dict[int, Found] = {}
    for part in parts:
        table = store.read_table(columns, FOLDER, comparison.name, part.name)
        seeds = table["seed"].to_numpy()
        for seed in part.seeds:
            start, stop = np.searchsorted(seeds, [seed, seed + 1])
            if start < stop:
                found[seed] = _found(table.slice(start, stop - start), places)
    if lacking := [seed for seed in seeds_requested if seed not in found]:
        raise HnasError(
            f"comparison {comparison.name} has lost searches of {comparison.labels[k]}, including seed {lacking[0]}; "
            "the same command makes them again"
        )
    return [found[seed] for seed in seeds_requested]


def _found(queries: pa.Table, places: dict[str, int]) -> Found:
    try:
        archs = np.array([places[arch] for arch in queries["arch"].to_pylist()])
    except KeyError as error:
        raise UsageError(
            f"the comparison evaluated {error.args[0]}, which is no longer a candidate; the store has changed, so "
            "remove the comparison and make it again"
        ) from None
    epochs = np.nan_to_num(queries["epochs"].to_numpy(zero_copy_only=False).astype(float), nan=np.inf)
    performance = queries["performance"].to_numpy().astype(float)
    elapsed = float(queries["elapsed"].to_numpy().max()) if "elapsed" in queries.column_names else float("nan")
    cost = np.cumsum(queries["cost"].to_numpy())
    best = incumbents(epochs, performance)
    return Found(np.where(best >= 0, archs[best], -1), cost, int(np.isnan(performance).sum()), elapsed)


def incumbents(epochs: Array, performance: Array) -> Indices:
    """Return the index (queries,) of the best query so far: longest training first, then best, then earliest.

    A failed query, whose performance is NaN, is never the best; the index is -1 until one has succeeded.
    """
    keys = list(zip(epochs.tolist(), performance.tolist(), strict=True))
    best, so_far = -1, []
    for place, key in enumerate(keys):
        if not math.isnan(key[1]) and (best < 0 or key > keys[best]):
            best = place
        so_far.append(best)
    return np.array(so_far)
