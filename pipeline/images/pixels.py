"""From what a layout stores of an image (an encoded file, or pixels) to uint8 pixels of shape (3, H, W)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hnas.errors import HnasError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

# A closed list, because some of Pillow's other readers start programs (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


class Source(Protocol):
    """Where the images of a split come from. It holds paths or arrays, no open file, so it can be pickled."""

    def where(self, index: int) -> str:
        """The image's file, or file and row (counted from 0), for messages."""

    def read(self, indices: Indices) -> Iterator[bytes | Pixels]:
        """One item for each index, in their order: an encoded image file, or pixels (3, H, W)."""


@dataclass(frozen=True, eq=False)
class StoredSplit:
    """A split as a layout finds it: labels (n,), not validated yet, -1 where a row has none."""

    labels: Labels
    source: Source


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """What a layout's reader returns. `classes` is None where the files do not name them.

    `tests` are the candidates for the test split in order of preference (test, then validation).
    """

    classes: tuple[str, ...] | None
    train: StoredSplit
    tests: tuple[StoredSplit, ...]


@dataclass(frozen=True, eq=False)
class PixelRows:
    """A source whose pixels (n, 3, H, W) are in memory; `files` are its parts, each with its first row."""

    pixels: Pixels
    files: tuple[tuple[str, int], ...]

    def where(self, index: int) -> str:
        name, first = next(part for part in reversed(self.files) if part[1] <= index)
        return f"{name}, row {index - first}"

    def read(self, indices: Indices) -> Iterator[Pixels]:
        return iter(self.pixels[indices])


def decode(stored: bytes | Pixels, where: Callable[[], str]) -> Pixels:
    """Pixels (3, H, W) in RGB: grey and palette images become RGB, transparency is dropped.

    Raises:
        HnasError: the bytes are no whole image of a known format, or its pixels have more than 8 bits.
    """
    if isinstance(stored, np.ndarray):
        return stored
    try:
        with Image.open(io.BytesIO(stored), formats=_FORMATS) as image:
            image.load()
            mode = image.mode
            rgb = np.asarray(image.convert("RGB"))
    except Exception as error:  # whatever Pillow's parsers trip over: OSError, SyntaxError, struct.error, ...
        reason = "it is in none of these formats" if isinstance(error, UnidentifiedImageError) else str(error)
        raise HnasError(
            f"{where()} cannot be decoded ({reason or type(error).__name__}): a whole image file is needed, "
            f"as one of {', '.join(_FORMATS)}."
        ) from error
    if mode == "F" or mode.startswith("I"):
        # Pillow would clip these at 255, which leaves an all-white image.
        raise HnasError(f"{where()} has pixels of more than 8 bits (Pillow's mode {mode}): convert it to 8 bits.")
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def resize(pixels: Pixels, size: int) -> Pixels:
    """Pixels (3, size, size) of pixels (3, H, W), bilinear; an aspect ratio other than 1 is squeezed."""
    if pixels.shape == (3, size, size):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
