"""Train one network for real and report its accuracy: what `hnas evaluate` and the `train` oracle rest on.

The recipe is the one that made NAS-Bench-201's table (Dong and Yang, "NAS-Bench-201: Extending the Scope of
Reproducible Neural Architecture Search", ICLR 2020; code: AutoDL-Projects): SGD with
Nesterov momentum 0.9 and weight decay 5e-4 on every parameter, cross entropy, batches of 256, a random horizontal flip
and then a random crop, and for epoch e = 0, …, E - 1 the learning rate

    lr(e) = lr₀ (1 + cos(π e / E)) / 2,        lr₀ = 0.1

constant within an epoch. As in the benchmark, flip and crop act on the uint8 image: the padding is black, that is
-mean/std after normalisation, not 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hnas.errors import HnasError, UsageError, check_seed

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are NAS-Bench-201's. Raises `UsageError` for values that cannot work.

    Turn `flip` off where a mirrored image means something else: digits, letters, road signs.
    """

    epochs: int = 200
    batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    flip: bool = True
    crop: bool = True

    def __post_init__(self) -> None:
        rules = (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 2, "at least 2, which batch norm needs where the spatial size is 1"),
            ("epochs", self.epochs < 2**31, "below 2**31"),
            ("batch_size", self.batch_size < 2**31, "below 2**31"),
            ("lr", 0 < self.lr < math.inf, "above 0 and finite"),
            ("momentum", 0 <= self.momentum < 1, "at least 0 and below 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0 and finite"),
        )
        for name, holds, right in rules:
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)} in the training recipe; it must be {right}")


@dataclass(frozen=True)
class TrainingResult:
    """What one training gave.

    valid_accuracy, test_accuracy: percent, of the network as the last epoch left it; None where no such data was given.
    train_loss, train_accuracy: mean cross entropy (nats) and percent over the last epoch's batches as they were trained
        on: augmented, in training mode, weights changing between batches (the benchmark reports the same).
    seconds: wall-clock time of the whole call, the evaluations included.
    parameters: number of trainable scalars.
    """

    valid_accuracy: float | None
    test_accuracy: float | None
    train_loss: float
    train_accuracy: float
    epochs: int
    seconds: float
    parameters: int


