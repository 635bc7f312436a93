"""Runs: the settings that determine a table of metrics, and the name that they give it."""

from __future__ import annotations

import io
import json
import platform
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from hnas import __version__
from hnas.errors import HnasError
from pipeline.drivers import locked
from pipeline.store import Store, digest

if TYPE_CHECKING:
    from pipeline.images import Batch


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
        if not store.exists("runs", run, "batch.npz"):
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
    """The settings of a stored run. Raises `HnasError` where `run.json` is damaged or of another version."""
    stored = store.read_json("runs", run, "run.json").get("settings")
    try:
        return RunSettings(**stored)  # type: ignore[arg-type]
    except TypeError as error:
        raise HnasError(
            f"runs/{run}/run.json in {store.location} has settings this hnas does not know: {error}"
        ) from error


def record_session(store: Store, run: str, session: dict[str, Any]) -> None:
    """Add to `run.json` how one `precompute` computed its share of the run."""
    with locked(store, "runs", run):
        content = store.read_json("runs", run, "run.json")
        content["sessions"] = [*content.get("sessions", []), session]
        store.write_json(content, "runs", run, "run.json")


@lru_cache(maxsize=2)
def load_batch(location: str, run: str) -> tuple[np.ndarray, np.ndarray]:
    """The run's images (m, 3, S, S) float32 and labels (m,) int64. A worker reads them once."""
    store = Store(location)
    try:
        content = np.load(io.BytesIO(store.read_bytes("runs", run, "batch.npz")), allow_pickle=False)
        return content["images"], content["labels"]
    except (ValueError, OSError, EOFError, KeyError, BadZipFile, zlib.error) as error:
        path = store.path("runs", run, "batch.npz")
        raise HnasError(f"{path} is damaged ({error}); delete it, and the same command writes it again") from error
