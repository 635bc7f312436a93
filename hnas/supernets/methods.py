"""Supernet searches as methods: each looks at training images, and ends with one architecture.

They evaluate nothing during the search: the architecture is proposed once, as `final`, and the budget is charged the
seconds of the supernet. Options are the fields of the search's recipe, such as `channels=4` or `supernet_epochs=50`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar, Protocol

import torch

from hnas.errors import UsageError, did_you_mean
from hnas.optim.methods.protocol import Proposal, refuse_argument, whole
from hnas.optim.pools import Pool
from hnas.spaces.nasbench201.space import NASBench201
from hnas.supernets.darts import DARTS, SecondOrderDARTS
from hnas.supernets.drnas import DrNAS
from hnas.supernets.enas import ENAS
from hnas.supernets.gdas import GDAS
from hnas.supernets.images import TrainingImages
from hnas.supernets.nasi import NASI
from hnas.supernets.te_nas import TENAS
from hnas.supernets.training import Found
from hnas.threads import torch_threads, training_threads
from hnas.training import Checkpoint, Progress


class _Running(Protocol):
    def run(self, checkpoint: Checkpoint | None = None, progress: Progress | None = None) -> Found: ...


class SupernetMethod:
    """Runs `search_class` on `images`, on `device` with `threads` CPU threads, and keeps its state in `checkpoint`.

    It may end with any architecture of the space, in the pool or not. Raises `UsageError` for a pool that is not of
    NAS-Bench-201, without images, and for invalid options.
    """

    kind: ClassVar[str] = "gradient"
    applicable: ClassVar[str] = "C"
    varies: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True
    name: ClassVar[str]
    search_class: ClassVar[Any]

    def __init__(
        self,
        pool: Pool,
        argument: str | None = None,
        *,
        seed: int,
        epochs: int | None = None,
        images: TrainingImages | None = None,
        device: str = "cpu",
        threads: int | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Callable[[int], Progress | None] = lambda epochs: None,
        **options: Any,
    ) -> None:
        refuse_argument(self.name, argument)
        check_space(self.name, None if pool.space is None else pool.space.name)
        known = [field.name for field in fields(self.search_class.recipe_class)]
        for option in options:
            if option not in known:
                raise UsageError(
                    f"the method {self.name} has no option {option}; it has {', '.join([*known, 'threads'])}"
                    f"{did_you_mean(option, known)}"
                )
        self.recipe = self.search_class.recipe_class(**options)
        self._threads = training_threads(threads if threads is None else whole("threads", threads))
        self._seed, self._device, self._images = seed, torch.device(device), images
        self._checkpoint, self._progress = checkpoint, progress
        self._done = False

    @property
    def epochs(self) -> int:
        """The number of progress units: epochs, for `te-nas` rounds, for `nasi` samples."""
        return int(getattr(self.recipe, "supernet_epochs", 3))

    def search(self) -> _Running:
        """Create the search. Raises `UsageError` without images."""
        if self._images is None:
            raise UsageError(f"the method {self.name} needs training images; pass images=TrainingImages(…)")
        made: _Running = self.search_class(self._images, self.recipe, seed=self._seed, device=self._device)
        return made

    def ask(self) -> Proposal | None:
        """Run the search and return its architecture; None after that."""
        if self._done:
            return None
        with torch_threads(self._threads):
            outcome = self.search().run(self._checkpoint, self._progress(self.epochs))
        self._done = True
        arch = NASBench201().decode(outcome.decisions)
        return Proposal(arch, seconds=outcome.seconds, final=True)

    def tell(self, proposal: Proposal, performance: float, cost: float) -> None:
        """See `hnas.optim.methods.protocol.Method`."""


def check_space(method: str, space: str | None) -> None:
    """Raise `UsageError` unless the space is NAS-Bench-201, the only one with a supernet."""
    if space != NASBench201.name:
        of = "a pool without a space" if space is None else f"the space {space}"
        raise UsageError(f"the method {method} has a supernet only for nasbench201 and cannot search {of}")


class DARTSMethod(SupernetMethod):
    """See `hnas.supernets.darts`."""

    name, search_class = "darts", DARTS


class SecondOrderDARTSMethod(SupernetMethod):
    """See `hnas.supernets.darts`."""

    name, search_class = "darts-second", SecondOrderDARTS


class GDASMethod(SupernetMethod):
    """See `hnas.supernets.gdas`."""

    name, search_class = "gdas", GDAS


class DrNASMethod(SupernetMethod):
    """See `hnas.supernets.drnas`."""

    name, search_class = "drnas", DrNAS


class ENASMethod(SupernetMethod):
    """See `hnas.supernets.enas`."""

    kind = "RL"
    name, search_class = "enas", ENAS


class TENASMethod(SupernetMethod):
    """See `hnas.supernets.te_nas`."""

    kind = "training-free"
    name, search_class = "te-nas", TENAS


class NASIMethod(SupernetMethod):
    """See `hnas.supernets.nasi`."""

    kind = "training-free"
    name, search_class = "nasi", NASI

    @property
    def epochs(self) -> int:
        """See `SupernetMethod`."""
        return int(self.recipe.samples)