def stratified_split(
    labels: NDArray[np.integer], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of a training and a validation part that hold every class in the same proportion.

    Of a class with n_k images, v_k = round(share · n_k) go to validation, but at least 1 and at most n_k - 1, so that
    |v_k - share · n_k| < 1 and classes of equal size give equally many. Which ones is drawn at random from `seed`.

    Args:
        labels: (n,) integers.
        share: the validation part's share, in (0, 1).
        seed: 0 or above; the same seed gives the same split.

    Returns:
        training (n - v,) and validation (v,), each ascending, disjoint, together 0, …, n - 1.

    Raises:
        UsageError: `share` outside (0, 1), labels that are not a line of integers, a negative seed, no image at all, or
            a class with a single image, which cannot be in both parts.
    """
    if not 0 < share < 1:
        raise UsageError(f"the validation share is {share}; it must be above 0 and below 1")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(
            f"labels to split have shape {labels.shape} and type {labels.dtype}; they must be integers of shape (n,)"
        )
    check_seed(seed)
    if not len(labels):
        raise UsageError("there are no images to split; every class needs at least 2")
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
        if size < 2:
            raise UsageError(
                f"class {label} has a single image; a stratified split needs at least 2, one for training and one for "
                "validation"
            )
        count = min(max(round(share * int(size)), 1), int(size) - 1)
        chosen[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """lr(e) = lr₀ (1 + cos(π e / E)) / 2 for epoch e = 0, …, E - 1: from lr₀ down to almost 0, which e = E would reach.

    Stepped by epoch, not by iteration, because the benchmark does so (its per-iteration updates only act in a warm-up,
    and it has none).
    """
    return recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


def crop_padding(height: int, width: int) -> int:
    """Pixels of black around an image before the random crop: 4 from 32 pixels up, 2 from 16, else 1.

    The benchmark uses 4 for CIFAR (32 pixels) and 2 for ImageNet16-120 (16 pixels), an eighth of the side; a shift of 4
    would cut an 8-pixel digit in half.
    """
    side = min(height, width)
    if side < 16:
        return 1
    return 2 if side < 32 else 4


def augment(images: Tensor, flips: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Mirror the chosen images left to right, pad all with black, and cut the original size out at a shifted place.

    Args:
        images: uint8, (n, 3, H, W).
        flips: bool, (n,).
        shifts: int64, (n, 2), row and column of the cut's upper left corner in the padded image, in 0, …, 2 padding.
        padding: pixels on each side.

    Returns:
        uint8, (n, 3, H, W).
    """
    height, width = images.shape[2:]
    images = torch.where(flips[:, None, None, None], images.flip(3), images)
    if not padding:
        return images
    # A strided view of every possible cut, (n, 3, 2p + 1, 2p + 1, H, W): only the chosen ones are copied.
    cuts = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return cuts[torch.arange(len(images), device=images.device), :, shifts[:, 0], shifts[:, 1]]


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
    progress: Progress | None = None,
) -> TrainingResult:
    """Train `network` in place and measure its accuracy on held-out data.

    Everything happens on the device and in the precision of the network's parameters. The images stay uint8 there, and
    are augmented and normalised a batch at a time. Shuffling, flips and crops have a generator of their own on the CPU;
    layers that draw (dropout, drop path) draw from a seeded fork. So on the CPU the same network, seed and thread count
    give the same result bit for bit, and the global generators are left as they were. On CUDA the draws are the same,
    but kernels that add in any order are as repeatable as `torch.use_deterministic_algorithms` makes them. Afterwards
    every module is in the mode, training or evaluation, that it came in.

    Args:
        network: maps (n, 3, H, W) to logits (n, classes).
        images: uint8, (n, 3, H, W).
        labels: int64, (n,), in 0, …, classes - 1.
        mean, std: of each channel, in units of pixel / 255.
        recipe: see `Recipe`. A last, smaller batch is trained on unless it is a single image, on which batch norm fails
            where the spatial size is 1.
        seed: 0 or above. It does not initialise the network: that is done when it is built.
        valid, test: images and labels as above, only ever evaluated on, after the last epoch.
        progress: called after every step with steps done, steps in all, and the mean loss of this epoch so far.

    Raises:
        UsageError: data of the wrong type, shape or length, fewer than 2 images, labels the network has no class for,
            a network without trainable parameters or logits, a bad mean or std, a negative seed.
        HnasError: the loss or a weight stopped being finite.
    """
    start = time.perf_counter()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise UsageError(f"{type(network).__name__} has no trainable parameters; there is nothing to train")
    check_seed(seed)
    given = {"training": (images, labels), "validation": valid, "test": test}
    for name, data in given.items():
        if data is not None:
            _check_data(*data, name)
    if len(images) < 2:
        raise UsageError(f"there are {len(images)} training images; batch norm needs batches of at least 2")
    normalise = _Normalise(mean, std, parameters[0])
    classes = _probe(network, images[:2], normalise)
    for name, data in given.items():
        if data is not None:
            _check_classes(data[1], classes, name)

    loss, right = _fit(network, parameters, images, labels, normalise, recipe, seed, progress)
    return TrainingResult(
        valid_accuracy=None if valid is None else accuracy(network, *valid, mean, std),
        test_accuracy=None if test is None else accuracy(network, *test, mean, std),
        train_loss=loss,
        train_accuracy=right,
        epochs=recipe.epochs,
        seconds=time.perf_counter() - start,
        parameters=sum(parameter.numel() for parameter in parameters),
    )


def accuracy(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 512,
) -> float:
    """Percent of the images whose largest logit is their label's: evaluation mode, no gradients, no augmentation.

    Args:
        network: maps (n, 3, H, W) to logits (n, classes); its modules come back in the mode they had.
        images: uint8, (n, 3, H, W), n at least 1.
        labels: int64, (n,), in 0, …, classes - 1.
        mean, std: of each channel, in units of pixel / 255.
        batch_size: images a forward pass; it bounds the memory.

    Raises:
        UsageError: data of the wrong type, shape or length, no image, labels the network has no class for, a network
            without parameters or logits, a bad mean or std, a batch size below 1.
    """
    _check_data(images, labels, "evaluation")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size} for the evaluation; it must be at least 1")
    parameter = next(network.parameters(), None)
    if parameter is None:
        raise UsageError(f"{type(network).__name__} has no parameters, so no device or precision to evaluate it in")
    normalise = _Normalise(mean, std, parameter)
    right = torch.zeros((), dtype=torch.int64, device=parameter.device)
    with _mode(network, training=False), torch.no_grad():
        for some, truth in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
            logits = _logits(network, normalise(some))
            _check_classes(truth, logits.shape[1], "evaluation")
            right += (logits.argmax(1) == truth.to(right.device)).sum()
    return 100 * int(right) / len(labels)


