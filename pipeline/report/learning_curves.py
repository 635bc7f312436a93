"""Learning curves of a run's architectures."""

from __future__ import annotations

from collections.abc import Collection
from itertools import groupby
from typing import Any

import duckdb
import numpy as np

from hnas.pipeline.catalog.views import sql
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.io.printable import printable
from hnas.pipeline.report.charts import Spec, axis, bulk, line, lines
from hnas.pipeline.report.parts import Chart, Charts, Section, Table, number
from hnas.pipeline.report.points import PointSet, cells_of
from hnas.pipeline.report.run_part import RunPart, words

_TITLE = "Learning curves"
# The most trainings to draw.
_MOST = 12
_ACCURACIES = ("valid_accuracy", "test_accuracy", "train_accuracy")


def learning_curves(
    connection: duckdb.DuckDBPyConnection, part: RunPart, evaluated: Collection[str]
) -> tuple[Section, dict[str, PointSet]]:
    """The trainings with the best final accuracy, of the architectures `evaluated` by a search if any, else of all."""
    accuracy, rows = _measured(connection, part, evaluated)
    if not rows:
        return Section(_TITLE), {}
    drawn: list[Spec] = []
    table = []
    for (final, *training), epochs in groupby(rows, key=lambda row: row[:6]):
        arch, source, dataset, length, seed = training
        first = drawn[-1]["last"] if drawn else 0
        name = f"{len(drawn) + 1}: {arch}"
        drawn.append(line(name, first, first + sum(1 for _ in epochs)))
        table.append([name, dataset, number(length), number(seed), source, number(final)])
    values = np.array([row[7] for row in rows], dtype=float)
    archs = [row[1] for row in rows]
    points = f"curves-{part.run.name}"
    of = f"{words(accuracy)} (%)"
    sets = {
        points: PointSet(
            archs,
            {"epoch": np.array([row[6] for row in rows], dtype=float), accuracy: values},
            {"epoch": "epoch", accuracy: of},
            cells_of(part.pool.space, archs, part.pool.definitions),
        )
    }
    spec = lines(points, axis("epoch", "epoch"), axis(accuracy, of, reach=bulk(values)), drawn)
    ends = f"{table[-1][-1]} and {table[0][-1]} %"
    about = f"{words(accuracy)} after each epoch of {len(drawn)} trainings, which end between {ends}"
    caption = (
        f"The {len(drawn)} trainings with the best final accuracy" if len(drawn) == _MOST else f"{len(drawn)} trainings"
    )
    heads = ["training", "data set", "epochs", "seed", "source", of]
    shown = [[printable(text) for text in row] for row in table]
    listed = Table("The trainings", heads, shown, [True, True, False, False, True, False], folded=True)
    return Section(_TITLE, (), [Charts(caption, [Chart(f"{words(accuracy)} by epoch", about, spec)]), listed]), sets


def _measured(
    connection: duckdb.DuckDBPyConnection, part: RunPart, evaluated: Collection[str]
) -> tuple[str, list[tuple[Any, ...]]]:
    """The accuracy that was measured during training, and its rows; no rows if it was measured at the end only."""
    dataset = canonical_dataset(part.run.settings.dataset)
    names = {"space": part.run.settings.space, "datasets": [dataset, f"{dataset}-valid"], "most": _MOST}
    for accuracy in _ACCURACIES:
        query = sql("learning_curves", accuracy=accuracy)
        rows = connection.execute(query, {**names, "archs": sorted(evaluated) or part.archs}).fetchall()
        if rows:
            return accuracy, rows
    return "", []
