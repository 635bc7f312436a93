"""Builds a new search from a request: chooses its run, signal and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb

from hnas.errors import UsageError, check_seed
from hnas.optim.algorithm import check_limits
from hnas.optim.evaluations import Query
from hnas.optim.methods.registry import methods
from hnas.optim.objective import check_exponent
from hnas.pipeline.catalog.averaging import group_of
from hnas.pipeline.catalog.signals import choose_signal
from hnas.pipeline.catalog.views import pick_run
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.search.settings import METHODS_WITH, OwnOracle, SearchSettings, TrainingSettings
from hnas.pipeline.search.warm_start import read_warm_start
from hnas.pipeline.store.run import run_or_mean
from hnas.spaces import search_spaces
from hnas.threads import training_threads


@dataclass(frozen=True)
class StartedSearch:
    """A search to carry out: its settings, and if it is resumed, the name and queries of the saved search.

    `known` holds the performances of its warm start.
    """

    settings: SearchSettings
    name: str | None = None
    history: tuple[Query, ...] = ()
    known: Mapping[str, float] | None = None


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
    oracle: str | None = None,
    own: OwnOracle | None = None,
    parallel: int = 1,
    warm_start: Sequence[str] = (),
) -> StartedSearch:
    """Return a new search with the matching run and signal.

    `metric` is the argument of the method, by default the trace for `hnas`. With `average`, the search uses the mean
    over all runs that differ from its run only in seed and batch.

    With `training`, each query is a training, unless the store already has it; with the `oracle` `table,train`, any
    training of the architecture on the same scale counts. With `own`, the oracle is user-defined. Otherwise performance
    is looked up, and `accuracy`, `epochs` and `source` select the signal (see `choose_signal`).

    `parallel` evaluations run at a time. `warm_start` lists texts for `hnas.pipeline.search.warm_start`. `dataset` is a
    name or the path of images. Raises `UsageError` for unknown or inconsistent arguments.
    """
    search_spaces[space]
    methods[method]
    check_exponent(t)
    for name, value, usual in (("t", t, 1.0), ("acquisition", acquisition, "ei")):
        if value != usual and method not in METHODS_WITH[name]:
            raise UsageError(
                f"--{name} {value} has no effect on the method {method}, only on {' and '.join(METHODS_WITH[name])}; "
                "leave it out"
            )
    check_limits(queries, budget, parallel)
    check_seed(seed, "--seed")
    if training is not None:
        # Saved with the search, so that resumed trainings are unchanged even on another machine.
        training = replace(training, threads=training_threads(training.threads, parallel))
    chosen = pick_run(connection, run=run, space=space, dataset=dataset)
    runs = group_of(connection, chosen.name) if average else []
    signal = None
    if training is None and own is None:
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
                f"{accuracy or 'validation or test accuracy'} on the run's data set; `hnas import` imports a "
                "table of them, and --oracle train trains"
            )
    elif accuracy is not None or source is not None:
        instead = "--oracle train measures validation accuracy" if own is None else "a user-defined oracle measures"
        raise UsageError(
            f"{f'--accuracy {accuracy}' if accuracy else f'--source {source}'} requires --oracle table; {instead}"
        )
    elif own is None and dataset is None and chosen.settings.dataset != "digits":
        raise UsageError(f"--oracle train requires --dataset, the images of {chosen.settings.dataset} to train on")
    warm, known = None, None
    if warm_start:
        warm, known = read_warm_start(connection, space, chosen.settings.dataset, warm_start)
    settings = SearchSettings(
        space=space,
        run=chosen.name,
        dataset=chosen.settings.dataset,
        metric="trace" if metric is None and method == "hnas" else metric,
        oracle=oracle or ("table" if training is None else "train"),
        accuracy=signal.accuracy if signal is not None else "valid_accuracy" if own is None else "performance",
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
        own=own,
        parallel=parallel,
        warm=warm,
        images=images_for(method, chosen.settings.dataset, dataset, training),
    )
    return StartedSearch(settings, known=known)


def images_for(method: str, of_run: str, dataset: str | None, training: TrainingSettings | None) -> str | None:
    """Return the name or path of the images that a method uses, or None if it uses none.

    These are the images of the trainings, or the given `dataset`. Raises `UsageError` if there is neither and the run's
    own images are not available.
    """
    if not getattr(methods[method], "needs_images", False):
        return None
    if training is not None:
        return training.images
    if dataset is None and of_run != "digits":
        raise UsageError(f"the method {method} uses images and requires --dataset, those of {of_run}")
    return dataset or of_run
