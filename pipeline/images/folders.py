"""A folder of class folders (cat/*.png, dog/*.jpg), or of split folders such as train/ and test/ with class folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hnas.errors import HnasError, UsageError
from hnas.pipeline.images.pixels import SUFFIXES, Indices, StoredDataset, StoredSplit
from hnas.pipeline.images.splits import KNOWN, TEST, TRAIN, VALIDATION, by_role, looks_like_a_split, role
from hnas.pipeline.io.input_files import regular_file
from hnas.pipeline.io.printable import printable

_MOST_BYTES = 2**28
# Formats that are not decoded. Skipping such files silently would change the data set.
_FOREIGN = (".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".tga", ".exr", ".dng", ".svg")


@dataclass(frozen=True)
class ImageFiles:
    """A source with one image per file. Paths are text, since there may be millions."""

    paths: tuple[str, ...]

    def where(self, index: int) -> str:
        return printable(self.paths[index])

    def read(self, indices: Indices) -> Iterator[bytes]:
        for index in indices.tolist():
            yield read_image_file(self.paths[index])


def read_image_file(path: str) -> bytes:
    """Return the bytes of an image file. Raises `HnasError` if it cannot be read, or is too large to be an image."""
    try:
        file = Path(path)
        regular_file(file, "an image file")
        if file.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{printable(path)} has more than {_MOST_BYTES:,} bytes; make it smaller")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HnasError(f"{printable(path)} cannot be read ({reason}); give a readable image file") from error


def is_picture(name: str) -> bool:
    """Return whether a file has an image suffix, of a supported format or not."""
    return os.path.splitext(name)[1].lower() in (*SUFFIXES, *_FOREIGN)  # noqa: PTH122 (there may be millions)


@dataclass(frozen=True)
class _Folder:
    """The content of a folder, sorted by name, without hidden files; `fault` is why it cannot be a class folder."""

    path: Path
    folders: tuple[str, ...]
    images: tuple[str, ...]
    fault: str | None

    @property
    def shown(self) -> str:
        return printable(self.path)

    @property
    def subfolders(self) -> list[_Folder]:
        return [_scan(self.path / name) for name in self.folders]

    @property
    def holds_classes(self) -> bool:
        return any(folder.images for folder in self.subfolders)


def read_folder(folder: Path) -> StoredDataset | None:
    """Return the data set; None if `folder` has no class folders. Classes and files are sorted by name.

    Raises `UsageError` for a class folder that is empty or holds subfolders or files other than images; for a class
    that only the test split has; and for folders named like a split that are none, or two folders for the same split.
    """
    root = _scan(folder)
    shown = root.shown
    # A class may be called train: a split contains folders, a class contains images.
    named = {name: _scan(folder / name) for name in root.folders if role(name)}
    splits = by_role({name: inner for name, inner in named.items() if inner.folders}, shown)
    train = splits.pop(TRAIN, None)
    if train is not None:
        if not splits:
            _no_other_split(root)
        classes = train.subfolders
    else:
        for inner in splits.values():
            if inner.holds_classes:
                raise UsageError(f"{inner.shown} is a split, but {shown} has no training split; add a folder train")
        classes = root.subfolders
        _no_split_among(classes, shown)
    if not any(inner.images for inner in classes):
        return None
    names = tuple(inner.path.name for inner in classes)
    tests = [splits[meant].subfolders for meant in (TEST, VALIDATION) if train is not None and meant in splits]
    return StoredDataset(names, _split(classes, names), tuple(_split(inner, names) for inner in tests))


def _no_other_split(root: _Folder) -> None:
    """Raise `UsageError` if a folder next to the training split holds classes but is not named like a split."""
    for name in root.folders:
        if role(name) is None and _scan(root.path / name).holds_classes:
            raise UsageError(
                f"{root.shown} holds class folders in {printable(name)}, whose name is not that of a split; call it "
                "test or validation, or move it elsewhere"
            )


def _no_split_among(classes: list[_Folder], shown: str) -> None:
    """Raise `UsageError` if images that are not sorted into classes would become a class called test."""
    named = [inner for inner in classes if inner.images and looks_like_a_split(inner.path.name)]
    # train may be one class among others, but test or val is never a class.
    alone = [inner for inner in named if role(inner.path.name) != TRAIN or len(named) == len(classes)]
    if alone:
        raise UsageError(
            f"{alone[0].shown} is named like a split but holds images without class folders; in a folder called "
            f"{KNOWN}, put images into one folder per class; rename it if it is a class, or move it out of {shown}"
        )


def _split(class_folders: list[_Folder], names: tuple[str, ...]) -> StoredSplit:
    paths: list[str] = []
    labels: list[int] = []
    for folder in class_folders:
        if folder.path.name not in names:
            raise UsageError(
                f"{folder.shown} is a class of the test split only; add a folder of that class to the training split"
            )
        if folder.fault:
            raise UsageError(folder.fault)
        if folder.folders:
            nested = printable(folder.path / folder.folders[0])
            raise UsageError(f"{nested} is a folder inside a class folder; put its images directly into {folder.shown}")
        if not folder.images:
            raise UsageError(
                f"the class folder {folder.shown} holds no images; remove it or add {', '.join(SUFFIXES)} files"
            )
        paths += [os.path.join(folder.path, name) for name in folder.images]  # noqa: PTH118 (there may be millions)
        labels += [names.index(folder.path.name)] * len(folder.images)
    return StoredSplit(np.array(labels, dtype=np.int64), ImageFiles(tuple(paths)))


def _scan(folder: Path) -> _Folder:
    folders, images, faults = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (there may be millions)
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif suffix in SUFFIXES:
                images.append(entry.name)
                if not entry.is_file():
                    faults.append(f"{printable(entry.path)} is not a regular file; give an image file")
            elif suffix in _FOREIGN:
                faults.append(f"{printable(entry.path)} has an unsupported format; convert it to PNG or JPEG")
    return _Folder(folder, tuple(sorted(folders)), tuple(sorted(images)), min(faults, default=None))
