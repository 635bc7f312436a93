"""`hnas search`: Algorithm 1 over a stored run, every query saved before the next begins."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from hnas.errors import HnasError, UsageError, did_you_mean, unknown
from hnas.optim.algorithm import Oracle, Query, best, search
from hnas.optim.objective import check_exponent
from hnas.pipeline.catalog.averaging import check_runs, group_of
from hnas.pipeline.catalog.pool import DuckDBPool, choose_accuracy
from hnas.pipeline.catalog.views import check_complete, pick_run, sql
from hnas.pipeline.store.run import now, run_or_mean
from hnas.pipeline.store.space_cache import flush_cache, keep_in
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from hnas.threads import training_threads

if TYPE_CHECKING:
    # It loads torch, which only one oracle needs.
    from hnas.pipeline.search.training import Trainer, TrainingSize

ORACLES = ("table", "train")

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
class SearchSettings:
    """Everything that determines the course of a search.

    `training` is the recipe of the `train` oracle, else empty; `runs` are those whose mean is searched, `run` among
    them, else empty.
    """

    space: str
    run: str
    dataset: str
    metric: str
    oracle: str
    accuracy: str
    queries: int
    t: float
    acquisition: str
    seed: int
    training: dict[str, Any]
    runs: list[str] = field(default_factory=list)  # searches saved before there was `--average` have none


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


class TableOracle:
    """The `table` oracle: the accuracy that was imported."""

    def __init__(self, performance: Callable[[str], float | None]) -> None:
        self._performance = performance

    def __call__(self, arch: str) -> float:
        """The imported accuracy of `arch` in percent. Raises `HnasError` where there is none."""
        found = self._performance(arch)
        if found is None:
            raise HnasError(f"the table has no accuracy of {arch}; import one")
        return found


@dataclass(frozen=True)
class StartedSearch:
    """A search to carry out: its settings, and the name and queries of the saved one that it goes on with."""

    settings: SearchSettings
    name: str | None = None
    history: tuple[Query, ...] = ()


def new_search(
    connection: duckdb.DuckDBPyConnection,
    *,
    space: str,
    dataset: str | None = None,
    image_size: int | None = None,
    run: str | None = None,
    metric: str = "trace",
    accuracy: str | None = None,
    oracle: str = "table",
    queries: int = 20,
    t: float = 1.0,
    acquisition: str = "ei",
    seed: int = 0,
    training: dict[str, Any] | None = None,
    average: bool = False,
) -> StartedSearch:
    """A new search, with the run and the accuracy column that fit.

    With `average` it searches the mean over all runs that differ from that run in seed and batch only.
    `dataset` is a name or the path of images; the `train` oracle needs the images, the `table` oracle only the name.
    Raises `UsageError` for what does not exist or does not fit.
    """
    if oracle not in ORACLES:
        raise unknown("the oracle", oracle, ORACLES)
    search_spaces[space]
    check_exponent(t)
    training = {**(training or {}), "images": dataset, "image_size": image_size} if oracle == "train" else {}
    if oracle == "train":
        # Saved with the search: where it is resumed, on another machine too, trainings go on as they were.
        training["threads"] = training_threads(training.get("threads"))
    chosen = pick_run(connection, run=run, space=space, dataset=dataset)
    runs = group_of(connection, chosen.name) if average else []
    if oracle == "table":
        accuracy = choose_accuracy(connection, chosen.name, accuracy, metric, runs)
    elif accuracy is not None:
        raise UsageError(
            f"--accuracy {accuracy} is a column of --oracle table; --oracle train measures validation accuracy"
        )
    elif dataset is None and chosen.settings.dataset != "digits":
        raise UsageError(f"--oracle train needs --dataset, the images of {chosen.settings.dataset} to train on")
    else:
        training["images"] = dataset or "digits"
    return StartedSearch(
        SearchSettings(
            space=space,
            run=chosen.name,
            dataset=chosen.settings.dataset,
            metric=metric,
            oracle=oracle,
            accuracy=accuracy or "valid_accuracy",
            queries=queries,
            t=t,
            acquisition=acquisition,
            seed=seed,
            training=training,
            runs=runs,
        )
    )


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
    stored = store.read_json("searches", name, "search.json").get("settings")
    try:
        settings = SearchSettings(**stored)  # type: ignore[arg-type]
    except TypeError as error:
        raise HnasError(f"searches/{name}/search.json has settings this hnas does not know: {error}") from error
    if not store.exists("searches", name, "queries.parquet"):
        return settings, []
    table = store.read_table([f.name for f in fields(Query)], "searches", name, "queries.parquet")
    return settings, [Query(**row) for row in table.to_pylist()]


def run_search(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    started: StartedSearch,
    *,
    oracle: Oracle | None = None,
    device: str = "auto",
    training_bar: Callable[[str], Any] = lambda arch: None,
    on_start: Callable[[int, TrainingSize | None], None] | None = None,
    on_query: Callable[[Query], None] | None = None,
    partial: bool = False,
) -> SearchResult:
    """Carry out a search, new or resumed, and save it query by query.

    `oracle` replaces the one that the settings name. `on_start` is told the number of candidates, and the size of the
    trainings where there are any; `on_query` each new query after it is saved; `partial` allows a run that is
    unfinished. Raises what `hnas.optim.algorithm.search` raises, and `UsageError` where the run has too few candidates;
    `HnasError` where one of the runs that it averages is gone.
    """
    settings = started.settings
    keep_in(store)
    by_table = oracle is None and settings.oracle == "table"
    check_runs(connection, settings.runs)
    check_complete(connection, settings.runs or [settings.run], partial=partial)
    pool = DuckDBPool(
        connection,
        run=settings.run,
        metric=settings.metric,
        accuracy=settings.accuracy,
        with_accuracy=by_table,
        runs=settings.runs,
    )
    if len(pool) < 2:
        raise UsageError(
            f"{run_or_mean(settings.run, settings.runs)} has {len(pool)} architectures with a finite condition number"
            f"{' and a ' + settings.accuracy if by_table else ''}; a search needs at least 2"
        )
    size = None
    if by_table:
        oracle = TableOracle(pool.performance)
    elif oracle is None:
        oracle = trainer = _trainer(connection, settings, device, training_bar)
        size = trainer.size(_smallest_and_largest(connection, settings.space))
    if on_start is not None:
        on_start(len(pool), size)
    name = started.name or uuid.uuid4().hex[:10]
    saved = list(started.history)

    def save(query: Query) -> None:
        if not saved:
            # Only now: a search whose first query fails leaves nothing behind.
            store.prepare()
            flush_cache()
            content = {"id": name, "created": now(), "settings": asdict(settings)}
            store.write_json(content, "searches", name, "search.json")
        saved.append(query)
        table = pa.Table.from_pylist([asdict(q) for q in saved], schema=_SCHEMA)
        store.write_table(table, "searches", name, "queries.parquet")
        if on_query is not None:
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


def _smallest_and_largest(connection: duckdb.DuckDBPyConnection, space: str) -> tuple[str, ...]:
    """The candidates of the fewest and the most parameters, as far as the store knows them."""
    rows = connection.execute("SELECT arch FROM candidates LIMIT 1").fetchall()
    if "params" in search_spaces[space].describe(rows[0][0]):
        rows = connection.execute(sql("smallest_and_largest"), [space]).fetchall() or rows
    return tuple(arch for (arch,) in rows)


def _trainer(
    connection: duckdb.DuckDBPyConnection, settings: SearchSettings, device: str, bar: Callable[[str], Any]
) -> Trainer:
    # Only this oracle needs torch, which takes seconds to import.
    from hnas.pipeline.images import open_dataset
    from hnas.pipeline.search.training import Trainer, recipe_for

    run = pick_run(connection, run=settings.run).settings
    training = dict(settings.training)
    dataset = open_dataset(training.pop("images"), image_size=training.pop("image_size"))
    threads = training.pop("threads", None)  # searches saved before there was `--threads` have none
    return Trainer(
        search_spaces[settings.space],
        dataset,
        recipe_for(dataset, **training),
        channels=run.channels,
        cells=run.cells,
        seed=settings.seed,
        device=device,
        threads=threads,
        progress=bar,
    )
