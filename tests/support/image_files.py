"""Image data sets as files, in the layouts that the pipeline reads."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


def write_folder(folder: Path, patches: np.ndarray, classes: tuple[str, ...] = ("cat", "dog", "owl")) -> Path:
    for number, pixels in enumerate(patches):
        place = folder / classes[number % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03}.png").write_bytes(encoded(pixels))
    return folder


def write_parquet(
    path: Path,
    images: list[Any],
    labels: Any,
    *,
    names: list[str] | None = None,
    image: str = "image",
    label: str = "label",
    plain: bool = False,
    **options: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = images if plain else [{"bytes": cell, "path": None} for cell in images]
    table = pa.table({image: pa.array(cells, kind), label: pa.array(labels)})
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}, image: {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)
    return path


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes str and bytes as Python 2 does, and numpy's globals under their old names."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        raw = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)

    dispatch[str] = save_string
    dispatch[bytes] = save_string

    @classmethod
    def dumps(cls, value: object) -> bytes:
        buffer = io.BytesIO()
        cls(buffer, 2).dump(value)
        return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def modern(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)


def renamed(value: object) -> bytes:
    return modern(value).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


NAMES = [f"class {number}" for number in range(10)]


def write_batches(
    folder: Path, images: np.ndarray, labels: list[int], dumps: Callable[[object], bytes] = modern, tests: int = 10
) -> Path:
    """Write images (n, 32, 32, 3) as the files of CIFAR-10; the last `tests` become the test batch."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    parts = [*np.array_split(np.arange(len(rows) - tests), 5), np.arange(len(rows) - tests, len(rows))]
    for name, part in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], parts, strict=True):
        batch = {b"data": rows[part], b"labels": [labels[i] for i in part], b"batch_label": name.encode()}
        (folder / name).write_bytes(dumps(batch))
    (folder / "batches.meta").write_bytes(dumps({b"label_names": [name.encode() for name in NAMES]}))
    return folder
