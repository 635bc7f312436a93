"""The trainings of a store, stored as rows of `accuracies` and `curves` like imports, so that none is repeated.

accuracies/trained-<digest>/<arch>-<rest>.parquet   the result of one training, one row
curves/trained-<digest>/<arch>-<rest>.parquet       its epochs, one row each; written before the result
trainings/trained-<digest>/settings.json            the settings behind the digest: the scale of these accuracies
trainings/trained-<digest>/<arch>-<rest>.checkpoint the checkpoint of a running or interrupted training

Accuracies on one scale are comparable: same space, network size, images and their split, and recipe. `<arch>` is a
digest of the architecture, `<rest>` one of the epochs and of what else determines a training to the bit: seed, device,
threads, precision. A training that diverged has a row without accuracies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import google_crc32c
import pyarrow as pa

from hnas import __version__
from hnas.errors import HnasError
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.manifests import remove_file
from hnas.pipeline.store.run import now
from hnas.pipeline.store.schema import ACCURACIES, SCHEMAS, TRAINED_CURVES
from hnas.pipeline.store.store import Store, digest

FOLDER = "trainings"
PREFIX = "trained-"
SETTINGS = "settings.json"
CHECKPOINT, LOCK = ".checkpoint", ".lock"
_CHECKSUM = 8  # hexadecimal digits at the beginning of a checkpoint


@dataclass(frozen=True)
class Trained:
    """A stored training: percent, seconds, and its epochs as rows of `curves`; if it diverged, without accuracies."""

    train_accuracy: float | None
    valid_accuracy: float | None
    test_accuracy: float | None
    seconds: float
    curve: list[dict[str, Any]]


class Trainings:
    """The trainings with one `scale` in `store`, from one `seed` and with `exact` settings, on the data set `dataset`.

    Both `scale` and `exact` must be JSON-serialisable. Creating this object writes nothing. Raises `HnasError` for
    damaged files, and if the store cannot be written.
    """

    def __init__(
        self,
        store: Store,
        *,
        space: str,
        dataset: str,
        seed: int,
        scale: Mapping[str, Any],
        exact: Mapping[str, Any],
    ) -> None:
        self._store, self._space, self._seed = store, space, seed
        self.dataset = dataset
        self._scale = {"space": space, "dataset": dataset, **scale}
        self._exact = {"seed": seed, **exact}
        #: The source of the rows.
        self.source = PREFIX + digest(_text(self._scale), size=5)

    def find(self, arch: str, epochs: int) -> Trained | None:
        """Return the training of `arch` for `epochs`, or None if the store has none, or lacks its curve."""
        name = f"{self._name(arch, epochs)}.parquet"
        row = self._row(name)
        if row is None or not self._store.exists("curves", self.source, name):
            return None
        curve = self._store.read_table(None, "curves", self.source, name).to_pylist()
        return Trained(**{column: row[column] for column in ACCURACIES}, seconds=row["seconds"], curve=curve)

    def alike(self, arch: str, epochs: int) -> tuple[float | None, float] | None:
        """Return mean validation accuracy and seconds of all trainings of `arch` for `epochs` on this scale.

        Includes all seeds and devices. None if there are none; the accuracy is None if all diverged.
        """
        beginning = f"{digest(arch)}-"
        read = [self._row(name) for name in self._store.files("accuracies", self.source) if name.startswith(beginning)]
        rows = [row for row in read if row is not None and (row["arch"], row["epochs"]) == (arch, epochs)]
        if not rows:
            return None
        values = [row["valid_accuracy"] for row in rows if row["valid_accuracy"] is not None]
        return fmean(values) if values else None, fmean(row["seconds"] for row in rows)

    def count(self) -> int:
        """Return the number of trainings on this scale in the store."""
        return len(self._store.files("accuracies", self.source))

    @contextmanager
    def under_way(self, arch: str, epochs: int) -> Iterator[StoredState]:
        """Lock other processes out of the same training, and yield the place of its state. After a wait, look again."""
        store, name = self._store, self._name(arch, epochs)
        if not store.prepared:
            store.prepare()
        with locked(store, FOLDER, self.source, name=name + LOCK):
            if not store.exists(FOLDER, self.source, SETTINGS):
                content = {"id": self.source, "created": now(), "hnas": __version__, "settings": self._scale}
                store.write_json(content, FOLDER, self.source, SETTINGS)
            yield StoredState(store, FOLDER, self.source, name + CHECKPOINT)

    def keep(self, arch: str, epochs: int, trained: Trained) -> None:
        """Store a finished training and remove its checkpoint."""
        name = self._name(arch, epochs)
        row = {"space": self._space, "arch": arch, "dataset": self.dataset, "epochs": epochs, "seed": self._seed}
        curve = [{**row, **epoch} for epoch in trained.curve]
        place = (self.source, f"{name}.parquet")
        self._store.write_table(pa.Table.from_pylist(curve, schema=TRAINED_CURVES), "curves", *place)
        row |= {column: getattr(trained, column) for column in (*ACCURACIES, "seconds")}
        self._store.write_table(pa.Table.from_pylist([row], schema=SCHEMAS["accuracies"]), "accuracies", *place)
        self.forget_state(arch, epochs)

    def forget_state(self, arch: str, epochs: int) -> None:
        """Remove the checkpoint of a finished training."""
        remove_file(self._store, FOLDER, self.source, self._name(arch, epochs) + CHECKPOINT)

    def identity(self, arch: str, epochs: int) -> str:
        """Return a name for the training of `arch` for `epochs` that is unique across all stores."""
        return f"{self.source}/{self._name(arch, epochs)}"

    def _name(self, arch: str, epochs: int) -> str:
        return f"{digest(arch)}-{digest(_text({**self._exact, 'epochs': epochs}))}"

    def _row(self, name: str) -> dict[str, Any] | None:
        place = ("accuracies", self.source, name)
        if not self._store.exists(*place):
            return None
        row: dict[str, Any] = self._store.read_table(SCHEMAS["accuracies"].names, *place).to_pylist()[0]
        return row


class StoredState:
    """The file with the state of an unfinished training, protected by a checksum of its path and content."""

    def __init__(self, store: Store, *parts: str) -> None:
        self._store, self._parts = store, parts

    def read(self) -> bytes | None:
        """Return the state, or None if it is missing or damaged; the training then starts anew."""
        with suppress(HnasError):
            content = self._store.read_bytes(*self._parts) if self._store.exists(*self._parts) else b""
            state = content[_CHECKSUM:]
            # Older versions used a checksum of the content alone.
            if content[:_CHECKSUM] in (_checksum(self._place + state), _checksum(state)):
                return state
        return None

    def write(self, state: bytes) -> None:
        """Replace the state atomically; a power failure may lose both."""
        self._store.write_bytes(_checksum(self._place + state) + state, *self._parts, lasting=False)

    @property
    def _place(self) -> bytes:
        return "/".join(self._parts).encode()


def is_trained(source: str) -> bool:
    """Return whether a source consists of trainings made by hnas."""
    return source.startswith(PREFIX)


def trained_sources(store: Store) -> list[str]:
    """Return the sources of trainings, including those without a finished training."""
    return [name for name in store.folders(FOLDER) if is_trained(name)]


def lost_curves(store: Store, source: str) -> list[str]:
    """Return the names of the trainings of `source` without their curve, which was written before their result."""
    return sorted(set(store.files("accuracies", source)) - set(store.files("curves", source)))


def stopped(store: Store, source: str) -> Sequence[str]:
    """Return the names of the checkpoints of running or interrupted trainings of `source`."""
    return store.files(FOLDER, source, suffix=CHECKPOINT)


def _checksum(content: bytes) -> bytes:
    return b"%08x" % google_crc32c.value(content)


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
