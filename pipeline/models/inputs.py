"""The inputs of `predict`, each converted to uint8 pixels (3, S, S)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from hnas.errors import HnasError, UsageError
from hnas.pipeline.images.decoding import DecodingError, image_pixels
from hnas.pipeline.images.folders import is_picture, read_image_file
from hnas.pipeline.images.pixels import Pixels, decode, resize
from hnas.pipeline.io.printable import printable


class Input(NamedTuple):
    """An image that is not decoded yet: its path, if it has one, and a function that returns its pixels (3, H, W)."""

    path: str | None
    pixels: Callable[[], Pixels]


def inputs(images: Any) -> Iterator[Input]:
    """Yield the images of a path, a folder, a Pillow image, an array or a tensor, or of any iterable of these.

    Raises `UsageError` for anything else.
    """
    match images:
        case str() | os.PathLike():
            yield from _of_path(os.fspath(images))
        case Image.Image():
            yield Input(None, partial(_of_image, images))
        case np.ndarray():
            yield from _of_array(images)
        case torch.Tensor():
            yield from _of_tensor(images)
        case Iterable() if not isinstance(images, bytes):
            for image in images:
                yield from inputs(image)
        case _:
            raise UsageError(f"{type(images).__name__} is not an image; give paths, Pillow images, arrays or tensors")


def resized(image: Input, size: int) -> Pixels:
    """Return pixels (3, size, size), without keeping the aspect ratio. Raises `HnasError` for unreadable images."""
    return resize(image.pixels(), size)


def _of_path(path: str) -> Iterator[Input]:
    path = os.path.expanduser(path)  # noqa: PTH111 - bytes that are not UTF-8 stay as they are
    if not os.path.isdir(path):  # noqa: PTH112
        yield Input(path, partial(_of_file, path))
        return
    any_image = False
    for folder, names, files in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if is_picture(name) and not name.startswith("."):
                any_image = True
                file = os.path.join(folder, name)  # noqa: PTH118
                yield Input(file, partial(_of_file, file))
    if not any_image:
        yield Input(path, partial(_of_empty, path))


def _of_empty(path: str) -> Pixels:
    raise HnasError(f"{printable(path)} holds no images; name image files, or a folder that contains some")


def _of_file(path: str) -> Pixels:
    return decode(read_image_file(path), lambda: printable(path))


def _of_image(image: Image.Image) -> Pixels:
    try:
        return np.ascontiguousarray(image_pixels(image).transpose(2, 0, 1))
    except DecodingError as error:
        raise HnasError(f"a Pillow image {error}") from error


def _of_array(array: np.ndarray) -> Iterator[Input]:
    if array.dtype == np.uint8 and array.ndim == 2:
        array = np.stack([array] * 3, axis=-1)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape[-3:]:
        raise UsageError(
            f"an array of images has shape {array.shape} and type {array.dtype}; it must be uint8, (height, width), "
            "(height, width, 3) or (n, height, width, 3)"
        )
    for one in array if array.ndim == 4 else [array]:
        yield Input(None, partial(np.ascontiguousarray, one.transpose(2, 0, 1)))


def _of_tensor(tensor: torch.Tensor) -> Iterator[Input]:
    if tensor.dtype != torch.uint8 or tensor.ndim not in (3, 4) or tensor.shape[-3] != 3 or 0 in tensor.shape[-3:]:
        raise UsageError(
            f"a tensor of images has shape {tuple(tensor.shape)} and type {tensor.dtype}; it must be uint8, "
            "(3, height, width) or (n, 3, height, width)"
        )
    for one in tensor if tensor.ndim == 4 else [tensor]:
        yield Input(None, partial(np.asarray, one.cpu().numpy()))
