"""A folder of class folders (cat/*.png, dog/*.jpg), or train/ and test/ (or val/) with class folders in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hnas.errors import HnasError, UsageError
from pipeline.images.pixels import SUFFIXES, Indices, StoredDataset, StoredSplit

_TEST_NAMES = ("test", "val", "validation")


@dataclass(frozen=True)
class ImageFiles:
    """A source with one image a file."""

    paths: tuple[Path, ...]

    def where(self, index: int) -> str:
        return str(self.paths[index])

    def read(self, indices: Indices) -> Iterator[bytes]:
        for index in indices.tolist():
            try:
                yield self.paths[index].read_bytes()
            except OSError as error:
                raise HnasError(
                    f"{self.paths[index]} cannot be read ({error.strerror}): a readable image file is needed."
                ) from error


def read_folder(folder: Path) -> StoredDataset | None:
    """None where `folder` holds no class folders. Classes and files are sorted by name.

    Raises:
        UsageError: a class folder without images or with folders in it, or a class that only the test split has.
    """
    train = folder / "train"
    # A class may be called train: a split has folders in it, a class has images.
    split = train.is_dir() and bool(_subfolders(train))
    classes = _subfolders(train if split else folder)
    if not any(_images(path) for path in classes):
        return None
    names = tuple(path.name for path in classes)
    tests = [_subfolders(folder / name) for name in _TEST_NAMES if split and (folder / name).is_dir()]
    return StoredDataset(names, _split(classes, names), tuple(_split(paths, names) for paths in tests if paths))


def _split(class_folders: list[Path], names: tuple[str, ...]) -> StoredSplit:
    paths: list[Path] = []
    labels: list[int] = []
    for folder in class_folders:
        if folder.name not in names:
            raise UsageError(f"{folder} is a class of the test split only: its images need a folder in train/ too.")
        nested = _subfolders(folder)
        if nested:
            raise UsageError(f"{nested[0]} is a folder inside a class folder: put its images right into {folder}.")
        images = _images(folder)
        if not images:
            raise UsageError(
                f"The class folder {folder} holds no images: remove it or add {', '.join(SUFFIXES)} files."
            )
        paths += images
        labels += [names.index(folder.name)] * len(images)
    return StoredSplit(np.array(labels, dtype=np.int64), ImageFiles(tuple(paths)))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")),
        key=lambda path: path.name,
    )


def _images(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")),
        key=lambda path: path.name,
    )
