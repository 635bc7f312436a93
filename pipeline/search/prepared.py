"""A search that is ready to run, with its pool, oracle and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from hnas.errors import UsageError
from hnas.optim.algorithm import Search, search
from hnas.optim.evaluations import Evaluation, Oracle, Query
from hnas.pipeline.catalog.averaging import check_runs, left_out
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import Signal
from hnas.pipeline.catalog.views import check_complete, pick_run
from hnas.pipeline.search.oracles import refused
from hnas.pipeline.search.settings import SearchSettings, TrainingSettings
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces

if TYPE_CHECKING:
    # It loads torch, which only one oracle needs.
    from hnas.pipeline.search.estimate import TrainingEstimate, TrainingSize
    from hnas.pipeline.search.supernets import Looking
    from hnas.pipeline.search.training import Trainer
    from hnas.training import Progress


@dataclass(frozen=True)
class SearchSize:
    """The scope of a search: its candidates, the architectures left out by a mean over runs, and its trainings.

    `signal` guides a table search. `cost` is what a table search will be charged in seconds, None if unknown.
    `supernet` is the expected time in seconds of a method that uses images, if measured. `queries` is the number of
    queries that the method makes, if counted, `trainings` the seconds that their trainings take, of the smallest and of
    the largest network.
    """

    candidates: int
    left_out: int
    training: TrainingSize | None
    signal: Signal | None
    cost: float | None = None
    supernet: float | None = None
    queries: int | None = None
    trainings: tuple[float, float] | None = None


@dataclass(frozen=True)
class Rehearsal:
    """The number of `queries` of a search, the seconds `charged` to its budget, and the seconds of its `trainings`."""

    queries: int
    charged: float
    trainings: float


class _EqualTrainings:
    """An oracle of which all trainings are equally good; one of `epochs` takes `seconds`, a shorter one a share."""

    def __init__(self, seconds: float, epochs: int) -> None:
        self._seconds, self._epochs = seconds, epochs
        self.spent = 0.0

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        return self.continued(arch, 0, epochs or self._epochs)

    def continued(self, arch: str, since: int, epochs: int) -> Evaluation:
        """See `hnas.optim.evaluations.Continuing`."""
        seconds = self._seconds * (epochs - since) / self._epochs
        self.spent += seconds
        return Evaluation(0.0, seconds)


@dataclass(frozen=True)
class Prepared:
    """A search with its pool and its oracle."""

    settings: SearchSettings
    pool: RunPool
    oracle: Oracle
    size: SearchSize
    trainer: Trainer | None = None
    known: Mapping[str, float] | None = None
    looking: Looking | None = None

    def estimate(self) -> tuple[SearchSize, TrainingEstimate | None]:
        """Return the size of the search, and the estimate for the smallest and largest network if queries train."""
        trained = None if self.trainer is None else self.trainer.estimate(self.pool.smallest_and_largest())
        if self.looking is not None:
            return replace(self.size, supernet=self.looking.estimate(self.settings, self.pool)), trained
        if trained is not None:
            small, large = (self.rehearse(seconds) for seconds in trained.seconds)
            return replace(self.size, queries=large.queries, trainings=(small.trainings, large.trainings)), trained
        if not self.looks_up:
            return self.size, None
        queries = self.run((), lambda _: None)
        cost = None if np.isnan(self.pool.costs).any() else sum(query.cost for query in queries)
        return replace(self.size, cost=cost, queries=len(queries)), None

    def rehearse(self, seconds: float) -> Rehearsal:
        """Count what the method would do if every whole training took `seconds` and all were equally good."""
        trainings = _EqualTrainings(seconds, self._epochs or 1)
        queries = replace(self, oracle=trainings).run((), lambda _: None)
        return Rehearsal(len(queries), sum(query.cost for query in queries), trainings.spent)

    @property
    def looks_up(self) -> bool:
        """Whether performance comes from a table."""
        return self.oracle is self.pool

    @property
    def _epochs(self) -> int | None:
        settings = self.settings
        of = settings.training or settings.signal or settings.own
        return None if of is None else of.epochs

    def check_method(self) -> None:
        """Raise `UsageError` if the method cannot work with this pool, or does not accept its options.

        Raises `HnasError` if it asks for fewer epochs than the table's and the table has no curves.
        """
        settings = self.settings
        if self.looking is not None:  # asking it once would be the whole search
            self.looking.check(settings, self.pool, whole=self.looks_up)
            return
        made = Search(
            self.pool, settings.spec, seed=settings.seed, epochs=self._epochs, known=self.known,
            **settings.method_options,
        )  # fmt: skip
        first = made.ask()
        if first is None:
            raise UsageError(
                f"the method {settings.spec} finds nothing to evaluate among the {len(self.pool)} candidates"
            )
        if first.epochs is not None and self.looks_up:
            self.oracle(first.arch, first.epochs)
        if first.epochs is not None and settings.own is not None and not getattr(self.oracle, "takes_epochs", True):
            raise UsageError(
                f"the method {settings.spec} asks for trainings of several lengths, but the oracle takes no epochs; "
                "use {epochs} in a command, or a parameter epochs in a function"
            )

    def run(
        self,
        history: Sequence[Query],
        on_query: Callable[[Query], None],
        elsewhere: tuple[Executor, Oracle] | None = None,
    ) -> list[Query]:
        """Make the queries that `history` lacks, here or with an executor; see `hnas.optim.algorithm.search`."""
        settings = self.settings
        executor, oracle = elsewhere or (None, self.oracle)
        given_to: AbstractContextManager[dict[str, Any]]
        given_to = nullcontext({}) if self.looking is None else self.looking.given(settings)
        with given_to as given:
            return search(
                self.pool,
                oracle,
                parallel=settings.parallel,
                executor=executor,
                method=settings.spec,
                queries=settings.queries,
                budget=settings.budget,
                seed=settings.seed,
                epochs=self._epochs,
                history=history,
                on_query=on_query,
                known=self.known,
                **settings.method_options,
                **given,
            )


def prepare(
    connection: duckdb.DuckDBPyConnection,
    settings: SearchSettings,
    *,
    oracle: Oracle | None = None,
    known: Mapping[str, float] | None = None,
    pool: RunPool | None = None,
    store: Store | None = None,
    device: str = "auto",
    progress: Callable[[int], Progress | None] = lambda epochs: None,
    notice: Callable[[str], None] = lambda sentence: None,
    partial: bool = False,
    threads: int | None = None,
) -> Prepared:
    """Return a search with its pool, oracle and size.

    `oracle` replaces the one in the settings, `known` holds the performances of a warm start, and `pool` may come from
    another search with the same run, signal and condition. `store` keeps trainings; `progress` and `notice` are those
    of `Trainer`; `partial` allows an unfinished run; `threads` are for a method that uses images.

    Raises `UsageError` if the settings require a user-defined oracle and none is given, if the run has too few
    candidates, or if the table lacks costs for a budget; `HnasError` if a run is gone.
    """
    check_runs(connection, settings.runs)
    check_complete(connection, settings.runs or [settings.run], partial=partial)
    if settings.own is not None and oracle is None:
        raise refused(settings)
    by_table = oracle is None and settings.training is None
    if pool is None:
        signal = settings.signal if by_table else None
        pool = RunPool(connection, settings.run, settings.runs, signal=signal, where=settings.where)
    if len(pool) < 2:
        needed = f" and a {settings.accuracy}" if by_table else ""
        under = f" under --where {settings.where!r:.200}" if settings.where else ""
        raise UsageError(f"{pool} has {len(pool)} architectures with metrics{needed}{under}; a search needs at least 2")
    training, trainer = None, None
    evaluate: Oracle
    if oracle is not None:
        evaluate = oracle
    elif settings.training is not None:
        settings.training.check_guides()  # before reading the images
        evaluate = trainer = trainer_of(connection, settings, settings.training, store, device, progress, notice)
        training = trainer.size(pool.smallest_and_largest())
    else:
        evaluate = pool
        lacking = int(np.isnan(pool.costs).sum())
        if settings.budget is not None and lacking:
            of = "" if lacking == len(pool) else f" for {lacking:,} of the {len(pool):,} candidates"
            raise UsageError(
                f"--budget counts seconds of training, but {settings.signal} has none{of}; give --queries instead, or "
                "import accuracies with a column seconds"
            )
    size = SearchSize(len(pool), left_out(connection, settings.runs), training, settings.signal)
    looking = None
    if settings.images is not None:
        # Only these methods need torch, which takes seconds to import.
        from hnas.pipeline.search.supernets import Looking

        asked = threads or (settings.training.threads if settings.training is not None else None)
        looking = Looking(settings, store, device, asked, progress)
    prepared = Prepared(settings, pool, evaluate, size, trainer, known, looking)
    prepared.check_method()
    return prepared


def trainer_of(
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
    trainer = Trainer(
        search_spaces[settings.space],
        training,
        channels=run.channels,
        cells=run.cells,
        init=run.init,
        seed=settings.seed,
        device=device,
        store=store,
        alike=settings.oracle == "table,train",
        progress=progress,
        notice=notice,
    )
    if len(trainer.classes) != run.classes:
        raise UsageError(
            f"{training.images} has {len(trainer.classes)} classes, but run {settings.run} was computed on a data set "
            f"of the same name with {run.classes}; give that data set, or rename one of them and precompute it"
        )
    return trainer
