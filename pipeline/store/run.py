"""Runs: the settings that determine a table of metrics, the name derived from them, and the files that hold the table.

Every field of `RunSettings` is part of a run's name, so only what determines the numbers belongs there. A new field
renames all runs, unless it is left out of the name when it has the value that all earlier runs had. Where and how the
numbers were computed is `provenance`.
"""

from __future__ import annotations

import io
import json
import platform
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import Field, asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import pyarrow as pa

from hnas import __version__
from hnas.errors import HnasError
from hnas.pipeline.io.checksums import batch_digest
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.requests import write_missing
from hnas.pipeline.store.store import Store, digest

if TYPE_CHECKING:
    from hnas.pipeline.images import Batch
    from hnas.pipeline.store.ntk_arrays import NTKArrays

RECORD = "run.json"
_NO_ARRAYS = (ValueError, OSError, EOFError, KeyError, MemoryError, NotImplementedError, BadZipFile, zlib.error)


@dataclass(frozen=True)
class RunSettings:
    """Everything that determines the numbers of a run. Equal settings are the same run on any machine.

    `init` is one of `hnas.spaces.initialise.INITIALISATIONS`; older records lack it.
    """

    space: str
    dataset: str
    batch: str
    batch_size: int
    classes: int
    image_size: int
    channels: int
    cells: int
    seed: int
    ntk: str
    dtype: str
    engine: int
    init: str = "torch"

    @property
    def id(self) -> str:
        """The run's name: ten hexadecimal digits of a digest of the settings, without `init` if it is `torch`."""
        named = asdict(self)
        if self.init == "torch":
            del named["init"]
        return digest(json.dumps(named, sort_keys=True), size=5)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name, as in `run.json`."""
        return asdict(self)


def run_or_mean(run: str, runs: Sequence[str]) -> str:
    """Return `run`, or the mean of `runs` if there are any, in words."""
    return f"the mean of runs {', '.join(runs)}" if runs else f"run {run}"


def provenance() -> dict[str, Any]:
    """Return versions and host for `run.json`, which may explain a difference in the last digits."""
    packages = ("torch", "numpy", "dask", "zarr", "duckdb", "pyarrow")
    versions = {"hnas": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}
    return {
        "versions": versions,
        "host": {"system": platform.platform(), "processor": platform.machine()},
    }


def now() -> str:
    """Return the UTC time in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Part:
    """The result of a chunk: its name, its first row in `ntk.zarr`, its canonical architectures, its `scores` by key.

    The name is that of its part of the metrics. A chunk without metrics has another name and the row −1.
    """

    name: str
    row: int
    classes: tuple[str, ...]
    scores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """The finished parts of a run, with their values of `ntk_row` and `canonical`."""

    parts: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    rows: frozenset[int] = frozenset()


def _fits(value: object, field: Field[Any]) -> bool:
    """Return whether a setting has its type, and the view `runs` can hold it."""
    if type(value).__name__ != field.type:
        return False
    return not isinstance(value, int) or abs(value) < 2 ** (63 if field.name == "seed" else 31)


def _nothing(run: Run) -> Mapping[str, Part]:
    return {}


