"""What a training gives, and what it leaves behind on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from hnas.errors import HnasError


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch, counted from 1.

    loss, train_accuracy: mean cross entropy (nats) and percent over its batches as they were trained on, augmented, in
    training mode, weights changing between batches (NAS-Bench-201 reports the same).
    valid_accuracy: percent, or None without such data.
    seconds: wall-clock time since the training began.
    """

    epoch: int
    loss: float
    train_accuracy: float
    valid_accuracy: float | None
    lr: float
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class TrainingResult:
    """What one training gave.

    valid_accuracy, test_accuracy: percent, of the network as the last epoch left it; None where no such data was given.
    train_loss, train_accuracy: those of the last epoch, see `Epoch`.
    seconds: wall-clock time of the whole call, the evaluations included, and of earlier calls that it goes on from.
    parameters: number of trainable scalars.
    curve: each epoch.
    """

    valid_accuracy: float | None
    test_accuracy: float | None
    train_loss: float
    train_accuracy: float
    epochs: int
    seconds: float
    parameters: int
    curve: tuple[Epoch, ...] = ()


class DivergedError(HnasError):
    """A training whose loss or weights stopped being finite, `seconds` after it began and after the epochs `curve`."""

    def __init__(self, sentence: str, seconds: float, curve: tuple[Epoch, ...]) -> None:
        super().__init__(sentence)
        self.seconds, self.curve = seconds, curve


class Checkpoint(Protocol):
    """Where a training keeps its state after each epoch: tensors, numbers and texts in dictionaries and lists."""

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, or None."""
        ...

    def save(self, state: dict[str, Any]) -> None:
        """Keep `state` in place of the last one."""
        ...
