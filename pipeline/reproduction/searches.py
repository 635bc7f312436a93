"""The searches behind Table 3 and Figure 2: comparisons that `hnas compare` runs and stores."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

import duckdb

from hnas.errors import HnasError, UsageError
from hnas.pipeline.catalog.signals import choose_signal
from hnas.pipeline.catalog.views import pick_run
from hnas.pipeline.comparison.driver import Progress, compare
from hnas.pipeline.comparison.request import Comparison, new_comparison
from hnas.pipeline.comparison.results import Results
from hnas.pipeline.comparison.specs import parse_specs
from hnas.pipeline.comparison.worker import Opened
from hnas.pipeline.reproduction.measured import DATASET, fullest_run, lacking_accuracies, lacking_run
from hnas.pipeline.reproduction.results import Missing
from hnas.pipeline.store.comparisons import stored_parts
from hnas.pipeline.store.store import Store

SPACE = "nasbench201"
#: The searches are guided by the validation accuracy after this many epochs.
SIGNAL_EPOCHS = 12


def new(connection: duckdb.DuckDBPyConnection, methods: Sequence[str], *, seeds: int) -> Comparison:
    """The comparison of `methods`, each written as in `rea@12000s`, on the fullest run of the space.

    A method without a budget gets 20 queries. Raises `UsageError` where the store lacks the run or the accuracies.
    """
    specs = parse_specs(",".join(methods))
    run = fullest_run(connection, SPACE)
    return new_comparison(
        connection, specs, seeds=seeds, queries=20, space=SPACE, dataset=DATASET, epochs=SIGNAL_EPOCHS, oracle="table",
        run=None if run is None else run.name,
    )  # fmt: skip


def command(connection: duckdb.DuckDBPyConnection, run: str, methods: Sequence[str], seeds: int) -> str:
    """The `hnas compare` command of the same comparison on `run`."""
    named = "" if run == pick_run(connection, space=SPACE, dataset=DATASET).name else f" --run {run}"
    listed = shlex.quote(",".join(methods))
    return (
        f"hnas compare {SPACE} --dataset {DATASET}{named} --epochs {SIGNAL_EPOCHS} --seeds {seeds} --methods {listed}"
    )


def missing_data(connection: duckdb.DuckDBPyConnection) -> Missing | None:
    """What the store lacks for tabular searches: a run of the space, or accuracies to guide and to report them."""
    if fullest_run(connection, SPACE) is None:
        return lacking_run(SPACE)
    try:
        new(connection, ["random"], seeds=1)
    except HnasError:
        return lacking_accuracies(SPACE)
    try:
        signal = choose_signal(connection, SPACE, DATASET, accuracy="test_accuracy")
    except UsageError:
        signal = None
    return lacking_accuracies(SPACE) if signal is None else None


def run_searches(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    methods: Sequence[str],
    *,
    seeds: int,
    progress: Callable[[Progress], None],
) -> tuple[Results, Opened]:
    """The searches of `methods`, and the data that they ran on. Runs and stores the ones that the store lacks.

    Raises what `hnas.pipeline.comparison.driver.compare` raises.
    """
    comparison = new(connection, methods, seeds=seeds)
    work = compare(store, connection, comparison, progress=progress)
    return Results(store, connection, comparison, work.pool), work


def stored_searches(store: Store, connection: duckdb.DuckDBPyConnection, method: str, work: Opened) -> Results | None:
    """The stored searches of `method` that `command` made, for consecutive seeds from 0, or None."""
    comparison = new(connection, [method], seeds=1)
    seeds = {seed for part in stored_parts(store, comparison.name) for seed in part.seeds}
    count = next(seed for seed in range(len(seeds) + 1) if seed not in seeds)
    return Results(store, connection, replace(comparison, seeds=count), work.pool) if count else None
