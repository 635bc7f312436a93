"""Labels images in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hnas.errors import HnasError
from hnas.pipeline.images.pixels import Pixels
from hnas.pipeline.models.inputs import Input, resized

if TYPE_CHECKING:
    from hnas.models import Classifier

_BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """The class `probabilities` of an image, in the order of `classes`; `image` is its path, if it has one."""

    image: str | None
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable class, the first one on a tie."""
        return self.top(1)[0][0]

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return self.top(1)[0][1]

    def top(self, k: int) -> list[tuple[str, float]]:
        """Return the `k` most probable classes with their probabilities, or all if there are fewer."""
        order = sorted(range(len(self.classes)), key=lambda i: -self.probabilities[i])[:k]
        return [(self.classes[i], self.probabilities[i]) for i in order]


def predictions(
    classifier: Classifier,
    classes: tuple[str, ...],
    size: int,
    images: Iterable[Input],
    unreadable: Callable[[HnasError], None],
) -> Iterator[Prediction]:
    """Yield the prediction of each image, resized to `size`; errors of unreadable images go to `unreadable`."""
    waiting: list[tuple[str | None, Pixels]] = []
    for image in images:
        try:
            waiting.append((image.path, resized(image, size)))
        except HnasError as error:
            unreadable(error)
        if len(waiting) == _BATCH:
            yield from _labelled(classifier, classes, waiting)
            waiting = []
    yield from _labelled(classifier, classes, waiting)


def _labelled(
    classifier: Classifier, classes: tuple[str, ...], images: list[tuple[str | None, Pixels]]
) -> Iterator[Prediction]:
    if images:
        rows = classifier.probabilities(torch.from_numpy(np.ascontiguousarray([pixels for _, pixels in images])))
        for (path, _), row in zip(images, rows.tolist(), strict=True):
            yield Prediction(path, classes, tuple(row))
