"""Training one architecture on an image data set: the `train` oracle and `hnas evaluate`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hnas.devices import choose_device
from hnas.errors import check_seed
from hnas.optim.algorithm import Evaluation
from hnas.pipeline.images import Split, open_dataset
from hnas.pipeline.io.memory import peak_memory
from hnas.pipeline.search.settings import TrainingSettings
from hnas.spaces import SearchSpace, search_spaces, space_of
from hnas.threads import torch_threads, training_threads
from hnas.training import Progress, Recipe, TrainingResult, stratified_split, train

#: The share of the training images that is held out for validation.
VALIDATION_SHARE = 0.2


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


@dataclass(frozen=True)
class TrainingEstimate:
    """Seconds of a training of the smallest and the largest network, measured on one batch, and the process's bytes."""

    seconds: tuple[float, float]
    memory: int


def evaluate(
    arch: str,
    training: TrainingSettings,
    *,
    space: str | None = None,
    channels: int | None = None,
    cells: int | None = None,
    seed: int = 0,
    device: str = "auto",
    on_start: Callable[[TrainingSize], None] = lambda size: None,
    progress: Callable[[int], Progress | None] = lambda epochs: None,
) -> TrainingResult:
    """Train `arch` once and measure it on the held-out and the test images.

    `space` is found by trying where it is not given. `on_start` is called with the size of the training before it
    begins. Raises `UsageError`.
    """
    check_seed(seed, "--seed")
    chosen = search_spaces[space] if space is not None else space_of(arch)
    trainer = Trainer(
        chosen,
        training,
        channels=chosen.channels if channels is None else channels,
        cells=chosen.cells if cells is None else cells,
        seed=seed,
        device=device,
        with_test=True,
        progress=progress,
    )
    on_start(trainer.size([arch]))
    return trainer.train(arch)


class Trainer:
    """Trains architectures of a space on one data set, each from the same seed and on the same split.

    The recipe is NAS-Bench-201's, with the settings' numbers, and mirrors images only where a mirror image keeps its
    class. `progress` gives the callback for a training of so many epochs, or None.

    Called with an architecture it serves a search as its oracle.
    Raises `UsageError` for images or numbers that cannot be.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: TrainingSettings,
        *,
        channels: int,
        cells: int,
        seed: int = 0,
        device: str = "auto",
        with_test: bool = False,
        progress: Callable[[int], Progress | None] = lambda epochs: None,
    ) -> None:
        dataset = open_dataset(settings.images, image_size=settings.image_size)
        self._recipe = Recipe(epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr, flip=dataset.flip)
        self._space, self._seed = space, seed
        self._network = {"classes": len(dataset.classes), "channels": channels, "cells": cells, "seed": seed}
        self._device = torch.device(choose_device(device))
        self._threads = training_threads(settings.threads)
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

    def estimate(self, archs: Sequence[str]) -> TrainingEstimate:
        """Time and memory of a training of each of `archs`, the smallest first, from one step of each (the second)."""
        seconds = []
        images, labels = (part[: self._recipe.batch_size] for part in self._train)
        steps = self._recipe.epochs * math.ceil(len(self._train[0]) / self._recipe.batch_size)
        with torch_threads(self._threads):
            for arch in archs:
                network = self._space.network(arch, **self._network).to(self._device)
                one = replace(self._recipe, epochs=2)  # the first pays for what is set up once
                ends: list[float] = []

                def step(done: int, total: int, loss: float, ends: list[float] = ends) -> None:
                    ends.append(time.perf_counter())

                train(
                    network, images, labels, mean=self._mean, std=self._std, recipe=one, seed=self._seed, progress=step
                )  # fmt: skip
                seconds.append((ends[-1] - ends[-2]) * steps)
        return TrainingEstimate((seconds[0], seconds[-1]), peak_memory())

    def train(self, arch: str, epochs: int | None = None) -> TrainingResult:
        """Train `arch` from its initialisation, for `epochs` instead of the recipe's where given, and measure it.

        Raises `UsageError`, or `HnasError` on divergence.
        """
        recipe = self._recipe if epochs is None else replace(self._recipe, epochs=epochs)
        with torch_threads(self._threads):
            network = self._space.network(arch, **self._network).to(self._device)
            return train(
                network,
                *self._train,
                mean=self._mean,
                std=self._std,
                recipe=recipe,
                seed=self._seed,
                valid=self._valid,
                test=self._test,
                progress=self._progress(recipe.epochs),
            )

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        """The validation accuracy of `arch` in percent, and the seconds of its training."""
        result = self.train(arch, epochs)
        assert result.valid_accuracy is not None  # a validation split is always given
        return Evaluation(result.valid_accuracy, result.seconds)
