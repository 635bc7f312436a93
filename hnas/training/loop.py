"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas.errors import HnasError, UsageError, check_seed
from hnas.training.augmentation import augment, crop_padding, cut_out
from hnas.training.data import Normalise, check_classes, check_data
from hnas.training.evaluation import logits_of, mode, probe, share_right
from hnas.training.recipe import Recipe, learning_rate
from hnas.training.result import Checkpoint, DivergedError, Epoch, TrainingResult

Progress = Callable[[int, int, float], None]


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: Recipe,
    seed: int,
    valid: tuple[Tensor, Tensor] | None = None,
    test: tuple[Tensor, Tensor] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train `network` in place and measure its accuracy on held-out data.

    Training takes place on the device and in the precision of the network's parameters. Images stay uint8 there and are
    augmented and normalised batch by batch. Shuffling, flips and crops use their own CPU generator; layers that draw
    (dropout, drop path) use a seeded fork of the global generators. Thus, on the CPU, the same network, seed and number
    of threads give bit-identical results, and the global generators do not advance. On CUDA the draws are the same, but
    kernels that add in varying order are only as repeatable as `torch.use_deterministic_algorithms` makes them.
    Afterwards, the training or evaluation mode of every module is restored.

    `network` maps (n, 3, H, W) to logits (n, classes). `images` are uint8 (n, 3, H, W), and `labels` int64 (n,) in 0,
    …, classes - 1. `mean` and `std` are per channel, in units of pixel / 255. A smaller last batch is used unless it is
    a single image, on which batch norm fails at a spatial size of 1. `seed` does not affect the initialisation, which
    happens when the network is built. `valid` and `test` are images and labels for evaluation only: `valid` after each
    epoch, `test` after the last. `checkpoint` stores the state after each epoch but the last; a training with the same
    arguments that finds a state continues from it, with the same result as an uninterrupted one. `progress` is called
    after every step with the steps done, the total, and the epoch's mean loss so far, and again with the same values
    after every batch of an evaluation.

    Raises `UsageError` for data of the wrong type, shape or length, fewer than 2 images, labels outside the network's
    classes, a network without trainable parameters or logits, or without the drop path or second classifier that the
    recipe needs, an invalid mean, std or seed; `DivergedError` where the loss or a weight is no longer finite;
    `HnasError` where the checkpoint is that of another network.

    >>> import torch
    >>> from hnas import Recipe, initialise, train
    >>> network = initialise(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)), seed=0)
    >>> images = torch.arange(8).remainder(2).mul(255).to(torch.uint8).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    >>> labels = torch.arange(8).remainder(2)
    >>> recipe = Recipe(epochs=20, batch_size=4, crop=False)
    >>> result = train(network, images, labels, mean=[0.5] * 3, std=[0.5] * 3, recipe=recipe, seed=0)
    >>> result.train_accuracy, len(result.curve)
    (100.0, 20)
    """
    start = time.perf_counter()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise UsageError(f"{type(network).__name__} has no trainable parameters, so there is nothing to train")
    seed = check_seed(seed)
    parts = {"training": (images, labels), "validation": valid, "test": test}
    for name, data in parts.items():
        if data is not None:
            check_data(*data, name)
    if len(images) < 2:
        raise UsageError(f"training needs at least 2 images, the smallest batch for batch norm, got {len(images)}")
    normalise = Normalise(mean, std, parameters[0])
    classes = probe(network, images[:2], normalise)
    for name, data in parts.items():
        if data is not None:
            check_classes(data[1], classes, name)

    loop = _Loop(network, parameters, normalise, recipe, seed, len(images), checkpoint, start)
    loop.run(images, labels, valid, progress)
    last = loop.curve[-1]
    return TrainingResult(
        valid_accuracy=last.valid_accuracy,
        test_accuracy=None if test is None else loop.measure(*test, normalise.plain(), progress),
        train_loss=last.loss,
        train_accuracy=last.train_accuracy,
        epochs=recipe.epochs,
        seconds=time.perf_counter() - loop.start,
        parameters=sum(parameter.numel() for parameter in parameters),
        curve=tuple(loop.curve),
    )


class _Loop:
    """A training on checked data: its network, optimizer and generators, and the epochs so far."""

    def __init__(
        self,
        network: nn.Module,
        parameters: list[nn.Parameter],
        normalise: Normalise,
        recipe: Recipe,
        seed: int,
        count: int,
        checkpoint: Checkpoint | None,
        start: float,
    ) -> None:
        self.start = start
        self.curve: list[Epoch] = []
        self._reported = (0, 0, 0.0)
        self._network, self._parameters, self._normalise, self._recipe = network, parameters, normalise, recipe
        self._checkpoint = checkpoint
        self._device = parameters[0].device
        self._optimizer = _optimizer(parameters, recipe)
        self._generator = torch.Generator().manual_seed(seed)
        # Not `seed` itself, or dropout would reuse the random bits that shuffle the images.
        self._noise_seed = int(torch.randint(2**62, (), generator=self._generator))
        full, rest = divmod(count, recipe.batch_size)
        self._steps = full + (rest > 1)
        if recipe.drop_path and not isinstance(getattr(network, "drop_path", None), (float, int)):
            raise UsageError(f"{type(network).__name__} has no drop path; use a recipe with drop_path 0")

    def run(
        self, images: Tensor, labels: Tensor, valid: tuple[Tensor, Tensor] | None, progress: Progress | None
    ) -> None:
        """Train until the last epoch."""
        images, labels = images.to(self._device), labels.to(self._device)
        drop_path = getattr(self._network, "drop_path", None)
        epochs = self._recipe.epochs
        try:
            with mode(self._network, training=True), forked_rng(self._device, self._noise_seed):
                if self._checkpoint is not None and (state := self._checkpoint.load()) is not None:
                    self._restore(state)
                for epoch in range(len(self.curve), epochs):
                    self._epoch(epoch, images, labels, valid, progress)
                    if self._checkpoint is not None and epoch + 1 < epochs:
                        self._checkpoint.save(self._state())
        finally:
            if self._recipe.drop_path:
                self._network.drop_path = drop_path  # type: ignore[assignment]
        self._optimizer.zero_grad()  # do not leave the last gradient on the caller's network

    def _epoch(
        self,
        epoch: int,
        images: Tensor,
        labels: Tensor,
        valid: tuple[Tensor, Tensor] | None,
        progress: Progress | None,
    ) -> None:
        recipe, device, generator = self._recipe, self._device, self._generator
        padding = crop_padding(*images.shape[2:]) if recipe.crop else 0
        rate = learning_rate(recipe, epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if recipe.drop_path:
            self._network.drop_path = recipe.drop_path * epoch / recipe.epochs  # type: ignore[assignment]
        # Always drawn, so that turning augmentation off does not change the order of the images.
        order = torch.randperm(len(images), generator=generator).to(device)
        flips = (torch.rand(len(images), generator=generator) < (0.5 if recipe.flip else 0)).to(device)
        shifts = torch.randint(2 * padding + 1, (len(images), 2), generator=generator).to(device)
        centres = None
        if recipe.cutout:
            places = torch.rand((len(images), 2), generator=generator) * torch.tensor(images.shape[2:])
            centres = places.long().to(device)
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        right = torch.zeros((), dtype=torch.int64, device=device)
        seen = 0
        for step, index in enumerate(torch.split(order, recipe.batch_size)[: self._steps]):
            inputs, truth = self._normalise(augment(images[index], flips[index], shifts[index], padding)), labels[index]
            if centres is not None:
                cut_out(inputs, centres[index], recipe.cutout)
            self._optimizer.zero_grad()
            logits, loss = self._loss(inputs, truth)
            torch.autograd.backward(loss)
            if recipe.clip:
                nn.utils.clip_grad_norm_(self._parameters, recipe.clip)
            self._optimizer.step()
            loss_sum += loss.detach() * len(index)
            right += (logits.detach().argmax(1) == truth).sum()
            seen += len(index)
            if progress is not None:
                self._reported = epoch * self._steps + step + 1, recipe.epochs * self._steps, float(loss_sum) / seen
                progress(*self._reported)
        # Checked once per epoch, because reading a value on CUDA waits for the device (as `progress` does).
        if not bool(loss_sum.isfinite()) or not all(bool(p.isfinite().all()) for p in self._parameters):
            raise DivergedError(
                f"training diverged in epoch {epoch + 1} of {recipe.epochs}: the loss or a weight is no longer "
                f"finite; try a learning rate below {recipe.lr:g}",
                time.perf_counter() - self.start,
                tuple(self.curve),
            )
        measured = None if valid is None else self.measure(*valid, self._evaluating(epoch), progress)
        self.curve.append(
            Epoch(
                epoch + 1, float(loss_sum) / seen, 100 * int(right) / seen, measured, rate,
                time.perf_counter() - self.start,
            )
        )  # fmt: skip

    def measure(self, images: Tensor, labels: Tensor, normalise: Normalise, progress: Progress | None) -> float:
        """Return the network's accuracy on checked data, in percent."""
        tick = (lambda: None) if progress is None else lambda: progress(*self._reported)
        return share_right(self._network, images, labels, normalise, tick=tick)

    def _loss(self, inputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the loss of a batch."""
        recipe = self._recipe
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.mixed and self._device.type == "cuda"):
            extra: Tensor | None = None
            if recipe.auxiliary:
                logits, extra = _both(self._network, inputs)
            else:
                logits = logits_of(self._network, inputs)
            loss = F.cross_entropy(logits, truth, label_smoothing=recipe.label_smoothing)
            if extra is not None:
                loss = loss + recipe.auxiliary * F.cross_entropy(extra, truth, label_smoothing=recipe.label_smoothing)
        return logits, loss

    def _evaluating(self, epoch: int) -> Normalise:
        """Return the fast memory layout for all epochs but the last, which uses the plain one like `accuracy`."""
        return self._normalise if epoch + 1 < self._recipe.epochs else self._normalise.plain()

    def _state(self) -> dict[str, Any]:
        cuda = self._device.type == "cuda"
        return {
            "model": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "noise": torch.default_generator.get_state(),
            "cuda": torch.cuda.get_rng_state(self._device) if cuda else None,
            "curve": [asdict(epoch) for epoch in self.curve],
            "seconds": time.perf_counter() - self.start,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self._network.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise HnasError(f"the training cannot continue from its checkpoint: {reason}; remove it") from error
        self._generator.set_state(state["generator"])
        torch.default_generator.set_state(state["noise"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self._device)
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]
        self.start -= state["seconds"]


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "rmsprop":
        # As in NAS-Bench-101, except that TensorFlow's √(v + ε) is √v + ε in torch.
        return torch.optim.RMSprop(
            parameters, lr=recipe.lr, alpha=0.9, eps=1.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,  # torch refuses Nesterov without momentum
        weight_decay=recipe.weight_decay,
    )


def _both(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of both classifiers of a network."""
    logits = network(inputs)
    if not isinstance(logits, tuple) or len(logits) != 2:
        raise UsageError(f"{type(network).__name__} has no second classifier; use a recipe with auxiliary 0")
    return logits


@contextmanager
def forked_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global generators of the CPU and `device` inside, and restore them on exit.

    Unlike `torch.manual_seed`, this does not reseed other devices.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
