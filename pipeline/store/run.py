"""Runs: the settings that determine a table of metrics, and the name that they give it."""

from __future__ import annotations

import io
import json
import platform
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from hnas import __version__
from hnas.errors import HnasError
from hnas.pipeline.io.checksums import batch_digest
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.store import Store, digest

if TYPE_CHECKING:
    from hnas.pipeline.images import Batch


@dataclass(frozen=True)
class RunSettings:
    """Everything that determines the numbers of a run. Equal settings are one run, on whatever machine."""

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

    @property
    def id(self) -> str:
        """The run's name: ten hexadecimal digits of a digest of the settings."""
        return digest(json.dumps(asdict(self), sort_keys=True), size=5)

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, as `run.json` has them."""
        return asdict(self)


def run_or_mean(run: str, runs: Sequence[str]) -> str:
    """What numbers are of, in words: `run`, or the mean of `runs` where there are any."""
    return f"the mean of runs {', '.join(runs)}" if runs else f"run {run}"


def provenance() -> dict[str, Any]:
    """Versions and host, for `run.json`: what may explain a difference in the last digits."""
    packages = ("torch", "numpy", "dask", "zarr", "duckdb", "pyarrow")
    versions = {"hnas": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}
    return {
        "versions": versions,
        "host": {"system": platform.platform(), "processor": platform.machine()},
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def open_run(store: Store, settings: RunSettings, batch: Batch) -> str:
    """Create the run in the store unless it is there, and return its name."""
    run = settings.id
    with locked(store, "runs", run):
        known = store.exists("runs", run, "run.json")
        if known:
            read_settings(store, run)  # a damaged record is told before anything is computed
        if store.exists("runs", run, "batch.npz"):
            load_batch(store.location, run, settings.batch)  # and so is a batch of other images
        else:
            buffer = io.BytesIO()
            np.savez(buffer, images=batch.images, labels=batch.labels)
            store.write_bytes(buffer.getvalue(), "runs", run, "batch.npz")
        if not known:
            store.write_json(
                {"id": run, "created": now(), "settings": asdict(settings), **provenance(), "sessions": []},
                "runs", run, "run.json",
            )  # fmt: skip
    return run


def read_settings(store: Store, run: str) -> RunSettings:
    """The settings of a stored run. Raises `HnasError` where `run.json` is damaged, another run's, or of another
    version."""
    return settings_of(store.read_json("runs", run, "run.json"), store, run)


def settings_of(record: dict[str, Any], store: Store, run: str) -> RunSettings:
    """The settings in the record of a run, whose name they give. Raises `HnasError` where they are not its own."""
    try:
        settings = RunSettings(**record.get("settings"))  # type: ignore[arg-type]
    except TypeError as error:
        raise HnasError(
            f"runs/{run}/run.json in {store.location} has settings this hnas does not know: {error}"
        ) from error
    wrong = [field.name for field in fields(settings) if type(getattr(settings, field.name)).__name__ != field.type]
    if wrong:
        raise HnasError(
            f"runs/{run}/run.json in {store.location} was damaged after it was written: {wrong[0]} is "
            f"{getattr(settings, wrong[0])!r}; restore it, or remove the run and precompute it again"
        )
    if settings.id != run:
        raise HnasError(
            f"runs/{run}/run.json in {store.location} has the settings of run {settings.id}; a run is named by its "
            "settings, so restore it, or remove the run and precompute it again"
        )
    return settings


def record_session(store: Store, run: str, session: dict[str, Any]) -> None:
    """Add to `run.json` how one `precompute` computed its share of the run."""
    with locked(store, "runs", run):
        content = store.read_json("runs", run, "run.json")
        content["sessions"] = [*content.get("sessions", []), session]
        store.write_json(content, "runs", run, "run.json")


def load_batch(location: str, run: str, expected: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The run's images (m, 3, S, S) float32 and labels (m,) int64; `expected` is their digest, by default `run.json`'s.

    Raises `HnasError` where they are missing, damaged, or another run's.
    """
    store = Store(location)
    path = store.path("runs", run, "batch.npz")
    if expected is None:
        expected = read_settings(store, run).batch
    content = store.read_bytes("runs", run, "batch.npz")
    try:
        with ZipFile(io.BytesIO(content)) as archive:
            # Written without compression: a file that says it holds more than its own size was made by someone else.
            if sum(member.file_size for member in archive.infolist()) > len(content):
                raise ValueError("it is compressed")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        found = batch_digest(images, labels)
    except (ValueError, OSError, EOFError, KeyError, MemoryError, NotImplementedError, BadZipFile, zlib.error) as error:
        raise HnasError(f"{path} is damaged ({error}); delete it, and the same command writes it again") from error
    if found != expected:
        raise HnasError(
            f"{path} holds other images than those of run {run}; delete it, and the same command writes it again"
        )
    return images, labels
