"""Images and labels of a training: their split into parts, their checks, and their normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hnas.errors import UsageError, check_seed


def stratified_split(
    labels: NDArray[np.integer], share: float, seed: int, classes: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of a training and a validation part that hold every class in the same proportion.

    Of a class with n_k images, v_k = round(share · n_k) go to validation, but at least 1 and at most n_k - 1, so that
    |v_k - share · n_k| < 1 and classes of equal size give equally many. Which ones is drawn at random from `seed`.

    Args:
        labels: (n,) integers.
        share: the validation part's share, in (0, 1).
        seed: 0 or above; the same seed gives the same split.
        classes: what errors call the classes 0, 1, …; by default their numbers.

    Returns:
        training (n - v,) and validation (v,), each ascending, disjoint, together 0, …, n - 1.

    Raises:
        UsageError: `share` outside (0, 1), labels that are not a line of integers, a negative seed, no image at all, or
            a class with a single image, which cannot be in both parts.
    """
    if not 0 < share < 1:
        raise UsageError(f"the validation share is {share}; it must be above 0 and below 1")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(
            f"labels to split have shape {labels.shape} and type {labels.dtype}; they must be integers of shape (n,)"
        )
    check_seed(seed)
    if not len(labels):
        raise UsageError("there are no images to split; every class needs at least 2")
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
        if size < 2:
            name = label if classes is None else classes[label]
            raise UsageError(
                f"class {name} has a single image; a stratified split needs at least 2, one for training and one for "
                "validation"
            )
        count = min(max(round(share * int(size)), 1), int(size) - 1)
        chosen[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


class Normalise:
    """x = (pixel / 255 - mean) / std, from uint8 (n, 3, H, W) to the device and precision of a network's parameter.

    In this order of operations, which is that of torchvision's ToTensor and Normalize, so that bits agree.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], like: Tensor) -> None:
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise UsageError(f"{name} is {tuple(values)}; it must be 3 finite numbers, one for each channel")
        if min(std) <= 0:
            raise UsageError(f"std is {tuple(std)}; each channel's must be above 0")
        self.mean, self.std = (like.new_tensor(list(values)).view(3, 1, 1) for values in (mean, std))
        self.layout = torch.contiguous_format

    def plain(self) -> Normalise:
        """The same, in contiguous order."""
        other = copy(self)
        other.layout = torch.contiguous_format
        return other

    def __call__(self, images: Tensor) -> Tensor:
        inputs = images.to(self.mean.device).to(self.mean.dtype, memory_format=self.layout)
        return inputs.div_(255).sub_(self.mean).div_(self.std)


def check_data(images: Tensor, labels: Tensor, name: str) -> None:
    """Raise `UsageError` unless `images` are uint8 (n, 3, H, W) and `labels` int64 (n,), n at least 1."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(
            f"{name} images have shape {tuple(images.shape)} and type {images.dtype}; they must be torch.uint8 of "
            "shape (n, 3, height, width)"
        )
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise UsageError(
            f"{name} labels have shape {tuple(labels.shape)} and type {labels.dtype}; they must be torch.int64 of "
            "shape (n,)"
        )
    if len(images) != len(labels):
        raise UsageError(f"{len(images)} {name} images come with {len(labels)} labels; each needs exactly one")
    if not len(images):
        raise UsageError(f"there are no {name} images; at least one is needed")


def check_classes(labels: Tensor, classes: int, name: str) -> None:
    """Raise `UsageError` where a label is outside 0, …, classes - 1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UsageError(
            f"{name} labels run from {low} to {high}, but the network has {classes} classes; labels must be in 0, …, "
            f"{classes - 1}"
        )
