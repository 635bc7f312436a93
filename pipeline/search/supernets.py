"""Supplies methods that use images with the images of their data set, a device, and a place for their state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from hnas.allocator import keep_freed_memory
from hnas.devices import choose_device, full_float32
from hnas.errors import UsageError
from hnas.optim.methods.registry import make_method, methods
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.images import open_dataset
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.search.memory import StateFile
from hnas.pipeline.search.settings import SearchSettings
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.supernets import under_way
from hnas.supernets.images import TrainingImages
from hnas.threads import torch_threads, training_threads
from hnas.training import Progress

# Increase this number if a search with the same settings gives another result than before.
_VERSION = 1


class Looking:
    """The images of `settings`, and the other resources of a method that uses images; `store` keeps the state.

    `threads` CPU threads are used unless the options of the method say otherwise. Raises `UsageError` for invalid
    images.
    """

    def __init__(
        self,
        settings: SearchSettings,
        store: Store | None,
        device: str,
        threads: int | None,
        progress: Callable[[int], Progress | None],
    ) -> None:
        assert settings.images is not None
        keep_freed_memory()  # as a trainer does
        self._dataset = open_dataset(settings.images)
        self._store, self._device, self._progress = store, choose_device(device), progress
        self._threads = threads
        self._read: TrainingImages | None = None

    def images(self) -> TrainingImages:
        """Return all training images, read once."""
        if self._read is None:
            data = self._dataset
            pixels = torch.from_numpy(data.train.images(np.arange(len(data.train))))
            labels = torch.from_numpy(data.train.labels)
            self._read = TrainingImages(pixels, labels, len(data.classes), data.mean, data.std, data.flip)
        return self._read

    def check(self, settings: SearchSettings, pool: RunPool, *, whole: bool) -> None:
        """Raise `UsageError` for invalid options, and where the method may end outside of what is asked for.

        With `whole`, the pool must have every architecture of the space, because the result is looked up.
        """
        method = make_method(settings.spec, pool, seed=settings.seed, **settings.method_options)
        size = None if pool.space is None else pool.space.size
        if settings.where is not None and getattr(method, "needs_images", False):
            raise UsageError(
                f"the method {settings.method} may end with any architecture of {settings.space}, also one that "
                f"violates {settings.where}; search without a condition, or use a method that keeps to the candidates"
            )
        if whole and getattr(method, "needs_images", False) and size is not None and len(pool) < size:
            raise UsageError(
                f"the method {settings.method} may end with any of the {size:,} architectures of {settings.space}, but "
                f"{pool} has only {len(pool):,} that qualify; search all of them, or with --oracle train"
            )
        if hasattr(method, "search"):
            self._begun(settings, pool)  # may reject the images, so it comes before the state gets a place in the store

    @contextmanager
    def given(self, settings: SearchSettings) -> Iterator[dict[str, Any]]:
        """Yield the options that the method receives besides its own, for one search."""
        options: dict[str, Any] = {"images": self.images(), "device": self._device, "progress": self._progress}
        if "threads" not in settings.options:
            options["threads"] = self._threads
        with full_float32():
            if self._store is None:
                yield options
                return
            with under_way(self._store, self._identity(settings)) as state:
                yield {**options, "checkpoint": StateFile(state)}

    def estimate(self, settings: SearchSettings, pool: RunPool) -> float:
        """Estimate the seconds of the search from one of its steps."""
        with torch_threads(training_threads(self._asked(settings))), full_float32():
            return float(self._begun(settings, pool).estimate())

    def _begun(self, settings: SearchSettings, pool: RunPool) -> Any:
        """Return the search of the method at its beginning."""
        method: Any = make_method(
            settings.spec, pool, seed=settings.seed, images=self.images(), device=self._device,
            **settings.method_options,
        )  # fmt: skip
        return method.search()

    def _asked(self, settings: SearchSettings) -> int | None:
        asked = settings.options.get("threads", self._threads)
        return asked if isinstance(asked, int) else None

    def _identity(self, settings: SearchSettings) -> Mapping[str, Any]:
        images = self.images()
        content = blake2b(images.images.numpy().tobytes(), digest_size=16)
        content.update(images.labels.numpy().tobytes())
        return {
            "space": settings.space,
            "dataset": canonical_dataset(self._dataset.name),
            "images": content.hexdigest(),
            "normalisation": [list(images.mean), list(images.std), images.flip],
            "method": settings.method,
            "recipe": _recipe(settings),
            "seed": settings.seed,
            "device": self._device,
            "threads": training_threads(self._asked(settings)) if self._device == "cpu" else None,
            "version": _VERSION,
        }


def _recipe(settings: SearchSettings) -> dict[str, Any]:
    """Return the method's recipe with all its numbers; for third-party methods, the options."""
    search_class = getattr(methods[settings.method], "search_class", None)
    own = {name: value for name, value in settings.options.items() if name != "threads"}
    return own if search_class is None else asdict(search_class.recipe_class(**own))
