"""Training one architecture on an image data set: the `train` oracle and `hnas evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hnas.devices import choose_device
from hnas.errors import check_seed
from hnas.pipeline.images import ImageDataset, Split
from hnas.pipeline.store.space_cache import keep_in
from hnas.pipeline.store.store import Store, store_location
from hnas.spaces import SearchSpace, search_spaces, space_of
from hnas.threads import torch_threads, training_threads
from hnas.training import Progress, Recipe, TrainingResult, stratified_split, train

#: The share of the training images that is held out for validation.
VALIDATION_SHARE = 0.2


def recipe_for(dataset: ImageDataset, *, epochs: int, batch_size: int, lr: float) -> Recipe:
    """NAS-Bench-201's recipe for this data set: mirrored only where a mirror image keeps its class."""
    return Recipe(epochs=epochs, batch_size=batch_size, lr=lr, flip=dataset.flip)


@dataclass(frozen=True)
class TrainingSize:
    """What determines the time of a training: the network's size, the images, and how it is trained.

    `parameters` are those of the smallest and the largest network that may be trained.
    """

    space: str
    channels: int
    cells: int
    image_size: int
    parameters: tuple[int, int]
    images: int
    epochs: int
    batch_size: int
    threads: int
    device: str


def evaluate(
    arch: str,
    dataset: ImageDataset,
    *,
    space: str | None = None,
    training: Mapping[str, Any],
    channels: int | None = None,
    cells: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    on_start: Callable[[TrainingSize], None] = lambda size: None,
    progress: Callable[[str], Progress | None] = lambda arch: None,
) -> TrainingResult:
    """Train `arch` once and measure it on the held-out and the test images.

    `training` is what `recipe_for` takes; `space` is found by trying where it is not given; `threads` are
    `training_threads`. `on_start` is told the size of the training before it begins. Raises `UsageError`.
    """
    check_seed(seed)
    keep_in(Store(store_location(None)))
    chosen = search_spaces[space] if space is not None else space_of(arch)
    trainer = Trainer(
        chosen,
        dataset,
        recipe_for(dataset, **training),
        channels=chosen.channels if channels is None else channels,
        cells=chosen.cells if cells is None else cells,
        seed=seed,
        device=device,
        threads=threads,
        with_test=True,
        progress=progress,
    )
    on_start(trainer.size([arch]))
    return trainer.train(arch)


class Trainer:
    """Trains architectures of a space on one data set, each from the same seed and on the same split.

    Called with an architecture it gives the validation accuracy in percent, so it serves a search as its oracle.
    """

    def __init__(
        self,
        space: SearchSpace,
        dataset: ImageDataset,
        recipe: Recipe,
        *,
        channels: int,
        cells: int,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
        with_test: bool = False,
        progress: Callable[[str], Progress | None] = lambda arch: None,
    ) -> None:
        self._space, self._recipe, self._seed = space, recipe, seed
        self._network = {"classes": len(dataset.classes), "channels": channels, "cells": cells, "seed": seed}
        self._device = torch.device(choose_device(device))
        self._threads = training_threads(threads)
        self._image_size = dataset.size
        self._mean, self._std = dataset.mean, dataset.std
        self._progress = progress
        training, validation = stratified_split(dataset.train.labels, VALIDATION_SHARE, seed)
        self._train = self._load(dataset.train, training)
        self._valid = self._load(dataset.train, validation)
        self._test = None
        if with_test and dataset.test is not None:
            self._test = self._load(dataset.test, np.arange(len(dataset.test)))

    def _load(self, split: Split, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(split.images(indices)).to(self._device)
        return images, torch.from_numpy(split.labels[indices]).to(self._device)

    def size(self, archs: Sequence[str]) -> TrainingSize:
        """The size of a training of one of `archs`."""
        networks = [self._space.network(arch, **self._network) for arch in archs]
        counts = [sum(p.numel() for p in network.parameters() if p.requires_grad) for network in networks]
        return TrainingSize(
            space=self._space.name,
            channels=self._network["channels"],
            cells=self._network["cells"],
            image_size=self._image_size,
            parameters=(min(counts), max(counts)),
            images=len(self._train[0]),
            epochs=self._recipe.epochs,
            batch_size=self._recipe.batch_size,
            threads=self._threads,
            device=self._device.type,
        )

    def train(self, arch: str) -> TrainingResult:
        """Train `arch` from its initialisation and measure it. Raises `UsageError`, or `HnasError` on divergence."""
        with torch_threads(self._threads):
            network = self._space.network(arch, **self._network).to(self._device)
            return train(
                network,
                *self._train,
                mean=self._mean,
                std=self._std,
                recipe=self._recipe,
                seed=self._seed,
                valid=self._valid,
                test=self._test,
                progress=self._progress(arch),
            )

    def __call__(self, arch: str) -> float:
        """The validation accuracy of `arch` in percent."""
        accuracy = self.train(arch).valid_accuracy
        assert accuracy is not None  # a validation split is always given
        return accuracy
