"""Weight sharing: a supernet whose weights w and architecture parameters α are trained alternately.

    half of the images train w, the other half train α
    repeat for each epoch, for each batch of the first half, with equally many random images of the second:
        w ← SGD(w, ∇_w L_train)
        α ← Adam(α, ∇_α L_val)
    the architecture is the operation with the largest α on each edge

The searches differ in how α mixes operations and how its gradient is computed, which are methods of `WeightSharing`.
The defaults are those of NATS-Bench's program (exps/NATS-algos/search-cell.py, run-all.sh and weight-sharing.config of
AutoDL-Projects): 200 epochs, SGD with Nesterov momentum 0.9 and weight decay 5e-4, learning rate 0.025 → 0.001 on a
cosine schedule, batches of 64, flips and crops in both halves; α from 10⁻³ · N(0, 1), Adam with β = (0.5, 0.999).

The whole state goes to a `Checkpoint` after each epoch. A search that finds one continues from it, bit-identically on
the same kind of processor with the same number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hnas.errors import HnasError
from hnas.optim.methods.protocol import between, whole
from hnas.spaces.nasbench201.cell import EDGES, OPERATIONS
from hnas.supernets.gradients import Batch, first_order
from hnas.supernets.images import TrainingImages
from hnas.supernets.network import Mixture, SuperNetwork, layout_on
from hnas.training import Checkpoint, Progress, Recipe, learning_rate
from hnas.training.data import Normalise
from hnas.training.loop import forked_rng


class Course(NamedTuple):
    """The end of an epoch, counted from 1: the mean training loss, and the current architecture."""

    epoch: int
    loss: float
    decisions: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """The result of a search: an operation per edge, the time it took, and its epochs."""

    decisions: tuple[int, ...]
    seconds: float
    course: tuple[Course, ...] = ()


@dataclass(frozen=True)
class SupernetRecipe:
    """How a supernet is trained. `clip` bounds the norm of the weight gradient, `most_images` the images, if not 0.

    Raises `UsageError` for impossible values.
    """

    supernet_epochs: int = 200
    channels: int = 16
    cells: int = 5
    batch_size: int = 64
    lr: float = 0.025
    lr_min: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: int = 1
    clip: float = 0.0
    arch_lr: float = 3e-4
    arch_beta: float = 0.5
    arch_weight_decay: float = 1e-3
    arch_eps: float = 1e-8
    most_images: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, int):
                whole(field.name, value, least=_LEAST.get(field.name, 1))
            else:
                between(field.name, value, 0, 1e9)
        between("momentum", self.momentum, 0, 1 - 1e-9)
        between("arch_beta", self.arch_beta, 0, 1 - 1e-9)
        between("lr_min", self.lr_min, 0, self.lr)


_LEAST = {"batch_size": 2, "most_images": 0, "nesterov": 0, "progressive": 0, "warm_up": -1}


def second_time(step: Callable[[], Any]) -> float:
    """Return the seconds of the second call of `step`, because the first one includes setup."""
    step()
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


class WeightSharing:
    """A search on a supernet, with its state."""

    recipe_class: ClassVar[type[SupernetRecipe]] = SupernetRecipe
    #: Whether α moves before w in each step, instead of after.
    alphas_first: ClassVar[bool] = False

    def __init__(self, images: TrainingImages, recipe: SupernetRecipe, *, seed: int, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        train, valid = images.halves(seed, recipe.most_images)
        self.train, self.valid = train.to(device), valid.to(device)
        self.generator = torch.Generator().manual_seed(seed)
        self._noise_seed = int(torch.randint(2**62, (), generator=self.generator))
        self.network = self._network(seed)
        self.alphas = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(OPERATIONS), generator=self.generator))
        self.optimizer = self._sgd()
        self.arch_optimizer = torch.optim.Adam(
            self.searched(),
            lr=recipe.arch_lr,
            betas=(recipe.arch_beta, 0.999),
            eps=recipe.arch_eps,
            weight_decay=recipe.arch_weight_decay,
        )
        self.normalise = Normalise(images.mean, images.std, next(self.network.parameters()))
        self.normalise.layout = layout_on(device)
        self.epoch, self.seconds = 0, 0.0
        self.course: list[Course] = []

    def _network(self, seed: int, share: int = 1) -> SuperNetwork:
        r = self.recipe
        network = SuperNetwork(classes=self.train.classes, channels=r.channels, cells=r.cells, seed=seed, share=share)
        return network.to(self.device, memory_format=layout_on(self.device))  # type: ignore[call-overload, no-any-return]

    def _sgd(self) -> torch.optim.SGD:
        r = self.recipe
        return torch.optim.SGD(
            self.network.parameters(), lr=r.lr, momentum=r.momentum, weight_decay=r.weight_decay,
            nesterov=bool(r.nesterov) and r.momentum > 0,
        )  # fmt: skip

    # Hooks in which the searches differ.

    def mixture(self, alphas: Tensor) -> Mixture:
        """Return the mixture of operations for one pass."""
        raise NotImplementedError

    def searched(self) -> list[nn.Parameter]:
        """Return the architecture parameters."""
        return [self.alphas]

    def arch_gradient(self, train: Batch, valid: Batch) -> Tensor | None:
        """Return the gradient (6, 5) of α in one step, None where α does not move."""
        return first_order(self.network, self.mixture, self.alphas, valid)[0]

    def begin_epoch(self) -> None:
        """Run before the steps of an epoch."""

    def end_epoch(self) -> None:
        """Run after the steps of an epoch."""

    def standing(self) -> tuple[int, ...]:
        """Return the current architecture."""
        return tuple(self.alphas.argmax(dim=1).tolist())

    def result(self) -> tuple[int, ...]:
        """Return the final architecture."""
        return self.standing()

    def extra_state(self) -> dict[str, Any]:
        """Return further state of this kind of search."""
        return {}

    def restore_extra(self, state: dict[str, Any]) -> None:
        """Restore `extra_state`."""

    # The loop.

    def run(self, checkpoint: Checkpoint | None = None, progress: Progress | None = None) -> Found:
        """Train until the last epoch. Raises `HnasError` where the loss is no longer finite."""
        with forked_rng(self.device, self._noise_seed):
            if checkpoint is not None and (state := checkpoint.load()) is not None:
                self.restore(state)
            while self.epoch < self.recipe.supernet_epochs:
                begun = time.perf_counter()
                self._one_epoch(progress)
                self.epoch += 1
                if self.epoch == self.recipe.supernet_epochs:
                    self.course[-1] = self.course[-1]._replace(decisions=self.result())
                self.seconds += time.perf_counter() - begun
                if checkpoint is not None:
                    checkpoint.save(self.state())
        return Found(self.course[-1].decisions, self.seconds, tuple(self.course))

    def _one_epoch(self, progress: Progress | None) -> None:
        self.network.train()
        rate = learning_rate(
            Recipe(epochs=self.recipe.supernet_epochs, lr=self.recipe.lr, lr_min=self.recipe.lr_min), self.epoch
        )
        self.begin_epoch()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total, seen = 0.0, 0
        for train, valid in self.pairs():
            loss = self.step(train, valid)
            total += float(loss) * len(train[1])
            seen += len(train[1])
            if progress is not None:
                steps = math.ceil(len(self.train) / self.recipe.batch_size)
                done = self.epoch * steps + math.ceil(seen / self.recipe.batch_size)
                progress(done, self.recipe.supernet_epochs * steps, total / seen)
        if not math.isfinite(total):
            raise HnasError(
                f"the supernet diverged in epoch {self.epoch + 1} of {self.recipe.supernet_epochs}: its loss is no "
                f"longer finite; try an lr below {self.recipe.lr:g}"
            )
        self.end_epoch()
        self.course.append(Course(self.epoch + 1, total / seen, self.standing()))

    def pairs(self) -> Iterator[tuple[Batch, Batch]]:
        """Yield the batches of an epoch: each training image once, paired with random validation images."""
        order = torch.randperm(len(self.train), generator=self.generator)
        others = torch.randint(len(self.valid), (len(self.train),), generator=self.generator)
        size = self.recipe.batch_size
        return zip(
            self.train.batches(order, size, self.generator, self.normalise),
            self.valid.batches(others, size, self.generator, self.normalise),
            strict=True,
        )

    def step(self, train: Batch, valid: Batch) -> Tensor:
        """Update w and α once, and return the training loss before."""
        if self.alphas_first:
            self._arch_step(train, valid)
        loss = self._weight_step(train)
        if not self.alphas_first:
            self._arch_step(train, valid)
        return loss

    def estimate(self) -> float:
        """Return the estimated seconds of the whole search, from the second of two steps that it makes."""
        with forked_rng(self.device, self._noise_seed):
            pairs = list(islice(self.pairs(), 2))
            seconds = second_time(lambda: self.step(*pairs[-1]))
        steps = self.recipe.supernet_epochs * math.ceil(len(self.train) / self.recipe.batch_size)
        return seconds * steps

    def _weight_step(self, train: Batch) -> Tensor:
        images, labels = train
        self.optimizer.zero_grad()
        loss = cross_entropy(self.network(images, self.mixture(self.alphas.detach())), labels)
        torch.autograd.backward(loss)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()
        return loss.detach()

    def _arch_step(self, train: Batch, valid: Batch) -> None:
        self.optimizer.zero_grad()  # free the gradient of w before building another graph
        gradient = self.arch_gradient(train, valid)
        if gradient is not None:
            self.alphas.grad = gradient
            self.arch_optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the search depends on; after the last epoch, only the result."""
        known = {"epoch": self.epoch, "seconds": self.seconds, "course": [list(row) for row in self.course]}
        if self.epoch == self.recipe.supernet_epochs:
            return known
        cuda = self.device.type == "cuda"
        return {
            **known,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "alphas": self.alphas.detach(),
            "arch_optimizer": self.arch_optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "noise": torch.default_generator.get_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
            "extra": self.extra_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`. Raises `HnasError` where it belongs to another search."""
        try:
            self.epoch, self.seconds = state["epoch"], state["seconds"]
            self.course = [Course(epoch, loss, tuple(decisions)) for epoch, loss, decisions in state["course"]]
            if self.epoch == self.recipe.supernet_epochs:
                return
            self.restore_extra(state["extra"])
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.alphas.data.copy_(state["alphas"])
            self.arch_optimizer.load_state_dict(state["arch_optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise HnasError(f"the supernet cannot continue from its checkpoint: {reason}; remove it") from error
        self.generator.set_state(state["generator"])
        torch.default_generator.set_state(state["noise"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.device)
