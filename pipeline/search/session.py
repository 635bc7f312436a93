"""`hnas search`: runs a method over a stored run and saves every query before the next begins."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from hnas.errors import HnasError, UsageError
from hnas.optim.algorithm import best
from hnas.optim.evaluations import Oracle, Query
from hnas.pipeline.catalog.signals import Signal, reported, test_accuracies
from hnas.pipeline.catalog.views import pick_run
from hnas.pipeline.search.prepared import Prepared, SearchSize, prepare, trainer_of
from hnas.pipeline.search.request import StartedSearch
from hnas.pipeline.search.saved import queries_table
from hnas.pipeline.search.settings import SearchSettings, TrainingSettings
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.run import now
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.trainings import is_trained
from hnas.pipeline.store.warm_starts import write_known

if TYPE_CHECKING:
    # These load torch or Dask, which few searches need.
    from hnas.pipeline.search.saving import Keeper
    from hnas.pipeline.search.training import Trainer
    from hnas.pipeline.search.workers import Cluster
    from hnas.training import Progress


@dataclass(frozen=True)
class SearchResult:
    """A finished search: its name, its queries, and the winner's test accuracies in percent by data set."""

    search: str
    settings: SearchSettings
    queries: list[Query]
    test: dict[str, float]
    reported: list[Signal]

    @property
    def best(self) -> Query:
        """The winning query."""
        return best(self.queries)

    @property
    def cost(self) -> float:
        """The total cost of the evaluations in seconds."""
        return sum(query.cost for query in self.queries)

    @property
    def elapsed(self) -> float | None:
        """The seconds until the last evaluation ended, given their parallelism; None if a query does not record it."""
        times = [query.elapsed for query in self.queries]
        return None if None in times else max(time for time in times if time is not None)

    def as_dict(self) -> dict[str, Any]:
        """Return what `hnas search --json` prints."""
        shown = ("query", "mu", "nu", "arch", "objective", "performance", "seconds", "cost")
        winner = self.best
        return {
            "search": self.search,
            "method": self.settings.method,
            "metric": self.settings.metric,
            "signal": None if self.settings.signal is None else asdict(self.settings.signal),
            "cost": self.cost,
            "elapsed": self.elapsed,
            "best": {name: getattr(winner, name) for name in ("arch", "performance", "mu", "nu", "query")},
            "test": self.test,
            "queries": [
                {name: getattr(q, name) for name in shown}
                | ({} if q.failure is None else {"performance": None, "failure": q.failure})
                for q in self.queries
            ],
        }


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
    cluster: Cluster | None = None,
) -> SearchResult:
    """Carry out a search, new or resumed, and save it query by query.

    `on_start` is called with the size of the search before it begins, `on_query` with each new query after it is saved.
    `save` is a folder for the winner's model, trained with `final` if the search looks performance up. The other
    parameters are those of `prepare`. Evaluations that are not looked up run on the `cluster`, if given. Raises the
    errors of `prepare` and `hnas.optim.algorithm.search`.
    """
    settings = started.settings
    prepared = prepare(
        connection,
        settings,
        oracle=oracle,
        known=started.known,
        store=store,
        device=device,
        progress=progress,
        notice=notice,
        partial=partial,
    )
    for remark in prepared.pool.remarks():
        notice(remark)
    name = started.name or uuid.uuid4().hex[:10]
    keeper = None
    if save is not None:
        keeper = _keeper(
            save,
            name,
            prepared,
            final,
            lambda training: trainer_of(connection, settings, training, store, device, progress, notice),
            started.history,
        )
    saved = list(started.history)
    held: list[None] = []

    def hold() -> None:
        busy = f"another process is using the search {name}; stop it, or wait until it ends"
        held.append(stack.enter_context(locked(store, "searches", name, busy=busy)))
        if started.name is not None:
            stored = store.read_table(["query"], "searches", name, "queries.parquet").num_rows
            if stored != len(saved):  # saving the queries known here would lose the others
                raise HnasError(f"another process has continued the search {name} in the meantime; resume it again")

    def save_query(query: Query) -> None:
        if not saved:
            # Not before: a search whose first query fails must leave nothing behind.
            store.prepare()
        if not held:
            hold()
        if not saved:
            if started.known is not None:
                write_known(store, started.known, "searches", name)
            content = {"id": name, "created": now(), "settings": settings.as_dict()}
            store.write_json(content, "searches", name, "search.json")
        saved.append(query)
        store.write_table(queries_table(saved), "searches", name, "queries.parquet")
        on_query(query)
        if query.failure is not None:
            notice(f"query {query.query} failed: {query.failure}")
        elif keeper is not None:
            keeper.evaluated(query)

    try:
        on_start(prepared.size)
        with ExitStack() as stack:
            if started.name is not None and settings.queries is not None and len(saved) < settings.queries:
                hold()
            elsewhere = None
            if cluster is not None and not prepared.looks_up:
                run = pick_run(connection, run=settings.run).settings
                size = None if prepared.trainer is None else (run.channels, run.cells, run.init)
                elsewhere = stack.enter_context(cluster.executor(prepared.oracle, store, settings, size))
            done = prepared.run(started.history, save_query, elsewhere)
        if keeper is not None:
            keeper.finish(best(done).arch, best(done).epochs if prepared.trainer is not None else None)
    except KeyboardInterrupt:
        if not saved and prepared.looking is not None:
            raise HnasError(
                "interrupted: the state of the supernet is stored; run the same command again to resume"
            ) from None
        if not saved:
            raise
        of = f" of {settings.queries}" if settings.queries is not None else ""
        raise HnasError(
            f"interrupted: {len(saved)}{of} queries are saved; `hnas search --resume {name}` resumes"
        ) from None
    finally:
        if keeper is not None:
            keeper.close()
    tables = reported(connection, settings.space)
    accuracies = test_accuracies(connection, settings.space, tables, [best(done).arch])
    test = {dataset: value for dataset, values in accuracies.items() for value in values.values()}
    if prepared.trainer is not None and (own := prepared.trainer.reported(best(done))) is not None:
        signal, value = own
        imported = any(table.dataset == signal.dataset and not is_trained(table.source) for table in tables)
        if not (imported and signal.dataset in test):
            tables = [*(table for table in tables if table.dataset != signal.dataset), signal]
            test[signal.dataset] = value
    return SearchResult(name, settings, done, test, tables)


