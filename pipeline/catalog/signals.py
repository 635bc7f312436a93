"""Signals: the accuracies in a store that guide a search, and those reported for its winner.

A store holds several trainings of an architecture side by side: from other sources, with other numbers of epochs,
seeds and data sets. A signal is one accuracy from one source after one number of epochs, averaged over its seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from hnas.errors import UsageError, unknown
from hnas.pipeline.catalog.views import sql
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.schema import ACCURACIES as COLUMNS

#: The accuracies that can guide a search; by default the first available one.
ACCURACIES = ("valid_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Signal:
    """The `accuracy` (a column) of `source` on `dataset` after `epochs`, None if the source does not record them.

    If the accuracy is an intermediate one after `epochs` (from `curves`), `of` is the length of the trainings.
    """

    accuracy: str
    source: str
    dataset: str
    epochs: int | None
    of: int | None = None

    def __post_init__(self) -> None:
        # It becomes a name in SQL, and a saved search may come from anyone.
        if self.accuracy not in COLUMNS:
            raise unknown("the accuracy", str(self.accuracy), COLUMNS)

    def __str__(self) -> str:
        after = "" if self.epochs is None else f" after {self.epochs} epoch{'' if self.epochs == 1 else 's'}"
        on_the_way = "" if self.of is None else f" of {self.of}"
        words = self.accuracy.replace("valid_", "validation ").replace("_", " ")
        return f"{words}{after}{on_the_way} on {self.dataset} ({printable(self.source)})"


def choose_signal(
    connection: duckdb.DuckDBPyConnection,
    space: str,
    dataset: str,
    *,
    accuracy: str | None = None,
    epochs: int | None = None,
    source: str | None = None,
) -> Signal | None:
    """Return the best matching signal, or None if the store has no accuracies of `space` on `dataset` at all.

    `dataset` is canonical. The default `accuracy` is the validation accuracy if there is one. Among the matching
    sources and epochs, the order is: the most architectures; the fewest epochs, as the cheapest signal (for test
    accuracy, the most epochs); the first name. A validation accuracy on `cifar10-valid`, from trainings on half of the
    training set, precedes that on `cifar10`. If no training has a length of `epochs`, the curves are used.

    Raises `UsageError` for an unknown accuracy, source or number of epochs.
    """
    if accuracy is not None and accuracy not in ACCURACIES:
        raise unknown("the accuracy", accuracy, ACCURACIES)
    datasets = [dataset, f"{dataset}-valid"]
    names = {"space": space, "datasets": datasets}
    rows = connection.execute(sql("signals"), {**names, "epochs": epochs}).fetchall()
    if not rows:
        return None
    for candidate in [accuracy] if accuracy else ACCURACIES:
        matches = [
            (-count, on == dataset, (length or 0) * (1 if candidate == "valid_accuracy" else -1), name, on, length, of)
            for name, on, length, of, *counts in rows
            if (count := counts[ACCURACIES.index(candidate)])
            and (candidate == "valid_accuracy" or on == dataset)
            and source in (None, name)
            and epochs in (None, length)
            and (of is None or not any(r[0] == name and r[2] == epochs and r[3] is None for r in rows))
        ]
        if matches:
            *_, name, on, length, of = min(matches, key=lambda row: (*row[:4], row[6] or 0))
            return Signal(candidate, name, on, length, of)
    stored = sorted({(name, length) for name, _, length, of, *_ in rows if of is None}, key=str)
    request = [accuracy or "validation or test accuracy"]
    request += [f"after {epochs} epochs"] if epochs is not None else []
    request += [f"of {source}"] if source is not None else []
    listed = ", ".join(f"{printable(name)} ({'epochs unknown' if e is None else f'{e} epochs'})" for name, e in stored)
    raise UsageError(f"no architecture of {space} has a {' '.join(request)} on {dataset}; the store has {listed}")


def signal_of_views(connection: duckdb.DuckDBPyConnection, space: str, dataset: str, accuracy: str) -> Signal | None:
    """Return the `accuracy` that the views `mean_accuracies` and `pool` show, or None if they have none."""
    query = "SELECT source, epochs FROM files.accuracy_tables WHERE space = ? AND dataset = ?"
    rows = connection.execute(query, [space, dataset]).fetchall()
    return Signal(accuracy, rows[0][0], dataset, rows[0][1]) if rows else None


def reported(connection: duckdb.DuckDBPyConnection, space: str) -> list[Signal]:
    """Return the test accuracies to report for a winner: one signal per data set of the space, sorted by name.

    It is the one with the most architectures, then the most epochs. A data set that is a part of another one
    (`cifar10-valid`, `cifar100-ori-test`) is left out if the other one is reported.
    """
    rows = connection.execute(sql("reported"), {"space": space}).fetchall()
    return [Signal("test_accuracy", source, dataset, epochs) for dataset, source, epochs in rows]


def test_accuracies(
    connection: duckdb.DuckDBPyConnection, space: str, signals: Sequence[Signal], archs: Sequence[str] | None
) -> dict[str, dict[str, float]]:
    """Return by data set of `signals` the accuracy, in percent, of each of `archs` (None: all) that has one."""
    accuracies: dict[str, dict[str, float]] = {}
    for signal in signals:
        names = {"space": space, "dataset": signal.dataset, "source": signal.source, "epochs": signal.epochs}
        rows = connection.execute(
            sql("test_accuracies"), {**names, "archs": None if archs is None else list(archs)}
        ).fetchall()
        accuracies[signal.dataset] = dict(rows)
    return accuracies
