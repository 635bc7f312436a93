"""The scores of a run beside its metrics: which were requested, on which images, and their rows.

runs/<run>/run.json            `scores`: the columns of each `<score>@<version>`; `further`: the digest of the images
runs/<run>/further.npz         images (n, 3, S, S) and labels (n,) of the data set that are not in the run's batch
runs/<run>/scores/*.parquet    canonical; each column of some scores as `<column>@<version>`; and their seconds as
                               `<score>_seconds@<version>`, which for shared passes are those of all passes

A part has a number for each of its scores and classes, NaN if the network has none. Other scores of the same classes,
computed later, are in other parts. If the definition of a score changes, it gets another version and thus other
columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hnas.errors import HnasError
from hnas.pipeline.store.manifests import COLUMN_NAME
from hnas.pipeline.store.run import RECORD, Run
from hnas.pipeline.store.store import digest

if TYPE_CHECKING:
    from hnas.pipeline.images import Batch

FOLDER, FURTHER = "scores", "further.npz"
#: Minimum number of images beside the batch, which is otherwise that of the batch; NASWOT's paper uses 128.
FURTHER_IMAGES = 128
_SECONDS = re.compile(rf"({COLUMN_NAME.pattern})_seconds@([0-9]{{1,9}})")
_MOST = 1000
#: The highest version of a score: nine digits, which `_SECONDS` can read.
MOST_VERSION = 999_999_999


@dataclass(frozen=True, order=True)
class ScoreColumns:
    """A score in a store: its `name`, the `version` of its definition, and its `columns`."""

    name: str
    version: int
    columns: tuple[str, ...]

    @property
    def key(self) -> str:
        """The score's name in records and claims."""
        return f"{self.name}@{self.version}"

    @property
    def seconds(self) -> str:
        """The column of its cost."""
        return f"{self.name}_seconds"

    def stored(self, column: str) -> str:
        """Return the name in a part of one of its columns, or of `seconds`."""
        return f"{column}@{self.version}"


@dataclass(frozen=True)
class Scored:
    """The parts of a run's scores, and the classes that have each score, by key."""

    parts: frozenset[str] = frozenset()
    classes: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def lacking(self, keys: Iterable[str], canonical: str) -> tuple[str, ...]:
        """Return those of `keys` that the class lacks."""
        return tuple(key for key in keys if canonical not in self.classes.get(key, ()))


def part_name(classes: Sequence[str], keys: Sequence[str]) -> str:
    """Return the name of the part with these scores of these classes."""
    return digest(*classes, "", *keys) + ".parquet"


def has_part(run: Run, name: str) -> bool:
    """Return whether the part of that name is stored."""
    return run.exists(FOLDER, name)


