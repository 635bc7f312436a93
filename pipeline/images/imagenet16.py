"""ImageNet16-120: the first 120 classes of ImageNet at 16 × 16 pixels, from the files of downsampled ImageNet.

The files are pickles like CIFAR's and are read just as safely. Labels run from 1 to 1000; NAS-Bench-201 trains on the
first 120 of them and tests on the validation file.

Source: Chrabaszcz, Loshchilov and Hutter, "A Downsampled Variant of ImageNet as an Alternative to the CIFAR datasets",
2017; Dong and Yang, "NAS-Bench-201", ICLR 2020.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hnas.errors import HnasError
from hnas.pipeline.images.cifar import are_images, checked_labels, find_files, load_batch, numbers
from hnas.pipeline.images.pixels import PixelRows, StoredDataset, StoredSplit
from hnas.pipeline.io.printable import printable

CLASSES = 120
FOLDER = "ImageNet16"

_SIDE = 16
_TRAIN = tuple(f"train_data_batch_{number}" for number in range(1, 11))
_TEST = "val_data"


def read_folder(folder: Path) -> StoredDataset | None:
    """Return the data set; None if neither `folder` nor a subfolder ImageNet16 holds two or more of the files.

    Keeps the pixels of the 120 classes in memory, 116 MB, and reads one file of 98 MB at a time.

    Raises `UsageError` if some files are missing, and `HnasError` if a file is truncated, asks for anything but numpy
    arrays, or holds something other than images.
    """
    place = find_files(folder, FOLDER, (*_TRAIN, _TEST), "ImageNet16 is")
    if place is None:
        return None
    names = tuple(str(label) for label in range(CLASSES))
    return StoredDataset(names, _split(place, _TRAIN), (_split(place, (_TEST,)),))


def _split(folder: Path, names: tuple[str, ...]) -> StoredSplit:
    pixels, labels, files = [], [], []
    count = 0
    for path in (folder / name for name in names):
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in load_batch(path).items()}
        data = numbers(batch.get("data"))
        if not are_images(data, _SIDE):
            raise HnasError(
                f"{printable(path)} has no uint8 rows of {3 * _SIDE**2} pixels under data; get the file again"
            )
        targets = checked_labels(numbers(batch.get("labels")), len(data), path)
        if len(targets) and not 1 <= int(targets.min()) <= int(targets.max()) <= 1000:
            raise HnasError(f"{printable(path)} has labels outside 1 to 1000; give a file of downsampled ImageNet")
        kept = targets <= CLASSES
        files.append((printable(path), count))
        count += int(kept.sum())
        pixels.append(data[kept].reshape(-1, 3, _SIDE, _SIDE))
        labels.append(targets[kept].astype(np.int64) - 1)
    return StoredSplit(np.concatenate(labels), PixelRows(np.concatenate(pixels), tuple(files)))