def _fit(
    network: nn.Module,
    parameters: list[nn.Parameter],
    images: Tensor,
    labels: Tensor,
    normalise: _Normalise,
    recipe: Recipe,
    seed: int,
    progress: Progress | None,
) -> tuple[float, float]:
    """Train on checked data; the last epoch's mean loss (nats) and accuracy (percent)."""
    device = parameters[0].device
    images, labels = images.to(device), labels.to(device)
    optimizer = torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,  # torch refuses Nesterov without momentum
        weight_decay=recipe.weight_decay,
    )
    padding = crop_padding(*images.shape[2:]) if recipe.crop else 0
    full, rest = divmod(len(images), recipe.batch_size)
    steps = full + (rest > 1)
    generator = torch.Generator().manual_seed(seed)
    # Not `seed` itself: dropout would then repeat the bits that shuffle the images.
    noise_seed = int(torch.randint(2**62, (), generator=generator))
    with _mode(network, training=True), _forked_rng(device, noise_seed):
        for epoch in range(recipe.epochs):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, epoch)
            # Drawn whether used or not, so that switching the augmentation off keeps the order of the images.
            order = torch.randperm(len(images), generator=generator).to(device)
            flips = (torch.rand(len(images), generator=generator) < (0.5 if recipe.flip else 0)).to(device)
            shifts = torch.randint(2 * padding + 1, (len(images), 2), generator=generator).to(device)
            loss_sum = torch.zeros((), dtype=torch.float64, device=device)
            right = torch.zeros((), dtype=torch.int64, device=device)
            seen = 0
            for step, index in enumerate(torch.split(order, recipe.batch_size)[:steps]):
                batch, truth = augment(images[index], flips[index], shifts[index], padding), labels[index]
                optimizer.zero_grad()
                logits = _logits(network, normalise(batch))
                loss = F.cross_entropy(logits, truth)
                torch.autograd.backward(loss)
                optimizer.step()
                loss_sum += loss.detach() * len(index)
                right += (logits.detach().argmax(1) == truth).sum()
                seen += len(index)
                if progress is not None:
                    progress(epoch * steps + step + 1, recipe.epochs * steps, float(loss_sum) / seen)
            # Once an epoch: on CUDA each look would wait for the device, as it does for who watches the progress.
            if not bool(loss_sum.isfinite()) or not all(bool(p.isfinite().all()) for p in parameters):
                raise HnasError(
                    f"training diverged in epoch {epoch + 1} of {recipe.epochs}: the loss or a weight is no longer "
                    f"finite; try a learning rate below {recipe.lr:g}"
                )
    optimizer.zero_grad()  # the caller wants the network, not its last gradient beside it
    return float(loss_sum) / seen, 100 * int(right) / seen


class _Normalise:
    """x = (pixel / 255 - mean) / std, from uint8 (n, 3, H, W) to the device and precision of a network's parameter.

    In this order of operations, which is that of torchvision's ToTensor and Normalize, so that bits agree.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], like: Tensor) -> None:
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise UsageError(f"{name} is {tuple(values)}; it must be 3 finite numbers, one for each channel")
        if min(std) <= 0:
            raise UsageError(f"std is {tuple(std)}; each channel's must be above 0")
        self.mean, self.std = (like.new_tensor(list(values)).view(3, 1, 1) for values in (mean, std))
        self.layout = torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        inputs = images.to(self.mean.device).to(self.mean.dtype, memory_format=self.layout)
        return inputs.div_(255).sub_(self.mean).div_(self.std)


def _probe(network: nn.Module, images: Tensor, normalise: _Normalise) -> int:
    """The network's number of classes; on a CPU, `normalise` turns to channels-last order where the network takes it.

    That order makes a training step of a convolution and batch norm network 1.3 to 2 times faster on a CPU (measured at
    8 and 32 pixels, 1 and 2 threads). A network that calls `view(n, -1)` on its feature maps refuses it.
    """
    with _mode(network, training=False), torch.no_grad():
        if normalise.mean.device.type == "cpu":
            normalise.layout = torch.channels_last
            try:
                return _logits(network, normalise(images)).shape[1]
            except RuntimeError:
                normalise.layout = torch.contiguous_format
        return _logits(network, normalise(images)).shape[1]


def _logits(network: nn.Module, inputs: Tensor) -> Tensor:
    logits = network(inputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"{type(network).__name__} returned {shape} for {len(inputs)} images; it must return logits of shape "
            f"({len(inputs)}, classes)"
        )
    return logits


@contextmanager
def _mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside, each module's own mode again outside."""
    before = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


@contextmanager
def _forked_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Seeded global generators of the CPU and `device` inside, the caller's again outside.

    Not `torch.manual_seed`, which would reseed every other device as well.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _check_data(images: Tensor, labels: Tensor, name: str) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(
            f"{name} images have shape {tuple(images.shape)} and type {images.dtype}; they must be torch.uint8 of "
            "shape (n, 3, height, width)"
        )
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise UsageError(
            f"{name} labels have shape {tuple(labels.shape)} and type {labels.dtype}; they must be torch.int64 of "
            "shape (n,)"
        )
    if len(images) != len(labels):
        raise UsageError(f"{len(images)} {name} images come with {len(labels)} labels; each needs exactly one")
    if not len(images):
        raise UsageError(f"there are no {name} images; at least one is needed")


def _check_classes(labels: Tensor, classes: int, name: str) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UsageError(
            f"{name} labels run from {low} to {high}, but the network has {classes} classes; labels must be in 0, …, "
            f"{classes - 1}"
        )