class Run:
    """The run `name` of a store: its record, its batch, its requests, and its computed rows.

    The run need not exist; creating this object reads nothing. Reading raises `HnasError` for damaged files, writing
    raises it if the store cannot be written.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name

    def place(self, *parts: str) -> tuple[str, ...]:
        """Return `parts` below the run's folder, as the methods of `Store` take them."""
        return ("runs", self.name, *parts)

    def path(self, *parts: str) -> str:
        """Return the path of `parts`. See `Store.path`."""
        return self.store.path(*self.place(*parts))

    def exists(self, *parts: str) -> bool:
        """Return whether there is a file or folder at `parts`, or without parts whether the run's folder exists."""
        return self.store.exists(*self.place(*parts))

    def locked(self) -> AbstractContextManager[None]:
        """Hold the run's lock: while a chunk is claimed or stored, or the record changes."""
        return locked(self.store, *self.place())

    @property
    def ntk(self) -> NTKArrays:
        """The spectra and Gram matrices."""
        from hnas.pipeline.store.ntk_arrays import NTKArrays  # imported late, because Zarr is slow to import

        return NTKArrays(self.store, self.name)

    # --- run.json

    @property
    def recorded(self) -> bool:
        """Whether the run has its record; without it, nothing else counts."""
        return self.exists(RECORD)

    def read_record(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        return self.store.read_json(*self.place(RECORD))

    def write_record(self, record: dict[str, Any]) -> None:
        """Write `run.json`."""
        self.store.write_json(record, *self.place(RECORD))

    def listing_parts(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return `record` with the names of the parts that list architectures, by folder.

        The names reveal a lost part, without which the run would look smaller and finished. A lost part of `requests/`
        stays listed, because its content is known nowhere else.
        """
        parts = {name: set(self.store.files(*folder)) for name, folder in self._listed(record).items()}
        parts["requests"] |= set(record.get("requests", []))
        return {**record, **{name: sorted(names) for name, names in parts.items()}}

    def lost_parts(self, record: dict[str, Any]) -> list[tuple[str, ...]]:
        """Return the parts that `record` lists and the store lacks, as the methods of `Store` take them."""
        return [
            (*folder, part)
            for name, folder in self._listed(record).items()
            for part in sorted(set(record.get(name, [])) - set(self.store.files(*folder)))
        ]

    def _listed(self, record: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        return {"requests": self.place("requests"), "architectures": ("architectures", self.settings_in(record).space)}

    def read_settings(self) -> RunSettings:
        """Return the settings in the record. Raises `HnasError` if they are not this run's."""
        return self.settings_in(self.read_record())

    def settings_in(self, record: dict[str, Any]) -> RunSettings:
        """Return the settings in `record`, as `read_settings`."""
        where = f"runs/{self.name}/{RECORD} in {self.store.location}"
        try:
            settings = RunSettings(**record.get("settings"))  # type: ignore[arg-type]
        except TypeError as error:
            raise HnasError(f"{where} has settings that this hnas does not know: {error}") from error
        wrong = [field.name for field in fields(settings) if not _fits(getattr(settings, field.name), field)]
        if wrong:
            raise HnasError(
                f"{where} was damaged after it was written: {wrong[0]} is {getattr(settings, wrong[0])!r}; restore it, "
                "or remove the run and precompute it again"
            )
        if settings.id != self.name:
            raise HnasError(
                f"{where} has the settings of run {settings.id}; a run is named by its settings, so restore it, or "
                "remove the run and precompute it again"
            )
        return settings

    def create(self, settings: RunSettings, batch: Batch) -> None:
        """Write the record and the batch, or if they exist, verify them before anything is computed."""
        with self.locked():
            recorded = self.recorded
            if recorded:
                self.settings_in(self.read_record())
            self.keep_images("batch.npz", batch)
            if not recorded:
                record = {"id": self.name, "created": now(), "settings": asdict(settings), **provenance()}
                self.write_record({**record, "sessions": []})

    def add_session(self, session: dict[str, Any]) -> None:
        """Add to the record how one `precompute` computed its share of the run."""
        with self.locked():
            record = self.read_record()
            self.write_record({**record, "sessions": [*record.get("sessions", []), session]})

    # --- batch.npz

    def batch(self, expected: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return images (m, 3, S, S) float32 and labels (m,) int64; `expected` is their digest (default: the record's).

        Raises `HnasError` if they are missing, damaged, or belong to another run.
        """
        return self.images("batch.npz", self.read_settings().batch if expected is None else expected)

    def images(self, name: str, expected: str) -> tuple[np.ndarray, np.ndarray]:
        """Return images and labels of the file `name`, whose digest is `expected`. Raises the errors of `batch`."""
        path = self.path(name)
        content = self.store.read_bytes(*self.place(name))
        try:
            with ZipFile(io.BytesIO(content)) as archive:
                # hnas writes without compression, so a file that claims to hold more than its own size is foreign.
                if sum(member.file_size for member in archive.infolist()) > len(content):
                    raise ValueError("it is compressed")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                images, labels = arrays["images"], arrays["labels"]
            actual = batch_digest(images, labels)
        except _NO_ARRAYS as error:
            raise HnasError(f"{path} is damaged ({error}); delete it, and the same command writes it again") from error
        if actual != expected:
            raise HnasError(
                f"{path} does not hold the images of run {self.name}; delete it, and the same command writes it again"
            )
        return images, labels

    def keep_images(self, name: str, batch: Batch) -> None:
        """Write a batch to the file `name`, or if it exists, verify it. Raises the errors of `batch`."""
        if self.exists(name):
            self.images(name, batch.digest)
            return
        buffer = io.BytesIO()
        np.savez(buffer, images=batch.images, labels=batch.labels)
        self.store.write_bytes(buffer.getvalue(), *self.place(name))

    # --- requests/

    def requests(self) -> dict[str, str]:
        """Return the requested architectures with their canonical forms, in the order of their parts."""
        table = self.store.read_tables(["arch", "canonical"], *self.place("requests"))
        return dict(zip(table["arch"].to_pylist(), table["canonical"].to_pylist(), strict=True)) if table else {}

    def request(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Add those of `pairs`, of an architecture and its canonical form, that were not requested yet.

        Their static columns must already be in the store, because the record lists those parts as well.
        """
        write_missing(self.store, pairs, None, *self.place("requests"))
        record = self.read_record()
        if (listing := self.listing_parts(record)) != record:
            self.write_record(listing)

    # --- metrics/

    def parts(self) -> list[str]:
        """Return the names of the parts, sorted."""
        return self.store.files(*self.place("metrics"))

    def has_part(self, name: str) -> bool:
        """Return whether the part of that name is stored."""
        return self.exists("metrics", name)

    def read_part(self, columns: list[str], name: str) -> pa.Table:
        """Return columns of one part."""
        return self.store.read_table(columns, *self.place("metrics", name))

    def write_part(self, table: pa.Table, name: str, notes: dict[bytes, bytes] | None = None) -> None:
        """Store a part, with `notes` in its file's metadata; its rows count from then on."""
        self.store.write_table(table, *self.place("metrics", name), notes=notes)

    def stored(self, before: Stored | None = None, claimed: Callable[[Run], Mapping[str, Part]] = _nothing) -> Stored:
        """Return everything stored, given `before` from an earlier call.

        `claimed` returns the logged content of parts; others are opened, which takes about 0.3 ms each.
        """
        before = before or Stored()
        new = set(self.parts()) - before.parts
        logged = claimed(self) if new else {}
        classes: set[str] = set()
        rows: set[int] = set()
        for name in sorted(new):
            if (part := logged.get(name)) is not None:
                classes |= set(part.classes)
                rows |= set(range(part.row, part.row + len(part.classes)))
            else:
                table = self.read_part(["canonical", "ntk_row"], name)
                classes |= set(table["canonical"].to_pylist())
                rows |= set(table["ntk_row"].to_pylist())
        return Stored(before.parts | new, before.classes | classes, before.rows | rows)

    def lost(self, stored: Stored) -> list[tuple[int, tuple[str, ...]]]:
        """Return the rows of `ntk.zarr` with missing eigenvalues, as after an interrupted copy.

        For each affected block, gives its first row and its classes in order. If nothing is lost, this lists a single
        folder.
        """
        blocks = self.ntk.lost(stored.rows) if stored.rows else []
        if not blocks:
            return []
        rows: dict[int, str] = {}
        for name in sorted(stored.parts):
            table = self.read_part(["canonical", "ntk_row"], name)
            rows |= dict(zip(table["ntk_row"].to_pylist(), table["canonical"].to_pylist(), strict=True))
        return [(block.start, tuple(rows[row] for row in block if row in rows)) for block in blocks]


def runs_of(store: Store) -> list[Run]:
    """Return the runs of a store, including those without a record, sorted by name."""
    return [Run(store, name) for name in store.folders("runs")]
