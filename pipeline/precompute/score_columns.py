"""The scores that a precomputation is asked for, as a store knows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hnas.errors import HnasError
from hnas.metrics import COLUMNS
from hnas.pipeline.store.manifests import COLUMN_NAME
from hnas.pipeline.store.schema import SCHEMAS, TAKEN
from hnas.pipeline.store.scores import ScoreColumns
from hnas.scores.registry import scores


def score_columns(names: Iterable[str], taken: Sequence[str]) -> tuple[ScoreColumns, ...]:
    """The scores of these names, sorted. `taken` are columns that the pool has already.

    Raises `HnasError` where a score, which may be another package's, cannot be stored: a column is no plain name, or
    the pool or another score has one so called.
    """
    found = []
    holders = dict.fromkeys((*TAKEN, *COLUMNS, *SCHEMAS["accuracies"].names, *taken), "the pool has one already")
    for name in sorted(set(names)):
        score = scores[name]
        made = ScoreColumns(name, score.version, tuple(score.columns))
        for column in (*made.columns, made.seconds):
            if not COLUMN_NAME.fullmatch(column) or not COLUMN_NAME.fullmatch(name):
                raise HnasError(
                    f"the score {name!r:.80} has a column {column!r:.80}, which is no plain name: a letter a to z, "
                    "then letters, digits and underscores; correct the package that it comes from"
                )
            if column in holders:
                raise HnasError(
                    f"the score {name} cannot be stored: its column {column} has a name that is taken "
                    f"({holders[column]}); leave the score out, or remove or rename the other column"
                )
            holders[column] = f"the score {name} has one"
        found.append(made)
    return tuple(found)
