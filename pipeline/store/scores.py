"""The scores of a run beside its metrics: which it was asked for, on which images, and their rows.

runs/<run>/run.json            `scores`: by `<score>@<version>` the score's columns; `further`: the digest of the images
runs/<run>/further.npz         images (n, 3, S, S) and labels (n,) of the data set that are not in the run's batch
runs/<run>/scores/*.parquet    canonical, and of some scores each column as `<column>@<version>`, and the seconds that
                               it took as `<score>_seconds@<version>`: those of all passes where it shares them

A part has a number (or NaN, of a network that has none) of each of its scores for each of its classes. Other scores of
the same classes, computed later, are in other parts. A score whose definition changed has another version, and with it
other columns.
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
#: Images beside the batch: as many as the batch has, and this many at least, which NASWOT is published with.
FURTHER_IMAGES = 128
_SECONDS = re.compile(rf"({COLUMN_NAME.pattern})_seconds@([0-9]{{1,9}})")
_MOST = 1000
#: The highest version of a score: nine digits, as `_SECONDS` reads them.
MOST_VERSION = 999_999_999


@dataclass(frozen=True, order=True)
class ScoreColumns:
    """A score as a store knows it: its `name`, the `version` of its definition, and its `columns`."""

    name: str
    version: int
    columns: tuple[str, ...]

    @property
    def key(self) -> str:
        """What names it in records and claims."""
        return f"{self.name}@{self.version}"

    @property
    def seconds(self) -> str:
        """The column of what it cost."""
        return f"{self.name}_seconds"

    def stored(self, column: str) -> str:
        """The name of one of its columns, or of `seconds`, in a part."""
        return f"{column}@{self.version}"


@dataclass(frozen=True)
class Scored:
    """The parts of a run's scores, and by the key of a score the classes that have it."""

    parts: frozenset[str] = frozenset()
    classes: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def lacking(self, keys: Iterable[str], canonical: str) -> tuple[str, ...]:
        """Those of `keys` that the class has not."""
        return tuple(key for key in keys if canonical not in self.classes.get(key, ()))


def part_name(classes: Sequence[str], keys: Sequence[str]) -> str:
    """The name of the part with these scores of these classes."""
    return digest(*classes, "", *keys) + ".parquet"


def has_part(run: Run, name: str) -> bool:
    """Whether the part of that name is stored."""
    return run.exists(FOLDER, name)


def stored_row(key: str, columns: Sequence[str], numbers: Mapping[str, float], seconds: float) -> dict[str, float]:
    """What a score says of an architecture, by the names of a part. Raises `HnasError` for columns not its own."""
    name, _, version = key.partition("@")
    if set(numbers) != set(columns):
        raise HnasError(f"the score {name} gives {', '.join(numbers)}, and its columns are {', '.join(columns)}")
    row = {f"{column}@{version}": float(numbers[column]) for column in columns}
    return {**row, f"{name}_seconds@{version}": seconds}


def write_part(run: Run, classes: Sequence[str], keys: Sequence[str], rows: Sequence[Mapping[str, float]]) -> None:
    """Store the scores `keys` of `classes`, a row as `stored_row` gives it for each: they count from then on."""
    columns = {
        name: pa.array([row[name] for row in rows], pa.float32() if _SECONDS.fullmatch(name) else pa.float64())
        for name in sorted(rows[0])
    }
    table = pa.table({"canonical": pa.array(classes, pa.string()), **columns})
    run.store.write_table(table, *run.place(FOLDER, part_name(classes, keys)))


def copy_scores(run: Run, copy: Run, classes: Sequence[str]) -> None:
    """Write to another run the scores that `run` has of `classes`, in a part for all classes that have the same.

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
    """What is stored, where it was `before` at an earlier look. Raises `HnasError` for a damaged part."""
    before = before or Scored()
    names = set(run.store.files(*run.place(FOLDER)))
    classes = {key: set(having) for key, having in before.classes.items()} if names - before.parts else {}
    for name in sorted(names - before.parts):
        table = run.store.read_table(None, *run.place(FOLDER, name))
        for key in keys_in(table.column_names):
            classes.setdefault(key, set()).update(table["canonical"].to_pylist())
    if not classes:
        return before
    return Scored(before.parts | names, {key: frozenset(having) for key, having in classes.items()})


def keys_in(columns: Iterable[str]) -> list[str]:
    """The scores of a part with these columns."""
    return [f"{found[1]}@{int(found[2])}" for name in columns if (found := _SECONDS.fullmatch(name))]


def recorded_scores(run: Run, record: Mapping[str, Any]) -> list[ScoreColumns]:
    """The scores that a run was asked for, by its `record`, sorted. Raises `HnasError` where that is damaged."""
    listed = record.get("scores", {})
    try:
        found = sorted(_parsed(listed))
    except (ValueError, TypeError, AttributeError) as error:
        raise HnasError(
            f"{run.path(RECORD)} was damaged after it was written: scores is {listed!r:.80}; restore it, or remove the "
            "run and precompute it again"
        ) from error
    return found


def _parsed(listed: Mapping[str, Any]) -> Iterator[ScoreColumns]:
    # Each name becomes one in SQL.
    if len(listed) > _MOST:
        raise ValueError("too many")
    for key, columns in listed.items():
        name, _, version = key.partition("@")
        names = [name, *columns]
        if not all(COLUMN_NAME.fullmatch(text) for text in names) or len(set(columns)) < len(columns) or not columns:
            raise ValueError(key)
        made = ScoreColumns(name, int(version), tuple(columns))
        if made.key != key or not 0 <= made.version <= MOST_VERSION:
            raise ValueError(key)
        yield made


def record_scores(run: Run, wanted: Sequence[ScoreColumns], further: Batch | None) -> None:
    """Write down that the run is asked for the scores, and keep the images beside the batch. Under the run's lock.

    Raises `HnasError` where the run's scores are those of other images.
    """
    record = run.read_record()
    check_further(run, record, further)
    if further is not None:
        run.keep_images(FURTHER, further)
    scores = record.get("scores", {}) | {score.key: list(score.columns) for score in wanted}
    more = {"scores": dict(sorted(scores.items()))} | ({"further": further.digest} if further is not None else {})
    if not more.items() <= record.items():
        run.write_record({**record, **more})


def forget_scores(run: Run, keys: Iterable[str]) -> None:
    """Take those of the scores `keys` out of the run's record of which no class has one. Under the run's lock."""
    record = run.read_record()
    having = scored(run).classes
    never = {key for key in keys if key in record.get("scores", {}) and not having.get(key)}
    if never:
        run.write_record(
            {**record, "scores": {key: columns for key, columns in record["scores"].items() if key not in never}}
        )


def check_further(run: Run, record: Mapping[str, Any], further: Batch | None) -> None:
    """Raise `HnasError` where the run's scores are those of other images than `further`."""
    found = None if further is None else further.digest
    if record.get("scores") and record.get("further") != found:
        raise HnasError(
            f"the scores of run {run.name} in {run.store.location} are those of other images beside the batch than "
            "this data set gives; give the one that they were computed with, or remove the run and precompute it again"
        )
