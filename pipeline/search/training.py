"""Trains architectures on an image data set: the oracle of searches, and the basis of `hnas evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hnas.allocator import keep_freed_memory
from hnas.devices import choose_device, full_float32
from hnas.errors import UsageError
from hnas.optim.evaluations import Evaluation, Query
from hnas.pipeline.catalog.signals import Signal
from hnas.pipeline.images import ImageDataset, open_dataset
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.io.printable import printable
from hnas.pipeline.search.estimate import TrainingEstimate, TrainingSize, estimate_training
from hnas.pipeline.search.memory import Memory
from hnas.pipeline.search.settings import TrainingSettings
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.trainings import Trainings
from hnas.spaces import SearchSpace
from hnas.spaces.initialise import redrawn
from hnas.threads import torch_threads, training_threads
from hnas.training import (
    Checkpoint,
    DivergedError,
    Progress,
    Recipe,
    TrainingResult,
    recipe_named,
    stratified_split,
    train,
)

# Increase this number if a training with the same settings gives other accuracies than before.
_VERSION = 1


class Trainer:
    """Trains architectures of a space on one data set, each from the same seed and on the same split.

    Images are flipped only if that preserves their class. `channels` and `cells` are the network size unless the
    settings specify another; `init` is the distribution of the initial weights. Trainings are looked up and kept in
    `store`. `progress` returns the callback for a training of a number of epochs, or None.

    Called with an architecture, it is the oracle of a search. With `alike`, any stored training of the architecture on
    the same scale, from any seed and device, answers the query. If a training diverges, `notice` is called and the
    performance is that of chance.
    Raises `UsageError` for invalid images or numbers.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: TrainingSettings,
        *,
        channels: int,
        cells: int,
        init: str = "torch",
        seed: int = 0,
        device: str = "auto",
        store: Store | None = None,
        alike: bool = False,
        with_test: bool = False,
        progress: Callable[[int], Progress | None] = lambda epochs: None,
        notice: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        keep_freed_memory()  # each step reuses the memory of the last, even if Dask's settings would return it
        dataset = open_dataset(settings.images, image_size=settings.image_size)
        self._recipe, self._recipe_name = recipe_of(settings, dataset), settings.recipe
        self._space, self._init, self._seed = space, init, seed
        self._asked = settings.channels is not None or settings.cells is not None
        self._network = {
            "classes": len(dataset.classes),
            "channels": channels if settings.channels is None else settings.channels,
            "cells": cells if settings.cells is None else settings.cells,
        }
        self._device = torch.device(choose_device(device))
        self._threads = training_threads(settings.threads)
        self._image_size = dataset.size
        self._mean, self._std = dataset.mean, dataset.std
        self._progress, self._notice, self._alike = progress, notice, alike
        pixels, labels = dataset.train.images(np.arange(len(dataset.train))), dataset.train.labels
        names = [printable(name) for name in dataset.classes]
        self._valid: tuple[torch.Tensor, torch.Tensor] | None = None
        if self._recipe.valid:
            training, validation = stratified_split(labels, self._recipe.valid, seed, names)
            self._valid = self._load(pixels, labels, validation)
        else:
            training = np.arange(len(pixels))
        self._train = self._load(pixels, labels, training)
        self._test = None
        if (with_test or store is not None) and dataset.test is not None:
            test = np.arange(len(dataset.test))
            self._test = self._load(dataset.test.images(test), dataset.test.labels, test)
        #: The names of the classes.
        self.classes = dataset.classes
        #: Called with each trained architecture, the epochs, the network and the result, before it is stored.
        self.on_trained: Callable[[str, int, nn.Module, TrainingResult], None] | None = None
        self._memory = (
            None if store is None else Memory(self._trainings(store, dataset, pixels), self._made, self._count)
        )

    def _load(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(pixels[indices]).to(self._device), torch.from_numpy(labels[indices]).to(self._device)

    def _trainings(self, store: Store, dataset: ImageDataset, pixels: NDArray[np.uint8]) -> Trainings:
        """Return the trainings in `store` on this scale: everything that determines them except the epochs."""
        content = blake2b(pixels.tobytes(), digest_size=16)
        content.update(dataset.train.labels.tobytes())
        for part in self._test or ():
            content.update(part.cpu().numpy().tobytes())
        usual = asdict(Recipe())
        recipe = {name: value for name, value in asdict(self._recipe).items() if value != usual[name]}
        mixed = recipe.pop("mixed", False) and self._device.type == "cuda"
        recipe.pop("epochs", None)
        scale: dict[str, Any] = {
            **self._network,
            "image_size": self._image_size,
            "images": content.hexdigest(),
            "normalisation": [list(self._mean), list(self._std)],
            "recipe": recipe,
            "version": _VERSION,
        }
        if self._init != "torch":  # the default is left out, which keeps the names of earlier trainings
            scale["init"] = self._init
        exact = {"device": self._device.type, "threads": self._threads if self._device.type == "cpu" else None}
        exact |= {"mixed": True} if mixed else {}
        return Trainings(
            store,
            space=self._space.name,
            dataset=canonical_dataset(dataset.name),
            seed=self._seed,
            scale=scale,
            exact=exact,
        )

    def _built(self, arch: str) -> nn.Module:
        """Return the initialised network of `arch` with the parts that the recipe requires."""
        recipe, size = self._recipe, self._network
        if (recipe.drop_path or recipe.auxiliary) and hasattr(self._space, "evaluation_network"):
            network: nn.Module = self._space.evaluation_network(
                arch, classes=size["classes"], channels=size["channels"], layers=size["cells"],
                auxiliary=recipe.auxiliary > 0, drop_path=0.0, seed=self._seed,
            )  # fmt: skip
            return redrawn(network, self._seed, self._init)
        return redrawn(self._space.network(arch, **size, seed=self._seed), self._seed, self._init)

    def _count(self, arch: str) -> int:
        return sum(p.numel() for p in self._built(arch).parameters() if p.requires_grad)

    def size(self, archs: Sequence[str]) -> TrainingSize:
        """Return the size of a training of one of `archs`. Raises `UsageError` if its network rejects the images."""
        counts = [self._count(arch) for arch in archs]
        with torch.inference_mode():  # fails here, before anything is stored
            self._built(archs[0]).eval()(torch.zeros(2, 3, self._image_size, self._image_size))
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
            recipe="" if self._recipe_name == "nasbench201" else self._recipe_name,
            asked=self._asked,
            known=0 if self._memory is None else self._memory.trainings.count(),
        )

    def estimate(self, archs: Sequence[str]) -> TrainingEstimate:
        """Estimate time and memory of a training of each of `archs`, the smallest first, from one step of each."""
        measured = self._recipe.epochs * len(self._valid[0] if self._valid else ())
        measured += len(self._test[0] if self._test else ())
        with torch_threads(self._threads), full_float32():
            return estimate_training(
                (self._built(arch).to(self._device) for arch in archs),
                *self._train,
                mean=self._mean,
                std=self._std,
                recipe=self._recipe,
                seed=self._seed,
                measured=measured,
            )

    def train(self, arch: str, epochs: int | None = None) -> TrainingResult:
        """Train `arch` from its initialisation, for `epochs` (by default the recipe's), and evaluate it.

        Stored trainings are not repeated. Raises `UsageError`, or `DivergedError`.
        """
        epochs = self._recipe.epochs if epochs is None else epochs
        return self._made(arch, epochs, None) if self._memory is None else self._memory.train(arch, epochs)

    def _made(self, arch: str, epochs: int, checkpoint: Checkpoint | None) -> TrainingResult:
        with torch_threads(self._threads), full_float32():
            network = self._built(arch).to(self._device)
            result = train(
                network,
                *self._train,
                mean=self._mean,
                std=self._std,
                recipe=replace(self._recipe, epochs=epochs),
                seed=self._seed,
                valid=self._valid,
                test=self._test,
                checkpoint=checkpoint,
                progress=self._progress(epochs),
            )
        if self.on_trained is not None:
            self.on_trained(arch, epochs, network, result)
        return result

    def train_again(self, arch: str, epochs: int) -> None:
        """Train `arch` for its weights, which go to `on_trained`, and store the result if it is new."""
        if self._memory is None:
            self._made(arch, epochs, None)
        else:
            self._memory.train_again(arch, epochs)

    def forget_state(self, arch: str, epochs: int) -> None:
        """Remove the checkpoint of a finished training, if a killed process has left it."""
        if self._memory is not None:
            self._memory.trainings.forget_state(arch, epochs)

    @property
    def epochs(self) -> int:
        """The number of epochs of a training."""
        return self._recipe.epochs

    def identity(self, arch: str, epochs: int) -> str:
        """Return a name for a training that is the same for equal trainings; empty without a store."""
        return "" if self._memory is None else self._memory.trainings.identity(arch, epochs)

    def described(self, epochs: int) -> dict[str, Any]:
        """Return these trainings' arguments for `hnas.pipeline.models.folder.save_model`."""
        recipe = {"name": self._recipe_name, **asdict(replace(self._recipe, epochs=epochs))}
        size = {name: self._network[name] for name in ("channels", "cells")}
        return {
            "space": self._space.name, **size, "classes": self.classes, "image_size": self._image_size,
            "mean": self._mean, "std": self._std, "recipe": recipe,
        }  # fmt: skip

    def __call__(self, arch: str, epochs: int | None = None) -> Evaluation:
        """Return the validation accuracy of `arch` in percent, and the seconds of its training."""
        chance = 100 / self._network["classes"]
        if self._alike and self._memory is not None:
            stored = self._memory.trainings.alike(arch, self._recipe.epochs if epochs is None else epochs)
            if stored is not None:
                return Evaluation(chance if stored[0] is None else stored[0], stored[1])
        try:
            result = self.train(arch, epochs)
        except DivergedError as error:
            return self._diverged(arch, error)
        assert result.valid_accuracy is not None
        return Evaluation(result.valid_accuracy, result.seconds)

    def continued(self, arch: str, since: int, epochs: int) -> Evaluation:
        """See `hnas.optim.evaluations.Continuing`; without a store, the architecture is trained from scratch."""
        if self._memory is None:
            return self(arch, epochs)
        try:
            curve = self._memory.curve(arch, self._recipe.epochs, epochs)
        except DivergedError as error:
            return self._diverged(arch, error, since)
        valid = curve[epochs - 1].valid_accuracy
        assert valid is not None
        return Evaluation(valid, curve[epochs - 1].seconds - (curve[since - 1].seconds if since else 0.0))

    def _diverged(self, arch: str, error: DivergedError, since: int = 0) -> Evaluation:
        chance = 100 / self._network["classes"]
        self._notice(f"{arch}: {error}; its performance counts as chance, {chance:.2f} %")
        before = error.curve[:since]
        return Evaluation(chance, error.seconds - (before[-1].seconds if before else 0.0))

    @property
    def signal(self) -> Signal | None:
        """The signal of these trainings' test accuracies in the store, or None."""
        if self._memory is None or self._test is None:
            return None
        trainings = self._memory.trainings
        return Signal("test_accuracy", trainings.source, trainings.dataset, self._recipe.epochs)

    def reported(self, query: Query) -> tuple[Signal, float] | None:
        """Return the signal and test accuracy, in percent, of the training behind `query`; None if there is none."""
        if self._memory is None or self.signal is None:
            return None
        signal = replace(self.signal, epochs=query.epochs or self._recipe.epochs)
        kept = self._memory.trainings.find(query.arch, signal.epochs or 0)
        return None if kept is None or kept.test_accuracy is None else (signal, kept.test_accuracy)


def recipe_of(settings: TrainingSettings, dataset: ImageDataset) -> Recipe:
    """Return the recipe in `settings`; unless specified, images are flipped if that preserves their class.

    Raises `UsageError` if its cutout leaves nothing of an image.
    """
    options: dict[str, object] = {"epochs": settings.epochs, "batch_size": settings.batch_size, "lr": settings.lr}
    recipe = recipe_named(settings.recipe, options | settings.options)
    if recipe.cutout >= 2 * dataset.size:
        raise UsageError(
            f"a cutout of {recipe.cutout} pixels leaves nothing of images of {dataset.size} x {dataset.size}; "
            f"--recipe-option cutout={dataset.size // 2} blacks out a quarter, 0 nothing"
        )
    return recipe if "flip" in settings.options else replace(recipe, flip=recipe.flip and dataset.flip)
