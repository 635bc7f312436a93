"""`hnas search`: Algorithm 1 over a stored run, every query saved before the next begins."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.optim.algorithm import Oracle, Query, best, search
from hnas.optim.objective import check_exponent
from hnas.pipeline.catalog.averaging import check_runs, group_of, left_out
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import check_complete, pick_run
from hnas.pipeline.search.settings import SearchSettings, TrainingSettings
from hnas.pipeline.store.run import now, run_or_mean
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from hnas.threads import training_threads

if TYPE_CHECKING:
    # It loads torch, which only one oracle needs.
    from hnas.pipeline.search.training import Trainer, TrainingSize
    from hnas.training import Progress

_SCHEMA = pa.schema(
    [
        ("query", pa.int32()),
        ("mu", pa.float64()),
        ("nu", pa.float64()),
        ("arch", pa.string()),
        ("objective", pa.float64()),
        ("performance", pa.float64()),
        ("seconds", pa.float64()),
        ("own_seconds", pa.float64()),
    ]
)


@dataclass(frozen=True)
class SearchResult:
    """A finished search: its name, its queries, and the one that won."""

    search: str
    settings: SearchSettings
    queries: list[Query]

    @property
    def best(self) -> Query:
        """The winner."""
        return best(self.queries)

    def as_dict(self) -> dict[str, Any]:
        """What `hnas search --json` prints."""
        shown = ("query", "mu", "nu", "arch", "objective", "performance", "seconds")
        winner = self.best
        return {
            "search": self.search,
            "best": {name: getattr(winner, name) for name in ("arch", "performance", "mu", "nu", "query")},
            "queries": [{name: getattr(q, name) for name in shown} for q in self.queries],
        }


@dataclass(frozen=True)
class StartedSearch:
    """A search to carry out: its settings, and the name and queries of the saved one that it goes on with.

    `pool` is that of its run, where a new search has looked into it for accuracies.
    """

    settings: SearchSettings
    name: str | None = None
    history: tuple[Query, ...] = ()
    pool: RunPool | None = None


@dataclass(frozen=True)
class SearchSize:
    """What a search works on: its candidates, architectures that a mean over runs leaves out, and its trainings."""

    candidates: int
    left_out: int
    training: TrainingSize | None


def new_search(
    connection: duckdb.DuckDBPyConnection,
    *,
    space: str,
    dataset: str | None = None,
    run: str | None = None,
    average: bool = False,
    metric: str = "trace",
    accuracy: str | None = None,
    training: TrainingSettings | None = None,
    queries: int = 20,
    t: float = 1.0,
    acquisition: str = "ei",
    seed: int = 0,
) -> StartedSearch:
    """A new search, with the run and the accuracy column that fit.

    With `average` it searches the mean over all runs that differ from that run in seed and batch only. With `training`
    each query is one, else its accuracy is looked up in the table. `dataset` is a name or the path of images. Raises
    `UsageError` for what does not exist or does not fit.
    """
    search_spaces[space]
    check_exponent(t)
    if training is not None:
        # Saved with the search: where it is resumed, on another machine too, trainings go on as they were.
        training = replace(training, threads=training_threads(training.threads))
    chosen = pick_run(connection, run=run, space=space, dataset=dataset)
    runs = group_of(connection, chosen.name) if average else []
    pool = None
    if training is None:
        pool = RunPool(connection, chosen.name, metric, runs)
        accuracy = pool.choose(accuracy)
    elif accuracy is not None:
        raise UsageError(
            f"--accuracy {accuracy} is a column of --oracle table; --oracle train measures validation accuracy"
        )
    elif dataset is None and chosen.settings.dataset != "digits":
        raise UsageError(f"--oracle train needs --dataset, the images of {chosen.settings.dataset} to train on")
    settings = SearchSettings(
        space=space,
        run=chosen.name,
        dataset=chosen.settings.dataset,
        metric=metric,
        oracle="table" if training is None else "train",
        accuracy=accuracy or "valid_accuracy",
        queries=queries,
        t=t,
        acquisition=acquisition,
        seed=seed,
        training=training,
        runs=runs,
    )
    return StartedSearch(settings, pool=pool)


def open_search(store: Store, name: str) -> StartedSearch:
    """A saved search to go on with. Raises `UsageError` where there is none of that name."""
    settings, history = read_search(store, name)
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
    table = store.read_table([f.name for f in fields(Query)], "searches", name, "queries.parquet")
    return settings, [Query(**row) for row in table.to_pylist()]


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
    partial: bool = False,
) -> SearchResult:
    """Carry out a search, new or resumed, and save it query by query.

    `oracle` replaces the one that the settings name. `on_start` is called with the size of the search before it begins,
    `on_query` with each new query after it is saved; `progress` is that of `Trainer`; `partial` allows a run that is
    unfinished. Raises what `hnas.optim.algorithm.search` raises, and `UsageError` where the run has too few candidates;
    `HnasError` where one of the runs that it averages is gone.
    """
    settings = started.settings
    by_table = oracle is None and settings.training is None
    check_runs(connection, settings.runs)
    check_complete(connection, settings.runs or [settings.run], partial=partial)
    run_pool = started.pool or RunPool(connection, settings.run, settings.metric, settings.runs)
    pool = run_pool.candidates(settings.accuracy, with_accuracy=by_table)
    if len(pool) < 2:
        raise UsageError(
            f"{run_or_mean(settings.run, settings.runs)} has {len(pool)} architectures with a finite condition number"
            f"{' and a ' + settings.accuracy if by_table else ''}; a search needs at least 2"
        )
    size = None
    if oracle is None and settings.training is not None:
        oracle = trainer = _trainer(connection, settings, settings.training, device, progress)
        size = trainer.size(pool.smallest_and_largest(settings.space))
    elif oracle is None:
        oracle = pool.performance
    on_start(SearchSize(len(pool), left_out(connection, settings.runs), size))
    name = started.name or uuid.uuid4().hex[:10]
    saved = list(started.history)

    def save(query: Query) -> None:
        if not saved:
            # Only now: a search whose first query fails leaves nothing behind.
            store.prepare()
            content = {"id": name, "created": now(), "settings": settings.as_dict()}
            store.write_json(content, "searches", name, "search.json")
        saved.append(query)
        table = pa.Table.from_pylist([asdict(q) for q in saved], schema=_SCHEMA)
        store.write_table(table, "searches", name, "queries.parquet")
        on_query(query)

    try:
        done = search(
            pool,
            oracle,
            queries=settings.queries,
            t=settings.t,
            acquisition=settings.acquisition,
            seed=settings.seed,
            history=started.history,
            on_query=save,
        )
    except KeyboardInterrupt:
        if not saved:
            raise
        raise HnasError(
            f"interrupted: {len(saved)} of {settings.queries} queries are saved; `hnas search --resume {name}` goes on"
        ) from None
    return SearchResult(name, settings, done)


def _trainer(
    connection: duckdb.DuckDBPyConnection,
    settings: SearchSettings,
    training: TrainingSettings,
    device: str,
    progress: Callable[[int], Progress | None],
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
        progress=progress,
    )
