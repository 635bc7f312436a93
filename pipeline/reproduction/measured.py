"""The data of Table 1 and Figure 1 in a store: a space's columns for each initialisation, and its accuracies."""

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

#: The data set of the paper's tables.
DATASET = "cifar10"

_PRECOMPUTE = {
    "nasbench101": ("hnas precompute nasbench101 --dataset cifar10 --sample 5000", "1 h 40 min on two cores"),
    "nasbench201": ("hnas precompute nasbench201 --dataset cifar10", "1 h 30 min on two cores"),
}
#: The commands that import a space's accuracies (for NAS-Bench-201 with learning curves), and the time they take.
IMPORT = {
    "nasbench101": (
        ("hnas fetch nasbench101", "hnas import nasbench101 nasbench_only108.tfrecord"),
        "a 499 MB download and half a minute",
    ),
    "nasbench201": (
        ("hnas fetch nats-bench", "hnas import nats-bench NATS-tss-v1_0-3ffb9-simple"),
        "a 1 GB download by hand and 20 minutes",
    ),
}


@dataclass(frozen=True)
class Measured:
    """The n architectures that all initialisations of a space's run share: their `classes` (n,) and their columns (n,).

    `columns` maps names to columns, once for each of `runs`, of which the first is `chosen`. `means` holds the columns
    of the averaged run (as with `--average`) where there are several runs. `target` (n,) is the test accuracy, NaN
    where it is unknown.
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
        """The number of initialisations, in words."""
        count = len(self.runs)
        return "one initialisation" if count == 1 else f"{count} initialisations"


def lacking_run(space: str) -> Missing:
    """The missing metrics of a space, with the command that computes them."""
    command, takes = _PRECOMPUTE[space]
    return Missing(f"metrics of {space} on {DATASET}", (command,), takes)


def lacking_accuracies(space: str) -> Missing:
    """The missing accuracies of a space, with the commands that import them (NAS-Bench-201: after 12 epochs too)."""
    commands, takes = IMPORT[space]
    return Missing(f"accuracies of {space} on {DATASET}", commands, takes)


def measured(connection: duckdb.DuckDBPyConnection, space: str, names: list[str]) -> Measured | Missing:
    """The columns `names` of the newest run of `space` on CIFAR-10, and of the runs that differ from it in seed only.

    Leaves out unfinished runs. Returns a `Missing` where there is no run.
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
    shared_rows = [np.array([i for i, arch in enumerate(pool.archs) if arch in shared], np.int64) for pool in pools]
    columns = tuple(
        {name: pool.column(f'"{name}"')[rows] for name in names} for pool, rows in zip(pools, shared_rows, strict=True)
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
    target = None if signal is None else pools[0].accuracies(signal)[shared_rows[0]]
    return Measured(chosen, tuple(runs), pools[0].classes[shared_rows[0]], columns, means, target, signal)


def _complete(connection: duckdb.DuckDBPyConnection, run: str) -> bool:
    try:
        check_complete(connection, [run])
    except HnasError:
        return False
    return True
