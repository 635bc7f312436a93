"""Training images for searches on a supernet, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hnas.errors import UsageError
from hnas.training import augment, crop_padding, stratified_split
from hnas.training.data import Normalise, check_classes, check_data


@dataclass(frozen=True)
class TrainingImages:
    """Labelled images of a data set.

    images: uint8, (n, 3, S, S). labels: int64, (n,), in 0, …, `classes` − 1. mean, std: per channel, in units of pixel
    / 255. flip: whether a mirror image keeps its class. Raises `UsageError` for invalid images or labels.
    """

    images: Tensor
    labels: Tensor
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool = True

    def __post_init__(self) -> None:
        check_data(self.images, self.labels, "training")
        check_classes(self.labels, self.classes, "training")

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, indices: Tensor) -> TrainingImages:
        """Return those with these indices (k,), in this order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def to(self, device: torch.device) -> TrainingImages:
        """Return the same images on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def halves(self, seed: int, most: int = 0) -> tuple[TrainingImages, TrainingImages]:
        """Split by `seed` into two halves with equal class proportions, of `most` images in total unless it is 0."""
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for part in stratified_split(self.labels.cpu().numpy(), 0.5, seed):
            order = torch.from_numpy(part)[torch.randperm(len(part), generator=generator)]
            parts.append(order[: most // 2] if most else order)
        if min(map(len, parts)) < 2:
            raise UsageError(
                "a supernet search needs at least 2 images in each half, one for training and one for validation, so "
                "at least 4"
            )
        return self.chosen(parts[0]), self.chosen(parts[1])

    def batches(self, order: Tensor, size: int, generator: torch.Generator, normalise: Normalise) -> Iterator[Batch]:
        """Yield the images in `order` (k,), `size` at a time, randomly flipped and cropped.

        Skips a last batch of one image.
        """
        padding = crop_padding(*self.images.shape[2:])
        flips = torch.rand(len(order), generator=generator) < (0.5 if self.flip else 0)
        shifts = torch.randint(2 * padding + 1, (len(order), 2), generator=generator)
        device = self.images.device
        for index, flip, shift in zip(*(torch.split(x, size) for x in (order, flips, shifts)), strict=True):
            if len(index) > 1 or len(order) == 1:
                where = index.to(device)
                changed = augment(self.images[where], flip.to(device), shift.to(device), padding)
                yield normalise(changed), self.labels[where]


#: Inputs (m, 3, S, S), normalised, and labels (m,).
Batch = tuple[Tensor, Tensor]
