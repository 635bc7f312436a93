"""The columns of scores in the views: for each score the newest version requested of any run in the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hnas.metrics.columns import COLUMNS
from hnas.pipeline.catalog.table_files import quoted
from hnas.pipeline.store.schema import SCHEMAS, TAKEN
from hnas.pipeline.store.scores import ScoreColumns

_TAKEN = frozenset((*TAKEN, *COLUMNS, *SCHEMAS["accuracies"].names))


@dataclass(frozen=True)
class ScoreViews:
    """The pieces of SQL that the SQL files need for scores, made only of plain names and numbers."""

    #: The columns of the parts, for an empty table.
    stored: str
    #: The columns of the views.
    columns: list[str]
    #: The substitutions in `scores.sql`.
    names: dict[str, str]


def score_views(asked: Mapping[str, Sequence[ScoreColumns]], own: Collection[str]) -> ScoreViews:
    """Return the SQL for the requested scores of each run. A column that the pool has of its `own` takes precedence."""
    rows = [(run, score) for run, scores in sorted(asked.items()) for score in sorted(scores)]
    newest = {score.name: score for score in sorted(score for _, score in rows)}  # the highest version comes last
    shown: dict[str, str] = {}
    of = {column: score.name for score in newest.values() for column in (*score.columns, score.seconds)}
    for score in newest.values():
        for column in (*score.columns, score.seconds):
            if column not in own and column not in _TAKEN:
                shown.setdefault(column, score.stored(column))
    stored = {score.stored(column) for _, score in rows for column in (*score.columns, score.seconds)}
    names = {
        "source": "files" if rows else "empty",  # without scores, no statement has to look for them
        "values": "".join(f', any_value("{name}")::DOUBLE AS "{column}"' for column, name in shown.items()),
        "columns": ", ".join(map(quoted, shown)),
        "of": ", ".join(quoted(of[column]) for column in shown),
        "runs": ", ".join(quoted(run) for run, _ in rows),
        "names": ", ".join(quoted(score.name) for _, score in rows),
        "versions": ", ".join(str(score.version) for _, score in rows),
        "used": ", ".join(str(newest[score.name].version == score.version) for _, score in rows),
        "counted": ", ".join(quoted(score.stored(score.columns[0])) for _, score in rows),
    }
    return ScoreViews("".join(f', "{name}" DOUBLE' for name in sorted(stored)), list(shown), names)


def means(columns: Sequence[str]) -> str:
    """Return SQL for means over runs; `s` is the table of scores, `m` that of metrics."""
    return "".join(f', mean_score(s."{column}", m.run) AS "{column}"' for column in columns)
