"""Sources of images, and their conversion to uint8 pixels of shape (3, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hnas.errors import HnasError
from hnas.pipeline.images.decoding import DecodingError, rgb_pixels

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip


class Source(Protocol):
    """Source of a split's images. Holds paths or arrays but no open files, so it can be pickled."""

    def where(self, index: int) -> str:
        """Return the image's file, or file and row (counted from 0), for messages."""

    def read(self, indices: Indices) -> Iterator[bytes | Pixels]:
        """Yield one item per index, in order: an encoded image file, or pixels (3, H, W)."""


@dataclass(frozen=True, eq=False)
class StoredSplit:
    """A split as read from a layout: labels (n,), not validated yet, -1 for unlabelled rows."""

    labels: Labels
    source: Source


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """The result of a layout's reader. `classes` is None if the files do not name the classes.

    `tests` are the candidates for the test split in order of preference (test, then validation).
    """

    classes: tuple[str, ...] | None
    train: StoredSplit
    tests: tuple[StoredSplit, ...]


@dataclass(frozen=True, eq=False)
class PixelRows:
    """A source with its pixels (n, 3, H, W) in memory; `files` lists its parts, each with its first row."""

    pixels: Pixels
    files: tuple[tuple[str, int], ...]

    def where(self, index: int) -> str:
        name, first = next(part for part in reversed(self.files) if part[1] <= index)
        return f"{name}, row {index - first}"

    def read(self, indices: Indices) -> Iterator[Pixels]:
        return iter(self.pixels[indices])


def decode(stored: bytes | Pixels, where: Callable[[], str]) -> Pixels:
    """Decode to upright RGB pixels (3, H, W), composited over white; see `hnas.pipeline.images.decoding`.

    Raises `HnasError` if the bytes are not a complete image of a known format, or 8-bit RGB cannot represent it.
    """
    if isinstance(stored, np.ndarray):
        return stored
    try:
        pixels = rgb_pixels(stored)
    except DecodingError as error:
        raise HnasError(f"{where()} {error}") from error.__cause__
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resize(pixels: Pixels, size: int) -> Pixels:
    """Resize pixels (3, H, W) to (3, size, size), bilinear, without keeping the aspect ratio."""
    if pixels.shape == (3, size, size):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
