"""Trainings with a store: stored ones are looked up, interrupted ones resumed, new ones made and kept."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from hnas.pipeline.store.trainings import StoredState, Trained, Trainings
from hnas.training import Checkpoint, DivergedError, Epoch, TrainingResult


class StateFile:
    """The state of a training in a file of tensors, numbers and texts, which cannot run any code."""

    def __init__(self, state: StoredState) -> None:
        self._state = state

    def load(self) -> dict[str, Any] | None:
        content = self._state.read()
        if content is None:
            return None
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            ValueError,
        ):  # written by another version: the training starts anew
            return None
        return state

    def save(self, state: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        self._state.write(file.getvalue())


class _StoppedError(Exception):
    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__("stopped on the way")
        self.curve = tuple(Epoch(**epoch) for epoch in state["curve"])


class _Stopping(StateFile):
    """A checkpoint that stops the training after `until` epochs."""

    def __init__(self, state: StoredState, until: int) -> None:
        super().__init__(state)
        self._until = until

    def load(self) -> dict[str, Any] | None:
        state = super().load()
        self._stop(state)
        return state

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        self._stop(state)

    def _stop(self, state: dict[str, Any] | None) -> None:
        if state is not None and len(state["curve"]) >= self._until:
            raise _StoppedError(state)


class Memory:
    """The trainings of a store. `make` trains an architecture for epochs with a checkpoint; `parameters` counts."""

    def __init__(
        self,
        trainings: Trainings,
        make: Callable[[str, int, Checkpoint | None], TrainingResult],
        parameters: Callable[[str], int],
    ) -> None:
        self.trainings = trainings
        self._make, self._parameters = make, parameters

    def train(self, arch: str, epochs: int) -> TrainingResult:
        """Return the training of `arch`, stored or new. Raises `DivergedError` in both cases, and `HnasError`."""
        stored = self.find(arch, epochs)
        if stored is not None:
            self.trainings.forget_state(arch, epochs)  # left by a process killed after storing the result
            return stored
        with self.trainings.under_way(arch, epochs) as state:
            # Another process may have made it while this one waited.
            return self.find(arch, epochs) or self._made(arch, epochs, state)

    def train_again(self, arch: str, epochs: int) -> None:
        """Train `arch` even if the store has it, and keep the result if it does not."""
        with self.trainings.under_way(arch, epochs) as state:
            if self.trainings.find(arch, epochs) is None:
                self._made(arch, epochs, state)
            else:
                self._make(arch, epochs, StateFile(state))
                self.trainings.forget_state(arch, epochs)

    def curve(self, arch: str, epochs: int, until: int) -> tuple[Epoch, ...]:
        """Return the first epochs, at least `until`, of the training of `arch` for `epochs`, which stops there for now.

        Raises the errors of `train`.
        """
        stored = self.find(arch, epochs)
        if stored is not None or until == epochs:
            return (stored or self.train(arch, epochs)).curve
        with self.trainings.under_way(arch, epochs) as state:
            if (stored := self.find(arch, epochs)) is not None:
                return stored.curve
            try:
                return self._made(arch, epochs, state, _Stopping(state, until)).curve
            except _StoppedError as stop:
                return stop.curve

    def find(self, arch: str, epochs: int) -> TrainingResult | None:
        """Return the stored training of `arch`, or None. Raises `DivergedError` if it diverged."""
        kept = self.trainings.find(arch, epochs)
        if kept is None:
            return None
        names = Epoch.__dataclass_fields__
        curve = tuple(Epoch(**{name: row[name] for name in names}) for row in kept.curve)
        if kept.train_accuracy is None:
            raise DivergedError(
                f"training diverged in epoch {len(curve) + 1} of {epochs}, according to the store; try a lower "
                "learning rate",
                kept.seconds,
                curve,
            )
        return TrainingResult(
            valid_accuracy=kept.valid_accuracy,
            test_accuracy=kept.test_accuracy,
            train_loss=curve[-1].loss if curve else float("nan"),
            train_accuracy=kept.train_accuracy,
            epochs=epochs,
            seconds=kept.seconds,
            parameters=self._parameters(arch),
            curve=curve,
        )

    def _made(self, arch: str, epochs: int, state: StoredState, checkpoint: Checkpoint | None = None) -> TrainingResult:
        try:
            result = self._make(arch, epochs, checkpoint or StateFile(state))
        except DivergedError as error:
            self.trainings.keep(arch, epochs, Trained(None, None, None, error.seconds, _rows(error.curve)))
            raise
        accuracies = result.train_accuracy, result.valid_accuracy, result.test_accuracy
        self.trainings.keep(arch, epochs, Trained(*accuracies, result.seconds, _rows(result.curve)))
        return result


def _rows(curve: tuple[Epoch, ...]) -> list[dict[str, Any]]:
    return [asdict(epoch) for epoch in curve]
