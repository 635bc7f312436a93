"""The handwritten digits that ship with scikit-learn: 1,797 grey images of 8 × 8 pixels, no download."""

from __future__ import annotations

from importlib.metadata import distribution

import numpy as np

from hnas.pipeline.images.dataset import shuffled
from hnas.pipeline.images.pixels import Labels, PixelRows, StoredDataset, StoredSplit

_TEST_IMAGES = 297
_SPLIT_SEED = 0


def read_digits() -> StoredDataset:
    """Return 1,500 training and 297 test images (3, 8, 8) with equal class proportions.

    Grey levels 0..16 become 0..255, the same in all three channels.
    """
    # The file of `sklearn.datasets.load_digits`, read without importing scikit-learn, which takes as long as torch.
    file = str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz"))
    stored = np.loadtxt(file, dtype=np.int64, delimiter=",")
    grey, labels = stored[:, :-1].reshape(-1, 8, 8), stored[:, -1]
    pixels = np.repeat(((grey * 255 + 8) // 16).astype(np.uint8)[:, None], 3, axis=1)
    test = _stratified(labels, _TEST_IMAGES)
    train = np.setdiff1d(np.arange(len(labels)), test)
    splits = [
        StoredSplit(labels[rows], PixelRows(pixels[rows], ((f"digits ({split})", 0),)))
        for rows, split in ((train, "training split"), (test, "test split"))
    ]
    return StoredDataset(tuple(str(digit) for digit in range(10)), splits[0], (splits[1],))


def _stratified(labels: Labels, size: int) -> np.ndarray:
    """Return `size` sorted rows with the class proportions of `labels`, rounded by largest remainder."""
    counts = np.bincount(labels)
    exact = counts * size / len(labels)
    quotas = np.floor(exact).astype(np.int64)
    largest = np.argsort(quotas - exact, kind="stable")[: size - quotas.sum()]
    quotas[largest] += 1
    order = shuffled(len(labels), _SPLIT_SEED)
    return np.sort(np.concatenate([order[labels[order] == label][:quota] for label, quota in enumerate(quotas)]))
