"""The settings of a search, as `searches/<search>/search.json` keeps them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How architectures are trained: the numbers of the recipe, and `images`, the name or path of a data set.

    `image_size` resizes the images to that many pixels a side, `threads` are those of the CPU; where they are
    None the images stay as they are, and the threads are those of `hnas.threads.training_threads`.
    """

    epochs: int
    batch_size: int
    lr: float
    threads: int | None = None  # searches saved before there was `--threads` have none
    images: str
    image_size: int | None = None


@dataclass(frozen=True)
class SearchSettings:
    """Everything that determines the course of a search.

    `training` is that of the `train` oracle, None where the table is the oracle; `runs` are those whose mean is
    searched, `run` among them, else empty.
    """

    space: str
    run: str
    dataset: str
    metric: str
    oracle: str
    accuracy: str
    queries: int
    t: float
    acquisition: str
    seed: int
    training: TrainingSettings | None
    runs: list[str] = field(default_factory=list)  # searches saved before there was `--average` have none

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, as `search.json` has them: without a training it is empty."""
        return {**asdict(self), "training": asdict(self.training) if self.training else {}}

    @classmethod
    def from_dict(cls, saved: Any) -> SearchSettings:
        """The settings in a `search.json`. Raises `TypeError` where they are others than these."""
        settings = cls(**saved)
        training = TrainingSettings(**saved["training"]) if settings.oracle == "train" else None
        return replace(settings, training=training)
