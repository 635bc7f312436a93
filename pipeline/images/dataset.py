"""An image data set: labels in memory, pixels on demand, normalisation, and the batch of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from hnas.errors import UsageError
from hnas.pipeline.images.pixels import Indices, Labels, Pixels, Source, decode, resize
from hnas.pipeline.io.checksums import batch_digest

Triple = tuple[float, float, float]

# Mean and standard deviation in grey levels 0..255, as in NAS-Bench-201's training.
_NORMALISATION: dict[str, tuple[Triple, Triple]] = {
    "cifar10": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": ((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
    "imagenet16-120": ((122.68, 116.66, 104.01), (63.22, 61.26, 65.09)),
}
_MOST_IMAGES = 10_000
_MOST_BYTES = 64 * 2**20
_COLOUR_PROBES = 16


@dataclass(frozen=True, eq=False)
class Split:
    """One split: `labels` int64 (n,), each in 0..classes-1, and images of size × size pixels, read on demand."""

    labels: Labels
    source: Source
    size: int
    resized: bool

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: NDArray[np.integer]) -> Pixels:
        """Return uint8 (k, 3, size, size) in the order of `indices` (k,). Decodes nothing else and caches nothing.

        Cost: from Parquet, each row group that holds one of the rows is read, so ask for many rows at once.

        Raises `UsageError` for an index outside 0..n-1, or an image of another size if no image size was set, and
        `HnasError` for an image that cannot be read.
        """
        rows: Indices = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise UsageError(f"image indices must be 0 to {len(self) - 1}, got {rows.min()} to {rows.max()}")
        images = np.empty((len(rows), 3, self.size, self.size), dtype=np.uint8)
        for slot, (row, stored) in enumerate(zip(rows.tolist(), self.source.read(rows), strict=True)):
            pixels = decode(stored, partial(self.source.where, row))
            if self.resized:
                pixels = resize(pixels, self.size)
            if pixels.shape != images.shape[1:]:
                raise UsageError(
                    f"{self.source.where(row)} has {pixels.shape[2]}x{pixels.shape[1]} pixels where the first image "
                    f"has {self.size}x{self.size}; pass --image-size to bring all images to one size"
                )
            images[slot] = pixels
        return images


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A data set for classification. Images have `size` × `size` pixels; `classes` are in label order."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split | None
    size: int

    @property
    def mean(self) -> Triple:
        """Mean of each channel, in units of pixel / 255. Cost: see `std`."""
        return self._moments[0]

    @property
    def std(self) -> Triple:
        """Standard deviation of each channel, in units of pixel / 255, at least one grey level.

        A constant for CIFAR and ImageNet16-120. Otherwise computed on first use over at most 10,000 evenly spaced
        images of the training split.
        """
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[Triple, Triple]:
        mean, std = _NORMALISATION.get(self.name) or _channel_moments(self.train)
        return _scaled(mean), _scaled(std)

    @cached_property
    def flip(self) -> bool:
        """Whether a horizontal flip preserves an image's class: true for colour photographs, false for grey digits.

        A data set with an unknown name counts as photographs if any of 16 evenly spaced training images has colour.
        """
        if self.name in _NORMALISATION:
            return True
        images = self.train.images(_evenly_spaced(len(self.train), _COLOUR_PROBES))
        return bool((images != images[:, :1]).any())

    def normalise(self, images: Pixels) -> NDArray[np.float32]:
        """(pixel / 255 - mean) / std: uint8 (k, 3, H, W) -> float32 of that shape.

        Computed in float64 for the 256 grey levels and rounded once, so the result is bit-identical on any machine.
        """
        levels = np.arange(256) / 255
        result = np.empty(images.shape, dtype=np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            table = ((levels - mean) / std).astype(np.float32)
            result[:, channel] = table[images[:, channel]]
        return result


@dataclass(frozen=True, eq=False)
class Batch:
    """`images` float32 (m, 3, H, W), normalised; `labels` int64 (m,); `digest`, a 16-digit hexadecimal hash of both."""

    images: NDArray[np.float32]
    labels: Labels
    digest: str


def training_batch(dataset: ImageDataset, size: int, seed: int) -> Batch:
    """Draw `size` distinct images of the training split uniformly, the same everywhere for the same arguments.

    A smaller batch with the same seed is a prefix of a larger one.

    Raises `UsageError` if `size` is less than 1 or larger than the split, or `seed` is negative, and `HnasError` if
    one of the images cannot be read.
    """
    count = len(dataset.train)
    if not 1 <= size <= count:
        raise UsageError(f"the batch size for {dataset.name} must be between 1 and {count}, got {size}")
    return _batch(dataset, shuffled(count, seed)[:size])


def further_batch(dataset: ImageDataset, size: int, seed: int, *, beside: int) -> Batch | None:
    """Return the `size` images that follow the batch of `beside` images with the same seed, or as many as are left.

    None if the batch holds all images. Raises the errors of `training_batch`.
    """
    rows = shuffled(len(dataset.train), seed)[beside : beside + size]
    return _batch(dataset, rows) if len(rows) else None


def _batch(dataset: ImageDataset, rows: Indices) -> Batch:
    images = dataset.normalise(dataset.train.images(rows))
    labels = dataset.train.labels[rows]
    return Batch(images, labels, batch_digest(images, labels))


def shuffled(count: int, seed: int) -> Indices:
    """Return a permutation (count,) of 0..count-1.

    Sorts PCG64's raw words, which numpy guarantees to stay the same; `Generator.permutation` may change with a numpy
    release. Raises `UsageError` for a negative seed.
    """
    if seed < 0:
        raise UsageError(f"the seed must be at least 0, got {seed}")
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable").astype(np.int64)


def _evenly_spaced(count: int, most: int) -> Indices:
    picked = min(count, most)
    return np.arange(picked, dtype=np.int64) * count // picked


def _channel_moments(split: Split) -> tuple[Triple, Triple]:
    """Return mean and standard deviation of each channel in grey levels, the latter at least 1."""
    rows = _evenly_spaced(len(split), _MOST_IMAGES)
    chunk = max(1, _MOST_BYTES // (3 * split.size**2))
    # Grey-level counts are integers, so the result does not depend on chunks or on the order of a sum.
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(rows), chunk):
        images = split.images(rows[start : start + chunk])
        for channel in range(3):
            counts[channel] += np.bincount(images[:, channel].ravel(), minlength=256)
    levels = np.arange(256)
    total = counts[0].sum()
    first, second = counts @ levels, counts @ levels**2
    mean = first / total
    std = np.maximum(np.sqrt(np.maximum(second / total - mean**2, 0)), 1)
    return _triple(mean), _triple(std)


def _triple(values: NDArray[np.float64]) -> Triple:
    red, green, blue = values.tolist()
    return red, green, blue


def _scaled(values: Triple) -> Triple:
    red, green, blue = values
    return red / 255, green / 255, blue / 255
