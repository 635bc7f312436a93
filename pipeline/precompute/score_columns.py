"""The scores that a precomputation is asked for, as a store knows them."""

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
    """The scores of these names, sorted. `taken` are columns that the pool has already, `recorded` the run's scores.

    Raises `HnasError` where a score, which may be another package's, cannot be stored: it does not say what a score
    says of itself, a column is no plain name, or the pool or another score has one so called.
    """
    found = []
    wanted = sorted(set(names))
    holders = dict.fromkeys((*TAKEN, *COLUMNS, *SCHEMAS["accuracies"].names, *taken), "the pool has one already")
    for known in recorded:
        if known.name not in wanted:
            holders |= dict.fromkeys((*known.columns, known.seconds), f"the run has one of the score {known.name}")
    for name in wanted:
        made = _declared(name)
        for column in (*made.columns, made.seconds):
            if not COLUMN_NAME.fullmatch(column) or not COLUMN_NAME.fullmatch(name):
                raise HnasError(
                    f"the score {name!r:.80} has a column {column!r:.80}, which is no plain name: a letter a to z, "
                    "then letters, digits and underscores; correct the package that it comes from"
                )
            if column.endswith("_seconds") and column != made.seconds:
                raise HnasError(
                    f"the score {name} has a column {column}, and names that end in _seconds are those of what scores "
                    "cost; correct the package that it comes from"
                )
            if column in holders:
                raise HnasError(
                    f"the score {name} cannot be stored: its column {column} has a name that is taken "
                    f"({holders[column]}); leave the score out, or remove or rename the other column"
                )
            holders[column] = f"the score {name} has one"
        found.append(made)
    return tuple(found)


def _declared(name: str) -> ScoreColumns:
    """What the score says of itself. A record of anything else could not be read again."""
    score = scores[name]
    columns, version = getattr(score, "columns", None), getattr(score, "version", None)
    if not isinstance(columns, tuple | list) or not columns or not all(isinstance(column, str) for column in columns):
        wrong = f"columns {columns!r:.80}; a tuple of one name or more is needed"
    elif type(version) is not int or not 0 <= version <= MOST_VERSION:
        wrong = f"version {version!r:.80}; a whole number from 0 to {MOST_VERSION} is needed"
    elif not isinstance(shared := getattr(score, "shared", None), bool):
        wrong = f"shared {shared!r:.80}; True or False is needed"
    elif shared and not set(needs := getattr(score, "needs", ())) <= set(STATISTICS):
        wrong = f"needs {needs!r:.80}; some of {', '.join(STATISTICS)} are needed"
    else:
        return ScoreColumns(name, version, tuple(columns))
    raise HnasError(f"the score {name!r:.80} has {wrong}; correct the package that it comes from")
