"""What a store has of a space for Table 1 and Figure 1: columns of each initialisation, and the accuracies."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from hnas.errors import HnasError, UsageError
from hnas.optim.objective import Array
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import Signal, choose_signal
from hnas.pipeline.catalog.views import RunRow, check_complete, pick_run, sql
from hnas.pipeline.reproduction.results import Missing

#: The data set of all of the paper's tables.
DATASET = "cifar10"

_PRECOMPUTE = {
    "nasbench101": ("hnas precompute nasbench101 --dataset cifar10 --sample 5000", "1 h 40 min of two cores"),
    "nasbench201": ("hnas precompute nasbench201 --dataset cifar10", "1 h 30 min of two cores"),
}
#: What brings the accuracies of a space, of NAS-Bench-201 with their learning curves, and how long it takes.
IMPORT = {
    "nasbench101": (
        ("hnas fetch nasbench101", "hnas import nasbench101 nasbench_only108.tfrecord"),
        "a download of 499 MB, and half a minute",
    ),
    "nasbench201": (
        ("hnas fetch nats-bench", "hnas import nats-bench NATS-tss-v1_0-3ffb9-simple"),
        "a download of 1 GB by hand, and 20 minutes",
    ),
}


@dataclass(frozen=True)
class Measured:
    """The rows of a space's run that all its initialisations have: `archs`, their `classes` (n,), and columns (n,).

    `columns` has one dict by column for each of `runs`, the run of `chosen` first; `means` those of their mean, as
    `--average` takes it, where there are several. `target` (n,) is the test accuracy, NaN where it is not known.
    """

    chosen: RunRow
    runs: tuple[str, ...]
    classes: NDArray[np.int64]
    columns: tuple[dict[str, Array], ...]
    means: dict[str, Array] | None
    target: Array | None
    signal: Signal | None

    @property
    def initialisations(self) -> str:
        """How many there are, in words."""
        count = len(self.runs)
        return "one initialisation" if count == 1 else f"{count} initialisations"


def lacking_run(space: str) -> Missing:
    """What brings the metrics of a space."""
    command, takes = _PRECOMPUTE[space]
    return Missing(f"metrics of {space} on {DATASET}", (command,), takes)


def lacking_accuracies(space: str) -> Missing:
    """What brings the test accuracies of a space, and of NAS-Bench-201 those after 12 epochs too."""
    commands, takes = IMPORT[space]
    return Missing(f"accuracies of {space} on {DATASET}", commands, takes)


def measured(connection: duckdb.DuckDBPyConnection, space: str, names: list[str]) -> Measured | Missing:
    """The columns `names` of the newest run of `space` on CIFAR-10 and of those that differ from it in the draw only.

    Runs that are unfinished are left out. What is missing, where there is no run.
    """
    try:
        chosen = pick_run(connection, space=space, dataset=DATASET)
        check_complete(connection, [chosen.name])
    except HnasError:
        return lacking_run(space)
    others = [name for (name,) in connection.execute(sql("group_of_run"), {"run": chosen.name}).fetchall()]
    runs = [chosen.name, *(name for name in others if name != chosen.name and _complete(connection, name))]
    pools = [RunPool(connection, run) for run in runs]
    shared = set(pools[0].archs).intersection(*(pool.archs for pool in pools[1:]))
    kept = [np.array([i for i, arch in enumerate(pool.archs) if arch in shared], np.int64) for pool in pools]
    columns = tuple(
        {name: pool.column(f'"{name}"')[rows] for name in names} for pool, rows in zip(pools, kept, strict=True)
    )
    means = None
    if len(runs) > 1:
        mean = RunPool(connection, chosen.name, runs)
        rows = np.array([i for i, arch in enumerate(mean.archs) if arch in shared], np.int64)
        means = {name: mean.column(f'"{name}"')[rows] for name in names}
    try:
        signal = choose_signal(connection, space, DATASET, accuracy="test_accuracy")
    except UsageError:
        signal = None
    target = None if signal is None else pools[0].accuracies(signal)[kept[0]]
    return Measured(chosen, tuple(runs), pools[0].classes[kept[0]], columns, means, target, signal)


def _complete(connection: duckdb.DuckDBPyConnection, run: str) -> bool:
    try:
        check_complete(connection, [run])
    except HnasError:
        return False
    return True
