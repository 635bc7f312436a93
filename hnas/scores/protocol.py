"""The protocols of scores: of those that share the engine's passes, and of those that make passes of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from hnas.metrics.statistics import Statistics

#: `build(classes=…, channels=…, cells=…, seed=…)`: a network of given sizes.
Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Subject:
    """A network at initialisation and the images of its run.

    `network` has its weights as drawn and is in training mode; `images` (m, C, H, W), normalised, and `labels` (m,) are
    the run's batch, on its device and in its precision. A score leaves all of it as it was: weights, buffers,
    gradients, modes, hooks, and torch's random state.

    `further` are images (n, C, H, W) of the same data set that are not in the batch, with their labels (n,); None
    where there are none. `build(classes=…, channels=…, cells=…, seed=…)` is another network of the same canonical
    architecture, each argument that of `network` where it is left out; None for a network of no space.

    `seed` is that of the run. What a score draws comes from a generator keyed by it and the score's name.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    further: tuple[Tensor, Tensor] | None = None
    build: Build | None = None
    seed: int = 0


class Score(Protocol):
    """What all scores say of themselves. A score is made without arguments, and keeps nothing between calls.

    `columns` are the names of its numbers, SQL identifiers in lower case, usually one, the score's own name. `version`
    is raised whenever a change moves a number by more than rounding: numbers of two versions are never mixed. `shared`
    tells a `SharedScore` from an `OwnScore`.
    """

    columns: ClassVar[tuple[str, ...]]
    version: ClassVar[int]
    shared: ClassVar[bool]


class SharedScore(Score, Protocol):
    """A score made of statistics that the engine collects in passes which the eight columns need anyway.

    `needs` are the fields of `Statistics` that it reads.
    """

    needs: ClassVar[tuple[str, ...]]

    def __call__(self, seen: Statistics) -> dict[str, float]:
        """The score's numbers by column, NaN where it has no value for the network."""
        ...


class OwnScore(Score, Protocol):
    """A score with passes of its own: of another network, on other images, or in another mode or precision."""

    def __call__(self, subject: Subject) -> dict[str, float]:
        """The score's numbers by column, NaN where it has no value for the network."""
        ...
