"""The results of a training, and its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from hnas.errors import HnasError


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch, counted from 1.

    loss, train_accuracy: mean cross entropy (nats) and percentage over the epoch's batches as they were trained on,
    augmented, in training mode, with weights changing between batches (as NAS-Bench-201 reports them).
    valid_accuracy: percent, None without validation data.
    seconds: wall-clock time since the start of the training.
    """

    epoch: int
    loss: float
    train_accuracy: float
    valid_accuracy: float | None
    lr: float
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class TrainingResult:
    """The result of one training.

    valid_accuracy, test_accuracy: percent, of the network after the last epoch; None without such data.
    train_loss, train_accuracy: those of the last epoch, see `Epoch`.
    seconds: wall-clock time of the whole call, including evaluations and earlier calls that it continues.
    parameters: number of trainable scalars.
    curve: all epochs.
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
    """The loss or a weight is no longer finite, `seconds` after the start and after the epochs in `curve`."""

    def __init__(self, sentence: str, seconds: float, curve: tuple[Epoch, ...]) -> None:
        super().__init__(sentence)
        self.seconds, self.curve = seconds, curve


class Checkpoint(Protocol):
    """Stores the state of a training after each epoch: tensors, numbers and strings in dictionaries and lists."""

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state, or None."""
        ...

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state by `state`."""
        ...
