"""The protocols of scores: shared scores, made of the engine's passes, and scores with their own passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from hnas.metrics.statistics import Statistics

#: `build(classes=…, channels=…, cells=…, seed=…)` builds a network of these sizes.
Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Subject:
    """A network at initialisation and the images of its run.

    `network` has its initial weights and is in training mode; `images` (m, C, H, W), normalised, and `labels` (m,) are
    the run's batch, on its device and in its precision. A score must leave everything as it was: weights, buffers,
    gradients, modes, hooks, and torch's random state.

    `further` are images (n, C, H, W) of the same data set outside the batch, with their labels (n,); None if there are
    none. `build(classes=…, channels=…, cells=…, seed=…)` builds another network of the same canonical architecture;
    arguments left out are those of `network`. It is None for a network of no space.

    `seed` is that of the run. A score draws random numbers from a generator keyed by the seed and the score's name.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    further: tuple[Tensor, Tensor] | None = None
    build: Build | None = None
    seed: int = 0


class Score(Protocol):
    """What all scores declare. A score is created without arguments and keeps no state between calls.

    `columns` are the names of its values, lower-case SQL identifiers; usually one, the name of the score. `version`
    must be raised by every change that moves a value by more than rounding; values of two versions are never mixed.
    `shared` distinguishes a `SharedScore` from an `OwnScore`.
    """

    columns: ClassVar[tuple[str, ...]]
    version: ClassVar[int]
    shared: ClassVar[bool]


class SharedScore(Score, Protocol):
    """A score computed from statistics that the engine collects in the passes for the eight columns.

    `needs` are the fields of `Statistics` that it reads.
    """

    needs: ClassVar[tuple[str, ...]]

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """Return the score's values by column, NaN where the network has none."""
        ...


class OwnScore(Score, Protocol):
    """A score that runs its own passes: of another network, on other images, or in another mode or precision."""

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Return the score's values by column, NaN where the network has none."""
        ...
