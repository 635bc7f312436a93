"""`open_dataset`: finds a data set, recognises its layout, and checks its labels and image size."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.pipeline.images import cifar, folders, imagenet16, parquet
from hnas.pipeline.images.dataset import ImageDataset, Split
from hnas.pipeline.images.digits import read_digits
from hnas.pipeline.images.pixels import StoredDataset, StoredSplit, decode
from hnas.pipeline.io.dataset_names import canonical_dataset, dataset_name
from hnas.pipeline.io.input_files import regular_file
from hnas.pipeline.io.printable import printable

DATA_VARIABLE = "HNAS_DATA"
DEFAULT_DATA = "data/downloads"
NAMED = ("cifar10", "cifar100", "imagenet16-120")
_LAYOUTS = (
    "Parquet files train-*.parquet with an image and a label column, class folders such as cat/*.png and dog/*.png "
    "(or train/ and test/ or valid/ with class folders in them), CIFAR's Python batches, or ImageNet16's"
)
_SIZES = (4, 1024)


def open_dataset(spec: str, *, image_size: int | None = None) -> ImageDataset:
    """Open the data set that `spec` names: read its labels, and decode no image but the first.

    `spec` is `digits` (ships with scikit-learn); `cifar10`, `cifar100` or `imagenet16-120`, in any spelling such as
    `CIFAR-10` (a folder of that name under $HNAS_DATA or data/downloads, where `hnas fetch` puts it); or a path to
    Hugging Face Parquet, class folders, or CIFAR's or ImageNet16's Python batches, recognised by their content. A data
    set given by path is named after its folder, or after its file without the suffix, in lower case.

    With `image_size`, every image is resized to image_size × image_size pixels (bilinear). Without it, all images must
    be square and of one size, which is checked whenever an image is read.

    Raises `UsageError` for an unknown name, a path that does not exist or has none of these layouts, a single class,
    an `image_size` outside 4..1024, or a first image that is not square if no `image_size` is given. Raises `HnasError`
    for a file that cannot be read, or training labels other than 0..classes-1.
    """
    smallest, largest = _SIZES
    if image_size is not None and not smallest <= image_size <= largest:
        raise UsageError(f"the image size must be between {smallest} and {largest} pixels, got {image_size}")
    spec = _known_name(spec)
    if spec == "digits":
        return _dataset("digits", read_digits(), image_size, "digits")
    try:
        path = _located(spec)
        name = _utf8(dataset_name(str(path)), path)
        stored = _read(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~name for an unknown user
        reason = getattr(error, "strerror", None) or error
        raise HnasError(
            f"the data set {printable(spec)} cannot be read ({reason}); give a readable file or folder"
        ) from error
    return _dataset(name, stored, image_size, printable(path))


def _known_name(spec: str) -> str:
    """Return the canonical name if `spec` is a spelling of it and no file lies at that path; otherwise `spec`."""
    name = canonical_dataset(spec)
    recognised = name in ("digits", *NAMED)
    return name if recognised and (spec == name or not Path(spec).exists()) else spec


def data_folder() -> Path:
    """Return the folder that holds data sets by name: $HNAS_DATA or data/downloads."""
    return Path(os.environ.get(DATA_VARIABLE) or DEFAULT_DATA).expanduser()


def _utf8(name: str, path: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{printable(path)} has a name that is not UTF-8, so its data set would have that name too; rename it, or "
            "give a link to it"
        ) from error
    return name


def _located(spec: str) -> Path:
    if spec in NAMED:
        where = data_folder() / spec
        if where.is_dir():
            return where
        raise UsageError(
            f"the data set {spec} was not found: there is no folder {printable(where)}; run `hnas fetch {spec}`, "
            f"put it at ${DATA_VARIABLE}/{spec} as {_LAYOUTS}, or give its path instead of its name"
        )
    path = Path(os.path.abspath(Path(spec).expanduser()))  # noqa: PTH100 (resolve() would replace a link's name)
    if not spec or not path.exists():
        raise UsageError(
            f"there is no data set at {printable(spec) or 'an empty path'}; "
            f"give digits, {', '.join(NAMED)}, or the path of an existing file or folder"
            f"{did_you_mean(spec, ('digits', *NAMED))}"
        )
    regular_file(path, "a file or a folder with a data set")
    return path


def _read(path: Path) -> StoredDataset:
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return parquet.read_file(path)
        raise UsageError(f"{printable(path)} is not a .parquet file; a data set is one of {_LAYOUTS}")
    for read in (parquet.read_folder, cifar.read_folder, imagenet16.read_folder, folders.read_folder):
        stored = read(path)
        if stored is not None:
            return stored
    raise UsageError(f"{printable(path)} holds no data set in a known layout, one of {_LAYOUTS}")


def _dataset(name: str, stored: StoredDataset, image_size: int | None, where: str) -> ImageDataset:
    train = stored.train
    if not len(train.labels):
        raise UsageError(f"{where} has no training images; give at least one of each class")
    classes = stored.classes or _numbered(train)
    _check_range(train, classes)
    present = np.unique(train.labels)
    if len(present) < 2:
        raise UsageError(
            f"{where} has training images of one class only ({printable(classes[int(present[0])])}); "
            "give two or more classes"
        )
    test = next((split for split in stored.tests if len(split.labels) and (split.labels != -1).any()), None)
    if test is not None:
        _check_range(test, classes)
    size = image_size or _first_size(train)
    resized = image_size is not None
    return ImageDataset(
        name,
        classes,
        train=Split(train.labels, train.source, size, resized),
        test=Split(test.labels, test.source, size, resized) if test else None,
        size=size,
    )


def _numbered(train: StoredSplit) -> tuple[str, ...]:
    """Return the names 0..K-1 for classes that the files do not name; then every label must occur."""
    present = np.unique(train.labels[train.labels >= 0])
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        row = _first(train.labels == present[gaps[0]])
        raise HnasError(
            f"{train.source.where(row)} has the label {present[gaps[0]]} but no training image has {gaps[0]}; "
            "labels must be 0 to K-1 without gaps"
        )
    return tuple(str(label) for label in range(len(present)))


def _check_range(split: StoredSplit, classes: tuple[str, ...]) -> None:
    wrong = (split.labels < 0) | (split.labels >= len(classes))
    if wrong.any():
        row = _first(wrong)
        label = int(split.labels[row])
        problem = "has no label (null or -1)" if label == -1 else f"has the label {label}"
        right = f"0 to {len(classes) - 1}, one of {len(classes)} classes" if classes else "0 or larger"
        raise HnasError(f"{split.source.where(row)} {problem}; labels must be {right}")


def _first(mask: np.ndarray) -> int:
    return int(np.argmax(mask))


def _first_size(train: StoredSplit) -> int:
    first = next(train.source.read(np.zeros(1, dtype=np.int64)))
    height, width = decode(first, partial(train.source.where, 0)).shape[1:]
    smallest, largest = _SIZES
    if height != width or not smallest <= height <= largest:
        raise UsageError(
            f"{train.source.where(0)} has {width}x{height} pixels; it must be a square of {smallest} to {largest} "
            "pixels: pass --image-size to bring all images to one size"
        )
    return int(height)
