"""The data of Table 1 and Figure 1 in a store: a space's columns for each initialisation, and its accuracies."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from hnas.errors import HnasError, UsageError
from hnas.optim.objective import Array
from hnas.pipeline.analysis.ranks import FEWEST
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import Signal, choose_signal
from hnas.pipeline.catalog.views import PREFERRED, RunRow, check_complete, pick_run, sql
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
    """The n architectures of a space's run and its other initialisations: their `classes` (n,), their columns (n,).

    `columns` maps names to columns, once for each of `runs`, of which the first is `chosen`. `means` holds the columns
    of the averaged run (as with `--average`) where there are several runs. `target` (n,) is the test accuracy, NaN
    where it is unknown. `left_out` are the initialisations that lack some of the architectures.
    """

    chosen: RunRow
    runs: tuple[str, ...]
    left_out: tuple[str, ...]
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


def too_few(space: str, classes: int) -> Missing:
    """The missing metrics of a space whose run has only so many `classes` to correlate over."""
    command, takes = _PRECOMPUTE[space]
    what = f"metrics of {space} on {DATASET} for more than {classes} class{'' if classes == 1 else 'es'}"
    return Missing(what, (command,), takes)


def fullest_run(connection: duckdb.DuckDBPyConnection, space: str) -> RunRow | None:
    """The finished run of `space` on CIFAR-10 with the most architectures, of equals the one that `pick_run` prefers.

    None if there is no finished run.
    """
    rows = connection.execute(
        "SELECT run FROM runs JOIN (SELECT run, count(*) AS size FROM requests GROUP BY run) USING (run) "
        "WHERE space = $space AND canonical_dataset(dataset) = $dataset "
        f"ORDER BY size DESC, {PREFERRED}",
        {"space": space, "dataset": DATASET},
    )
    finished = (run for (run,) in rows.fetchall() if _complete(connection, run))
    name = next(finished, None)
    return None if name is None else pick_run(connection, run=name)


def measured(connection: duckdb.DuckDBPyConnection, space: str, names: list[str]) -> Measured | Missing:
    """The columns `names` of the fullest run of `space` on CIFAR-10, and of its other initialisations.

    These are the runs that differ from it only in seed and batch and have all its architectures. Leaves out unfinished
    runs. Returns a `Missing` where there is no run, or one of too few architectures for a correlation.
    """
    chosen = fullest_run(connection, space)
    if chosen is None:
        return lacking_run(space)
    group = [name for (name,) in connection.execute(sql("group_of_run"), {"run": chosen.name}).fetchall()]
    others = [name for name in group if name != chosen.name and _complete(connection, name)]
    of_run = {name: RunPool(connection, name) for name in (chosen.name, *others)}
    if (classes := len(np.unique(of_run[chosen.name].classes))) < FEWEST:
        return too_few(space, classes)
    archs = set(of_run[chosen.name].archs)
    runs = [name for name, pool in of_run.items() if archs.issubset(pool.archs)]
    pools = [of_run[name] for name in runs]
    columns = tuple(_columns(pool, names, archs) for pool in pools)
    means = _columns(RunPool(connection, chosen.name, runs), names, archs) if len(runs) > 1 else None
    try:
        signal = choose_signal(connection, space, DATASET, accuracy="test_accuracy")
    except UsageError:
        signal = None
    target = None if signal is None else pools[0].accuracies(signal)
    left_out = tuple(name for name in others if name not in runs)
    return Measured(chosen, tuple(runs), left_out, pools[0].classes, columns, means, target, signal)


def _columns(pool: RunPool, names: list[str], archs: set[str]) -> dict[str, Array]:
    """The columns `names` of the architectures `archs` of a pool."""
    rows = np.array([i for i, arch in enumerate(pool.archs) if arch in archs], np.int64)
    return {name: pool.column(f'"{name}"')[rows] for name in names}


def _complete(connection: duckdb.DuckDBPyConnection, run: str) -> bool:
    try:
        check_complete(connection, [run])
    except HnasError:
        return False
    return True