def cluster_of(
    settings: SearchSettings,
    *,
    scheduler: str | None,
    tls: tuple[Path | None, Path | None, Path | None],
    device: str,
    show: Callable[[dict[str, Any]], None],
    notice: Callable[[str], None],
) -> Cluster | None:
    """Return where the evaluations of a search run, or None for this process; see `Cluster`.

    `tls` are the files of `Certificates`. Raises `UsageError` if these or a `scheduler` are given although nothing is
    evaluated.
    """
    elsewhere = scheduler is not None or any(tls)
    if not settings.evaluates:
        if elsewhere:
            raise UsageError("--scheduler requires --oracle train: table accuracies are looked up in this process")
        return None
    if settings.parallel == 1 and not elsewhere:
        return None
    from hnas.pipeline.cluster.connection import check_cluster  # loads Dask
    from hnas.pipeline.cluster.tls import Certificates
    from hnas.pipeline.search.workers import Cluster

    certificates = Certificates(*tls)
    check_cluster(None, scheduler, certificates)
    return Cluster(scheduler, certificates, device, show, notice)


def _keeper(
    folder: str,
    name: str,
    prepared: Prepared,
    final: TrainingSettings | None,
    trainer_of: Callable[[TrainingSettings], Trainer],
    history: Sequence[Query],
) -> Keeper:
    """Return the keeper of the winner's network, from the search's own trainings or one more training."""
    from hnas.pipeline.search.saving import Keeper

    settings = prepared.settings
    provenance = {"search": name, "seed": settings.seed, "dataset": settings.dataset, "oracle": settings.oracle}
    if prepared.trainer is not None:
        return Keeper(folder, prepared.trainer, provenance, history)
    if final is not None and final.images == "digits" != settings.dataset:
        raise UsageError(
            f"--save trains the winner and requires --dataset, the images of {settings.dataset} to train on"
        )
    if final is None:
        raise UsageError("--save needs a training, but this search makes none; say how to train its winner")
    return Keeper(folder, trainer_of(final), provenance)
