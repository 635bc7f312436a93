"""The requested scores of a precomputation and their columns in the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hnas.errors import HnasError
from hnas.metrics import COLUMNS
from hnas.metrics.statistics import STATISTICS
from hnas.pipeline.store.manifests import COLUMN_NAME
from hnas.pipeline.store.schema import SCHEMAS, TAKEN
from hnas.pipeline.store.scores import MOST_VERSION, ScoreColumns
from hnas.scores.registry import scores


def score_columns(
    names: Iterable[str], taken: Sequence[str], recorded: Iterable[ScoreColumns] = ()
) -> tuple[ScoreColumns, ...]:
    """Return the scores of these names, sorted. `taken` lists columns of the pool, `recorded` the run's scores.

    Raises `HnasError` if a score, which may come from another package, cannot be stored: an attribute is missing or
    invalid, or a column name is malformed or already taken by the pool or another score.
    """
    columns_of = []
    requested = sorted(set(names))
    holders = dict.fromkeys((*TAKEN, *COLUMNS, *SCHEMAS["accuracies"].names, *taken), "the pool has one already")
    for stored in recorded:
        if stored.name not in requested:
            holders |= dict.fromkeys((*stored.columns, stored.seconds), f"the run has one of the score {stored.name}")
    for name in requested:
        declared = _declared(name)
        for column in (*declared.columns, declared.seconds):
            if not COLUMN_NAME.fullmatch(column) or not COLUMN_NAME.fullmatch(name):
                raise HnasError(
                    f"the score {name!r:.80} has a column {column!r:.80}; a column name must be a letter a to z, then "
                    "letters, digits and underscores; correct the package that it comes from"
                )
            if column.endswith("_seconds") and column != declared.seconds:
                raise HnasError(
                    f"the score {name} has a column {column}, but names that end in _seconds are reserved for the cost "
                    "of scores; correct the package that it comes from"
                )
            if column in holders:
                raise HnasError(
                    f"the score {name} cannot be stored: the name of its column {column} is already taken "
                    f"({holders[column]}); leave the score out, or remove or rename the other column"
                )
            holders[column] = f"the score {name} has one"
        columns_of.append(declared)
    return tuple(columns_of)


def _declared(name: str) -> ScoreColumns:
    """Return the attributes of a score. A record with any others could not be read back."""
    score = scores[name]
    columns, version = getattr(score, "columns", None), getattr(score, "version", None)
    if not isinstance(columns, tuple | list) or not columns or not all(isinstance(column, str) for column in columns):
        wrong = f"columns {columns!r:.80}; they must be a tuple of at least one name"
    elif type(version) is not int or not 0 <= version <= MOST_VERSION:
        wrong = f"version {version!r:.80}; it must be an integer from 0 to {MOST_VERSION}"
    elif not isinstance(shared := getattr(score, "shared", None), bool):
        wrong = f"shared {shared!r:.80}; it must be True or False"
    elif shared and not set(needs := getattr(score, "needs", ())) <= set(STATISTICS):
        wrong = f"needs {needs!r:.80}; they must be among {', '.join(STATISTICS)}"
    else:
        return ScoreColumns(name, version, tuple(columns))
    raise HnasError(f"the score {name!r:.80} has {wrong}; correct the package that it comes from")
