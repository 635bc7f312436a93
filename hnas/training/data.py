"""Images and labels of a training: splitting, checking and normalising them."""

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
    """Split into a training and a validation part with the same proportion of every class; return their indices.

    Of a class with n_k images, v_k = round(share · n_k) go to validation, but at least 1 and at most n_k - 1. Thus |v_k
    - share · n_k| < 1, and classes of equal size contribute equally. The choice is random and determined by `seed`.

    `labels` are integers (n,), and `share` in (0, 1) is the validation part. `classes` are the names of the classes 0,
    1, … in errors; their numbers by default. Returns training indices (n - v,) and validation indices (v,), each
    ascending, disjoint, together 0, …, n - 1.

    Raises `UsageError` for a `share` outside (0, 1), labels that are not a vector of integers, an invalid seed, no
    images, or a class with a single image, which cannot be in both parts.
    """
    if not 0 < share < 1:
        raise UsageError(f"share of the validation part must be above 0 and below 1, got {share}")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"labels to split must be integers of shape (n,), got {labels.dtype} of shape {labels.shape}")
    check_seed(seed)
    if not len(labels):
        raise UsageError("a split needs at least 2 images of every class, got no images")
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
        if size < 2:
            name = label if classes is None else classes[label]
            raise UsageError(
                "a stratified split needs at least 2 images of every class, one each for training and validation, but "
                f"class {name} has a single image"
            )
        count = min(max(round(share * int(size)), 1), int(size) - 1)
        chosen[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


class Normalise:
    """x = (pixel / 255 - mean) / std, from uint8 (n, 3, H, W) to the device and precision of a network's parameter.

    The order of operations is that of torchvision's ToTensor and Normalize, so results are bit-identical to theirs.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], like: Tensor) -> None:
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise UsageError(f"{name} must be 3 finite numbers, one per channel, got {tuple(values)}")
        if min(std) <= 0:
            raise UsageError(f"std must be above 0 for each channel, got {tuple(std)}")
        self.mean, self.std = (like.new_tensor(list(values)).view(3, 1, 1) for values in (mean, std))
        self.layout = torch.contiguous_format

    def plain(self) -> Normalise:
        """Return the same normalisation with contiguous memory layout."""
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
            f"{name} images must be torch.uint8 of shape (n, 3, height, width), got {images.dtype} of shape "
            f"{tuple(images.shape)}"
        )
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise UsageError(
            f"{name} labels must be torch.int64 of shape (n,), got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if len(images) != len(labels):
        raise UsageError(f"each of the {len(images)} {name} images needs one label, got {len(labels)} labels")
    if not len(images):
        raise UsageError(f"there are no {name} images; pass at least one")


def check_classes(labels: Tensor, classes: int, name: str) -> None:
    """Raise `UsageError` where a label is outside 0, …, classes - 1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UsageError(
            f"{name} labels must lie between 0 and {classes - 1} for a network with {classes} classes, "
            f"got {low} to {high}"
        )