def stored_row(key: str, columns: Sequence[str], numbers: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return a score's numbers by their names in a part. Raises `HnasError` for columns that are not its own."""
    name, _, version = key.partition("@")
    if set(numbers) != set(columns):
        raise HnasError(f"the score {name} returns {', '.join(numbers)}, but its columns are {', '.join(columns)}")
    row = {f"{column}@{version}": float(numbers[column]) for column in columns}
    return {**row, f"{name}_seconds@{version}": seconds}


def write_part(run: Run, classes: Sequence[str], keys: Sequence[str], rows: Sequence[Mapping[str, float]]) -> None:
    """Store the scores `keys` of `classes`, one row from `stored_row` for each; they count from then on."""
    columns = {
        name: pa.array([row[name] for row in rows], pa.float32() if _SECONDS.fullmatch(name) else pa.float64())
        for name in sorted(rows[0])
    }
    table = pa.table({"canonical": pa.array(classes, pa.string()), **columns})
    run.store.write_table(table, *run.place(FOLDER, part_name(classes, keys)))


def copy_scores(run: Run, copy: Run, classes: Sequence[str]) -> None:
    """Copy the scores of `classes` from `run` to another run, with one part per set of scores.

    Raises `HnasError` for a damaged part.
    """
    rows: dict[str, dict[str, float]] = {canonical: {} for canonical in classes}
    for name in run.store.files(*run.place(FOLDER)):
        for row in run.store.read_table(None, *run.place(FOLDER, name)).to_pylist():
            canonical = row.pop("canonical")
            if canonical in rows:
                rows[canonical] |= row
    together: dict[tuple[str, ...], list[str]] = {}
    for canonical, row in rows.items():
        together.setdefault(tuple(sorted(keys_in(row))), []).append(canonical)
    for keys, members in together.items():
        if keys:
            write_part(copy, members, keys, [rows[canonical] for canonical in members])


def scored(run: Run, before: Scored | None = None) -> Scored:
    """Return what is stored, given `before` from an earlier call. Raises `HnasError` for a damaged part."""
    before = before or Scored()
    names = set(run.store.files(*run.place(FOLDER)))
    classes = {key: set(holders) for key, holders in before.classes.items()} if names - before.parts else {}
    for name in sorted(names - before.parts):
        table = run.store.read_table(None, *run.place(FOLDER, name))
        for key in keys_in(table.column_names):
            classes.setdefault(key, set()).update(table["canonical"].to_pylist())
    if not classes:
        return before
    return Scored(before.parts | names, {key: frozenset(holders) for key, holders in classes.items()})


def keys_in(columns: Iterable[str]) -> list[str]:
    """Return the keys of the scores in a part with these columns."""
    return [f"{match[1]}@{int(match[2])}" for name in columns if (match := _SECONDS.fullmatch(name))]


def recorded_scores(run: Run, record: Mapping[str, Any]) -> list[ScoreColumns]:
    """Return the requested scores of a run from its `record`, sorted. Raises `HnasError` for a damaged record."""
    listed = record.get("scores", {})
    try:
        scores = sorted(_parsed(listed))
    except (ValueError, TypeError, AttributeError) as error:
        raise HnasError(
            f"{run.path(RECORD)} was damaged after it was written: scores is {listed!r:.80}; restore it, or remove the "
            "run and precompute it again"
        ) from error
    return scores


def _parsed(listed: Mapping[str, Any]) -> Iterator[ScoreColumns]:
    # The names become part of SQL.
    if len(listed) > _MOST:
        raise ValueError("too many")
    for key, columns in listed.items():
        name, _, version = key.partition("@")
        names = [name, *columns]
        if not all(COLUMN_NAME.fullmatch(text) for text in names) or len(set(columns)) < len(columns) or not columns:
            raise ValueError(key)
        score = ScoreColumns(name, int(version), tuple(columns))
        if score.key != key or not 0 <= score.version <= MOST_VERSION:
            raise ValueError(key)
        yield score


def record_scores(run: Run, requested: Sequence[ScoreColumns], further: Batch | None) -> None:
    """Record that the scores are requested of the run, and keep the images beside the batch. Requires the run's lock.

    Raises `HnasError` if the run's scores belong to other images.
    """
    record = run.read_record()
    check_further(run, record, further)
    if further is not None:
        run.keep_images(FURTHER, further)
    scores = record.get("scores", {}) | {score.key: list(score.columns) for score in requested}
    more = {"scores": dict(sorted(scores.items()))} | ({"further": further.digest} if further is not None else {})
    if not more.items() <= record.items():
        run.write_record({**record, **more})


def forget_scores(run: Run, keys: Iterable[str]) -> None:
    """Remove those of the scores `keys` that no class has from the run's record. Requires the run's lock."""
    record = run.read_record()
    having = scored(run).classes
    never = {key for key in keys if key in record.get("scores", {}) and not having.get(key)}
    if never:
        run.write_record(
            {**record, "scores": {key: columns for key, columns in record["scores"].items() if key not in never}}
        )


def check_further(run: Run, record: Mapping[str, Any], further: Batch | None) -> None:
    """Raise `HnasError` if the run's scores belong to other images than `further`."""
    expected = None if further is None else further.digest
    if record.get("scores") and record.get("further") != expected:
        raise HnasError(
            f"the scores of run {run.name} in {run.store.location} belong to other images beside the batch than those "
            "of this data set; use the data set they were computed with, or remove the run and precompute it again"
        )
