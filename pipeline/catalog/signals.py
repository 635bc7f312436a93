"""Signals: the accuracies in a store that guide a search, and those that are reported of its winner.

A store holds several trainings of an architecture side by side: of other sources, numbers of epochs, seeds and data
sets. A signal is one accuracy of one source after one number of epochs, the mean over its seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from hnas.errors import UsageError, unknown
from hnas.pipeline.catalog.views import sql
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.schema import ACCURACIES as COLUMNS

#: The accuracies that may guide a search, the first that there is where none is asked for.
ACCURACIES = ("valid_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Signal:
    """The `accuracy` (a column) of `source` on `dataset` after `epochs`, None where the source does not say how many.

    `of` is the length of the trainings, where the accuracy is that of `epochs` on the way (from `curves`), else None.
    """

    accuracy: str
    source: str
    dataset: str
    epochs: int | None
    of: int | None = None

    def __post_init__(self) -> None:
        # It becomes a name in SQL, and a saved search may be anybody's.
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
    """The signal that fits, or None where the store has no accuracies of `space` on `dataset` at all.

    `dataset` is canonical. Without `accuracy` it is the validation accuracy where there is one. Of the sources and
    epochs that have it, those of the most architectures are taken, then the fewest epochs (the cheapest signal; of test
    accuracies the most), then the first name. A validation accuracy on `cifar10-valid`, of trainings on half of
    the training set, comes before the same of `cifar10`. Where no training is `epochs` long, the curves are taken.

    Raises `UsageError` for an unknown accuracy, source or number of epochs.
    """
    if accuracy is not None and accuracy not in ACCURACIES:
        raise unknown("the accuracy", accuracy, ACCURACIES)
    datasets = [dataset, f"{dataset}-valid"]
    names = {"space": space, "datasets": datasets}
    rows = connection.execute(sql("signals"), {**names, "epochs": epochs}).fetchall()
    if not rows:
        return None
    for wanted in [accuracy] if accuracy else ACCURACIES:
        found = [
            (-count, on == dataset, (length or 0) * (1 if wanted == "valid_accuracy" else -1), name, on, length, of)
            for name, on, length, of, *counts in rows
            if (count := counts[ACCURACIES.index(wanted)])
            and (wanted == "valid_accuracy" or on == dataset)
            and source in (None, name)
            and epochs in (None, length)
            and (of is None or not any(r[0] == name and r[2] == epochs and r[3] is None for r in rows))
        ]
        if found:
            *_, name, on, length, of = min(found, key=lambda row: (*row[:4], row[6] or 0))
            return Signal(wanted, name, on, length, of)
    having = sorted({(name, length) for name, _, length, of, *_ in rows if of is None}, key=str)
    asked = [accuracy or "validation or test accuracy"]
    asked += [f"after {epochs} epochs"] if epochs is not None else []
    asked += [f"of {source}"] if source is not None else []
    listed = ", ".join(f"{printable(name)} ({'epochs unknown' if e is None else f'{e} epochs'})" for name, e in having)
    raise UsageError(f"no architecture of {space} has a {' '.join(asked)} on {dataset}; the store has {listed}")


def signal_of_views(connection: duckdb.DuckDBPyConnection, space: str, dataset: str, accuracy: str) -> Signal | None:
    """The `accuracy` that the views `mean_accuracies` and `pool` show, or None where they have none."""
    query = "SELECT source, epochs FROM files.accuracy_tables WHERE space = ? AND dataset = ?"
    rows = connection.execute(query, [space, dataset]).fetchall()
    return Signal(accuracy, rows[0][0], dataset, rows[0][1]) if rows else None


def reported(connection: duckdb.DuckDBPyConnection, space: str) -> list[Signal]:
    """The test accuracies to report of a winner: one signal for each data set of the space, by name.

    That of the most architectures, then of the most epochs. Data sets that name a part of another one
    (`cifar10-valid`, `cifar100-ori-test`) are left out beside it.
    """
    rows = connection.execute(sql("reported"), {"space": space}).fetchall()
    return [Signal("test_accuracy", source, dataset, epochs) for dataset, source, epochs in rows]


def test_accuracies(
    connection: duckdb.DuckDBPyConnection, space: str, signals: Sequence[Signal], archs: Sequence[str] | None
) -> dict[str, dict[str, float]]:
    """By data set of `signals`, the accuracy of each of `archs` (None: of all) that has one, in percent."""
    found: dict[str, dict[str, float]] = {}
    for signal in signals:
        names = {"space": space, "dataset": signal.dataset, "source": signal.source, "epochs": signal.epochs}
        rows = connection.execute(
            sql("test_accuracies"), {**names, "archs": None if archs is None else list(archs)}
        ).fetchall()
        found[signal.dataset] = dict(rows)
    return found
