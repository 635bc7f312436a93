"""`--save`: keeps the network of the best training so far in a model folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hnas.errors import HnasError
from hnas.pipeline.io.aside import Hold
from hnas.pipeline.io.printable import printable
from hnas.pipeline.models.folder import check_model_folder, read_info, save_model

if TYPE_CHECKING:
    # These modules load torch, or import this one.
    from torch import nn

    from hnas.optim.evaluations import Query
    from hnas.pipeline.search.training import Trainer
    from hnas.training import TrainingResult


class Keeper:
    """Keeps the best network that `trainer` trains in the model folder `folder`, with the given `provenance`.

    The folder is written before the store records the training, so a training killed in between is finished again. If
    the store has the winner's result but not its weights, the winner is trained once more. Raises `UsageError` if the
    folder cannot hold a model, and `HnasError` if another search keeps its model there.
    """

    def __init__(
        self, folder: str, trainer: Trainer, provenance: dict[str, Any], history: Sequence[Query] = ()
    ) -> None:
        check_model_folder(folder)
        try:
            self._hold = Hold(Path(folder).expanduser().resolve())  # so that no other process removes it
        except BlockingIOError as error:
            raise HnasError(
                f"another search keeps its model in {printable(folder)}; name another folder, or wait until it ends"
            ) from error
        except OSError as error:
            raise HnasError(
                f"the model {printable(folder)} cannot be written ({error.strerror}); name another folder"
            ) from error
        self._folder, self._trainer, self._provenance = folder, trainer, provenance
        self._best = max((_rank(q.epochs, q.performance) for q in history if q.failure is None), default=None)
        trainer.on_trained = self._trained

    def evaluated(self, query: Query) -> None:
        """Take note of a query, which may have been answered without a training."""
        rank = _rank(query.epochs, query.performance)
        self._best = rank if self._best is None else max(self._best, rank)

    def finish(self, arch: str, epochs: int | None = None) -> None:
        """Make sure that the folder has the network of `arch`, trained for `epochs`, by default the recipe's."""
        length = epochs or self._trainer.epochs
        with suppress(HnasError):  # no model, or a damaged one
            if read_info(self._folder).provenance.get("training") == self._trainer.identity(arch, length):
                self._trainer.forget_state(arch, length)  # left by a process killed after saving the model
                return
        self._best = None
        self._trainer.train_again(arch, length)

    def _trained(self, arch: str, epochs: int, network: nn.Module, result: TrainingResult) -> None:
        measured = math.inf if result.valid_accuracy is None else result.valid_accuracy
        asked = None if epochs == self._trainer.epochs else epochs
        if self._best is not None and _rank(asked, measured) <= self._best:
            return
        names = ("train_accuracy", "valid_accuracy", "test_accuracy")
        save_model(
            self._folder,
            network,
            arch=arch,
            **self._trainer.described(epochs),
            accuracies={name: getattr(result, name) for name in names},
            curve=[asdict(epoch) for epoch in result.curve],
            provenance={**self._provenance, "training": self._trainer.identity(arch, epochs)},
        )

    def close(self) -> None:
        """Release the folder."""
        self._hold.close()


def _rank(epochs: int | None, performance: float) -> tuple[float, float]:
    """Return a query's rank: longer trainings first, then better ones. None stands for the recipe's epochs."""
    return (math.inf if epochs is None else epochs, performance)
