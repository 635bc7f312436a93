"""`hnas search`: a method over a stored run, every query saved before the next begins."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from hnas.errors import HnasError, UsageError, check_seed, did_you_mean
from hnas.optim.algorithm import Oracle, Query, Search, best, check_limits, search
from hnas.optim.methods.registry import methods
from hnas.optim.objective import check_exponent
from hnas.pipeline.catalog.averaging import check_runs, group_of, left_out
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import Signal, choose_signal, reported, signal_of_views, test_accuracies
from hnas.pipeline.catalog.views import check_complete, pick_run
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.search.settings import SearchSettings, TrainingSettings
from hnas.pipeline.store.run import now, run_or_mean
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.trainings import is_trained
from hnas.spaces import search_spaces
from hnas.threads import training_threads

if TYPE_CHECKING:
    # It loads torch, which only one oracle needs.
    from hnas.pipeline.search.saving import Keeper
    from hnas.pipeline.search.training import Trainer, TrainingEstimate, TrainingSize
    from hnas.training import Progress

#: The columns of `queries.parquet`.
SCHEMA = pa.schema(
    [
        ("query", pa.int32()),
        ("mu", pa.float64()),
        ("nu", pa.float64()),
        ("arch", pa.string()),
        ("objective", pa.float64()),
        ("performance", pa.float64()),
        ("seconds", pa.float64()),
        ("own_seconds", pa.float64()),
        ("cost", pa.float64()),
        ("epochs", pa.int32()),
    ]
)


@dataclass(frozen=True)
class SearchResult:
    """A finished search: its name, its queries, and the test accuracies (%) of the one that won, by data set."""

    search: str
    settings: SearchSettings
    queries: list[Query]
    test: dict[str, float]
    reported: list[Signal]

    @property
    def best(self) -> Query:
        """The winner."""
        return best(self.queries)

    @property
    def cost(self) -> float:
        """The seconds that the evaluations are charged."""
        return sum(query.cost for query in self.queries)

    def as_dict(self) -> dict[str, Any]:
        """What `hnas search --json` prints."""
        shown = ("query", "mu", "nu", "arch", "objective", "performance", "seconds", "cost")
        winner = self.best
        return {
            "search": self.search,
            "method": self.settings.method,
            "metric": self.settings.metric,
            "signal": None if self.settings.signal is None else asdict(self.settings.signal),
            "cost": self.cost,
            "best": {name: getattr(winner, name) for name in ("arch", "performance", "mu", "nu", "query")},
            "test": self.test,
            "queries": [{name: getattr(q, name) for name in shown} for q in self.queries],
        }


@dataclass(frozen=True)
class StartedSearch:
    """A search to carry out: its settings, and the name and queries of the saved one that it goes on with."""

    settings: SearchSettings
    name: str | None = None
    history: tuple[Query, ...] = ()


@dataclass(frozen=True)
class SearchSize:
    """What a search works on: its candidates, architectures that a mean over runs leaves out, and its trainings.

    `signal` is what guides a search of a table, `cost` the seconds that its evaluations are expected to be charged
    (the mean of the candidates for each query), None where nobody knows.
    """

    candidates: int
    left_out: int
    training: TrainingSize | None
    signal: Signal | None
    cost: float | None


def new_search(
    connection: duckdb.DuckDBPyConnection,
    *,
    space: str,
    dataset: str | None = None,
    run: str | None = None,
    average: bool = False,
    method: str = "hnas",
    metric: str | None = None,
    accuracy: str | None = None,
    epochs: int | None = None,
    source: str | None = None,
    training: TrainingSettings | None = None,
    queries: int | None = 20,
    budget: float | None = None,
    where: str | None = None,
    t: float = 1.0,
    acquisition: str = "ei",
    seed: int = 0,
    options: dict[str, float | str] | None = None,
    alike: bool = False,
) -> StartedSearch:
    """A new search, with the run and the signal that fit.

    `metric` is what stands behind the colon of the method, for `hnas` the trace where none is given. With `average` it
    searches the mean over all runs that differ from that run in seed and batch only. With `training` each query is one,
    unless the store has it, or with `alike` another of the architecture on the same scale. Else its performance is
    looked up: `accuracy`, `epochs` and `source` choose the signal (see `choose_signal`).
    `dataset` is a name or the path of images. Raises `UsageError` for what does not exist or does not fit.
    """
    search_spaces[space]
    methods[method]
    check_exponent(t)
    check_limits(queries, budget)
    check_seed(seed, "--seed")
    if training is not None:
        # Saved with the search: where it is resumed, on another machine too, trainings go on as they were.
        training = replace(training, threads=training_threads(training.threads))
    chosen = pick_run(connection, run=run, space=space, dataset=dataset)
    runs = group_of(connection, chosen.name) if average else []
    signal = None
    if training is None:
        signal = choose_signal(
            connection,
            space,
            canonical_dataset(chosen.settings.dataset),
            accuracy=accuracy,
            epochs=epochs,
            source=source,
        )
        if signal is None:
            raise UsageError(
                f"no architecture of {run_or_mean(chosen.name, runs)} has a "
                f"{accuracy or 'validation or test accuracy'} on the run's data set; `hnas import` takes a "
                "table of them, and --oracle train trains"
            )
    elif accuracy is not None or source is not None:
        raise UsageError(
            f"{f'--accuracy {accuracy}' if accuracy else f'--source {source}'} belongs to --oracle table; --oracle "
            "train measures validation accuracy"
        )
    elif dataset is None and chosen.settings.dataset != "digits":
        raise UsageError(f"--oracle train needs --dataset, the images of {chosen.settings.dataset} to train on")
    settings = SearchSettings(
        space=space,
        run=chosen.name,
        dataset=chosen.settings.dataset,
        metric="trace" if metric is None and method == "hnas" else metric,
        oracle="table" if training is None else "table,train" if alike else "train",
        accuracy=signal.accuracy if signal is not None else "valid_accuracy",
        queries=queries,
        t=t,
        acquisition=acquisition,
        seed=seed,
        training=training,
        runs=runs,
        method=method,
        signal=signal,
        budget=budget,
        where=where,
        options=options or {},
    )
    return StartedSearch(settings)


def open_search(connection: duckdb.DuckDBPyConnection, store: Store, name: str) -> StartedSearch:
    """A saved search to go on with. Raises `UsageError` where there is none of that name."""
    settings, history = read_search(store, name)
    if settings.oracle == "table" and settings.signal is None:  # saved by a version that did not keep it
        signal = signal_of_views(connection, settings.space, canonical_dataset(settings.dataset), settings.accuracy)
        settings = replace(settings, signal=signal)
    return StartedSearch(settings, name, tuple(history))


def read_search(store: Store, name: str) -> tuple[SearchSettings, list[Query]]:
    """The settings and the saved queries of a search. Raises `UsageError` where there is none of that name."""
    if not name or "/" in name or not store.exists("searches", name, "search.json"):
        hint = did_you_mean(name, store.names("searches"))
        raise UsageError(
            f"there is no search {name!r} in {store.location}; `hnas sql 'FROM searches'` lists them{hint}"
        )
    saved = store.read_json("searches", name, "search.json").get("settings")
    try:
        settings = SearchSettings.from_dict(saved)
    except TypeError as error:
        raise HnasError(f"searches/{name}/search.json has settings this hnas does not know: {error}") from error
    table = store.read_table(None, "searches", name, "queries.parquet")
    if missing := [column for column in _SAVED_ALWAYS if column not in table.column_names]:
        raise HnasError(
            f"searches/{name}/queries.parquet has no column {', '.join(missing)}; restore it, or remove the search"
        )
    return settings, [query_of(row) for row in table.to_pylist()]


# Queries of older versions have no cost and no epochs: they were charged the wall time of a training.
_SAVED_ALWAYS = [name for name in SCHEMA.names if name not in ("cost", "epochs")]


def query_of(row: dict[str, Any]) -> Query:
    """A saved query."""
    row = {name: row[name] for name in SCHEMA.names if name in row}
    return Query(**{**row, "cost": row["seconds"] if row.get("cost") is None else row["cost"]})


def queries_table(queries: Sequence[Query]) -> pa.Table:
    """The queries (n) as rows of `SCHEMA`."""
    return pa.Table.from_pylist([asdict(query) for query in queries], schema=SCHEMA)


@dataclass(frozen=True)
class Prepared:
    """A search with its pool and its oracle."""

    settings: SearchSettings
    pool: RunPool
    oracle: Oracle
    size: SearchSize
    trainer: Trainer | None = None

    def estimate(self) -> tuple[SearchSize, TrainingEstimate | None]:
        """The size of the search, and where each query is a training, what the smallest and the largest take."""
        trained = None if self.trainer is None else self.trainer.estimate(self.pool.smallest_and_largest())
        return self.size, trained

    @property
    def _epochs(self) -> int | None:
        settings = self.settings
        return settings.training.epochs if settings.training else settings.signal.epochs if settings.signal else None

    def check_method(self) -> None:
        """Raise `UsageError` where the pool cannot serve the method, or it does not take its options.

        Raises `HnasError` where a method asks for fewer epochs than the table's, of which it has no curves.
        """
        settings = self.settings
        made = Search(self.pool, settings.spec, seed=settings.seed, epochs=self._epochs, **settings.method_options)
        first = made.ask()
        if first is None:
            raise UsageError(
                f"the method {settings.spec} finds nothing to evaluate among the {len(self.pool)} candidates"
            )
        if first.epochs is not None and self.oracle == self.pool.evaluate:
            self.oracle(first.arch, first.epochs)

    def run(self, history: Sequence[Query], on_query: Callable[[Query], None]) -> list[Query]:
        """Make the queries that `history` lacks; see `hnas.optim.algorithm.search`."""
        settings = self.settings
        return search(
            self.pool,
            self.oracle,
            method=settings.spec,
            queries=settings.queries,
            budget=settings.budget,
            seed=settings.seed,
            epochs=self._epochs,
            history=history,
            on_query=on_query,
            **settings.method_options,
        )


def prepare(
    connection: duckdb.DuckDBPyConnection,
    settings: SearchSettings,
    *,
    oracle: Oracle | None = None,
    pool: RunPool | None = None,
    store: Store | None = None,
    device: str = "auto",
    progress: Callable[[int], Progress | None] = lambda epochs: None,
    notice: Callable[[str], None] = lambda sentence: None,
    partial: bool = False,
) -> Prepared:
    """The pool and the oracle of a search, and its size.

    `oracle` replaces the one that the settings name, `pool` is one that another search with the same run, signal and
    condition used. `store` keeps trainings; `progress` and `notice` are those of `Trainer`; `partial` allows a run that
    is unfinished. Raises `UsageError` where the run has too few candidates or the table no cost for a budget;
    `HnasError` where a run is gone.
    """
    check_runs(connection, settings.runs)
    check_complete(connection, settings.runs or [settings.run], partial=partial)
    by_table = oracle is None and settings.training is None
    if pool is None:
        signal = settings.signal if by_table else None
        pool = RunPool(connection, settings.run, settings.runs, signal=signal, where=settings.where)
    if len(pool) < 2:
        having = f" and a {settings.accuracy}" if by_table else ""
        under = f" under --where {settings.where!r:.200}" if settings.where else ""
        raise UsageError(f"{pool} has {len(pool)} architectures with metrics{having}{under}; a search needs at least 2")
    training, trainer, cost = None, None, None
    evaluate: Oracle
    if oracle is not None:
        evaluate = oracle
    elif settings.training is not None:
        evaluate = trainer = _trainer(connection, settings, settings.training, store, device, progress, notice)
        training = trainer.size(pool.smallest_and_largest())
    else:
        evaluate = pool.evaluate
        cost = float(np.nanmean(pool.costs)) if not np.isnan(pool.costs).all() else None
        if settings.budget is not None and cost is None:
            raise UsageError(
                f"--budget counts seconds of training, and {settings.signal} has none; give --queries instead, or "
                "import accuracies with a column seconds"
            )
    if cost is not None and settings.queries is not None:
        cost *= settings.queries
    if settings.budget is not None:
        cost = settings.budget if cost is None or settings.queries is None else min(cost, settings.budget)
    size = SearchSize(len(pool), left_out(connection, settings.runs), training, settings.signal, cost)
    prepared = Prepared(settings, pool, evaluate, size, trainer)
    prepared.check_method()
    return prepared


def run_search(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    started: StartedSearch,
    *,
    oracle: Oracle | None = None,
    device: str = "auto",
    on_start: Callable[[SearchSize], None] = lambda size: None,
    on_query: Callable[[Query], None] = lambda query: None,
    progress: Callable[[int], Progress | None] = lambda epochs: None,
    notice: Callable[[str], None] = lambda sentence: None,
    partial: bool = False,
    save: str | None = None,
    final: TrainingSettings | None = None,
) -> SearchResult:
    """Carry out a search, new or resumed, and save it query by query.

    `on_start` is called with the size of the search before it begins, `on_query` with each new query after it is
    saved; `save` is a folder for the model of the winner, trained by `final` where the search looks performance up; the
    others are those of `prepare`. Raises what `prepare` and `hnas.optim.algorithm.search` raise.
    """
    settings = started.settings
    prepared = prepare(
        connection,
        settings,
        oracle=oracle,
        store=store,
        device=device,
        progress=progress,
        notice=notice,
        partial=partial,
    )
    name = started.name or uuid.uuid4().hex[:10]
    keeper = None
    if save is not None:
        keeper = _keeper(
            save,
            name,
            prepared,
            final,
            lambda training: _trainer(connection, settings, training, store, device, progress, notice),
            started.history,
        )
    on_start(prepared.size)
    saved = list(started.history)

    def save_query(query: Query) -> None:
        if not saved:
            # Only now: a search whose first query fails leaves nothing behind.
            store.prepare()
            content = {"id": name, "created": now(), "settings": settings.as_dict()}
            store.write_json(content, "searches", name, "search.json")
        saved.append(query)
        store.write_table(queries_table(saved), "searches", name, "queries.parquet")
        on_query(query)
        if keeper is not None:
            keeper.told(query)

    try:
        done = prepared.run(started.history, save_query)
        if keeper is not None:
            keeper.finish(best(done).arch, best(done).epochs if prepared.trainer is not None else None)
    except KeyboardInterrupt:
        if not saved:
            raise
        of = f" of {settings.queries}" if settings.queries is not None else ""
        raise HnasError(
            f"interrupted: {len(saved)}{of} queries are saved; `hnas search --resume {name}` goes on"
        ) from None
    tables = reported(connection, settings.space)
    found = test_accuracies(connection, settings.space, tables, [best(done).arch])
    test = {dataset: value for dataset, values in found.items() for value in values.values()}
    if prepared.trainer is not None and (own := prepared.trainer.reported(best(done))) is not None:
        signal, value = own
        imported = any(table.dataset == signal.dataset and not is_trained(table.source) for table in tables)
        if not (imported and signal.dataset in test):
            tables = [*(table for table in tables if table.dataset != signal.dataset), signal]
            test[signal.dataset] = value
    return SearchResult(name, settings, done, test, tables)


def _keeper(
    folder: str,
    name: str,
    prepared: Prepared,
    final: TrainingSettings | None,
    trainer_of: Callable[[TrainingSettings], Trainer],
    history: Sequence[Query],
) -> Keeper:
    """What keeps the winner's network: of the search's own trainings, or where it makes none of one more."""
    from hnas.pipeline.search.saving import Keeper

    settings = prepared.settings
    provenance = {"search": name, "seed": settings.seed, "dataset": settings.dataset, "oracle": settings.oracle}
    if prepared.trainer is not None:
        return Keeper(folder, prepared.trainer, provenance, history)
    if final is not None and final.images == "digits" != settings.dataset:
        raise UsageError(f"--save trains the winner, and needs --dataset, the images of {settings.dataset} to train on")
    if final is None:
        raise UsageError("a model is saved of a training, and this search makes none; say how to train its winner")
    return Keeper(folder, trainer_of(final), provenance)


def _trainer(
    connection: duckdb.DuckDBPyConnection,
    settings: SearchSettings,
    training: TrainingSettings,
    store: Store | None,
    device: str,
    progress: Callable[[int], Progress | None],
    notice: Callable[[str], None],
) -> Trainer:
    # Only this oracle needs torch, which takes seconds to import.
    from hnas.pipeline.search.training import Trainer

    run = pick_run(connection, run=settings.run).settings
    return Trainer(
        search_spaces[settings.space],
        training,
        channels=run.channels,
        cells=run.cells,
        seed=settings.seed,
        device=device,
        store=store,
        alike=settings.oracle == "table,train",
        progress=progress,
        notice=notice,
    )
