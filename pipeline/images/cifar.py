"""CIFAR-10's and CIFAR-100's Python batches, which are pickles, read without running anything that they ask for.

A pickle is a program that calls what it names. Here the few names that occur in such a file resolve to stand-ins that
only remember their arguments, and everything else is refused. A file can reach neither Python's functions nor numpy's
own unpickling, whose C code trusts the state of a dtype.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from hnas.errors import HnasError, UsageError
from hnas.pipeline.images.pixels import PixelRows, StoredDataset, StoredSplit
from hnas.pipeline.io.printable import printable

_SIDE = 32


@dataclass(frozen=True)
class _Layout:
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    names: bytes


_LAYOUTS = (
    _Layout(
        archive="cifar-10-batches-py",
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels=b"labels",
        names=b"label_names",
    ),
    _Layout("cifar-100-python", ("train",), "test", "meta", b"fine_labels", b"fine_label_names"),
)


def read_folder(folder: Path) -> StoredDataset | None:
    """Return the data set; None if neither `folder` nor the subfolder of CIFAR's archive holds two or more batch files.

    Keeps the pixels in memory: 150 MB for the training split of either data set.

    Raises `UsageError` if some batches are missing, and `HnasError` if a batch is truncated, asks for anything but
    numpy arrays, or holds something other than images.
    """
    for layout in _LAYOUTS:
        needed = (*layout.train, layout.test, layout.meta)
        place = find_files(folder, layout.archive, needed, "CIFAR's Python batches are")
        if place is not None:
            return _read(place, layout)
    return None


def find_files(folder: Path, archive: str, needed: tuple[str, ...], title: str) -> Path | None:
    """Return `folder` or its subfolder `archive`, whichever holds all `needed` files; None if neither holds two.

    One file is not enough, because a folder of another layout may hold a file called train or meta. Raises `UsageError`
    if some files are missing.
    """
    for place in (folder, folder / archive):
        missing = [name for name in needed if not (place / name).is_file()]
        if len(needed) - len(missing) >= 2:
            if missing:
                raise UsageError(f"{printable(place)} lacks {', '.join(missing)}; {title} {', '.join(needed)}")
            return place
    return None


def _read(folder: Path, layout: _Layout) -> StoredDataset:
    meta = folder / layout.meta
    names = _entry(load_batch(meta), layout.names, meta)
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
        raise HnasError(
            f"{printable(meta)} holds no list of class names under {layout.names.decode()}; get the file again"
        )
    classes = tuple(name.decode("utf-8", errors="replace") for name in names)
    train = _split(folder, layout.train, layout)
    return StoredDataset(classes, train, (_split(folder, (layout.test,), layout),))


def _split(folder: Path, names: tuple[str, ...], layout: _Layout) -> StoredSplit:
    pixels, labels, files = [], [], []
    count = 0
    for path in (folder / name for name in names):
        batch = load_batch(path)
        data = numbers(_entry(batch, b"data", path))
        if not are_images(data, _SIDE):
            raise HnasError(f"{printable(path)} must hold uint8 rows of {3 * _SIDE**2} pixels; get the file again")
        targets = checked_labels(numbers(_entry(batch, layout.labels, path)), len(data), path)
        files.append((printable(path), count))
        count += len(data)
        pixels.append(data.reshape(-1, 3, _SIDE, _SIDE))
        labels.append(targets.astype(np.int64))
    return StoredSplit(np.concatenate(labels), PixelRows(np.concatenate(pixels), tuple(files)))


def are_images(data: np.ndarray | None, side: int) -> TypeGuard[np.ndarray]:
    """Return whether `data` (n, 3 side²) holds uint8 rows of pixels."""
    return data is not None and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3 * side**2


def checked_labels(labels: np.ndarray | None, count: int, path: Path) -> np.ndarray:
    """Return `labels` (count,). Raises `HnasError` unless they are integers, one for each image."""
    if labels is None or labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise HnasError(
            f"{printable(path)} must hold one integer label for each of its {count} images; get the file again"
        )
    return labels


def _entry(batch: dict[Any, Any], key: bytes, path: Path) -> Any:
    if key not in batch:
        raise HnasError(f"{printable(path)} has no entry {key.decode()}; give a file of CIFAR's Python batches")
    return batch[key]


def load_batch(path: Path) -> dict[Any, Any]:
    """Return the dictionary in a batch or meta file; its keys are bytes, as Python 2 wrote them.

    Raises `HnasError` if the file is not a complete pickle of a dictionary, or asks for any global other than the few
    that build numpy arrays. Such a global is neither imported nor called.
    """
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, path).load()
    except (HnasError, OSError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise HnasError(
            f"{printable(path)} is not a complete pickle ({printable(str(error)) or type(error).__name__}); "
            "get the file of CIFAR's Python batches again"
        ) from error
    if not isinstance(batch, dict):
        raise HnasError(f"{printable(path)} holds no dictionary; give a file of CIFAR's Python batches")
    return batch


class _Dtype:
    """Stands in for numpy.dtype; `code` is type and size, such as u1."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order


class _Array:
    """Stands in for numpy.ndarray."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _latin1(text: str, encoding: str) -> bytes:
    # Protocol 2 writes bytes as a call of this function. Other codecs could expand without bound or import modules.
    if encoding != "latin1":
        raise ValueError(f"the encoding {encoding}")
    return text.encode("latin1")


def numbers(value: object) -> np.ndarray | None:
    """Return the array given as an array or list in a batch; None if it is neither, or does not hold integers."""
    try:
        if isinstance(value, list):
            # Integers only: nested references to one list, a few bytes in a pickle, could expand without bound.
            return np.array(value) if all(type(item) is int for item in value) else None
        if not isinstance(value, _Array) or value.dtype.code[0] not in "iu":
            return None
        flat = np.frombuffer(value.content, dtype=np.dtype(value.dtype.order + value.dtype.code))
        return flat.reshape(value.shape, order="F" if value.fortran else "C")
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError):
        return None


_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _latin1,
}


# The pure-Python unpickler: the C one allocates a memo of 2³¹ slots if a few bytes of a file ask for it.
class _ArrayUnpickler(pickle._Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise HnasError(
                f"{printable(self.path)} asks for {printable(f'{module}.{name}')}, which was refused and not run; "
                "hnas reads only the numpy arrays of CIFAR's Python batches from a pickle"
            ) from None
