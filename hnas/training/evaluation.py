"""A network applied to images: its logits, its mode, its accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hnas.errors import UsageError
from hnas.training.data import Normalise, check_classes, check_data


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
    check_data(images, labels, "evaluation")
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size} for the evaluation; it must be at least 1")
    parameter = next(network.parameters(), None)
    if parameter is None:
        raise UsageError(f"{type(network).__name__} has no parameters, so no device or precision to evaluate it in")
    return share_right(network, images, labels, Normalise(mean, std, parameter), batch_size)


def share_right(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    normalise: Normalise,
    batch_size: int = 512,
    tick: Callable[[], None] = lambda: None,
) -> float:
    """The same of checked data, normalised by `normalise`; `tick` is called after each batch."""
    right = torch.zeros((), dtype=torch.int64, device=normalise.mean.device)
    with mode(network, training=False), torch.no_grad():
        for some, truth in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
            logits = logits_of(network, normalise(some))
            check_classes(truth, logits.shape[1], "evaluation")
            right += (logits.argmax(1) == truth.to(right.device)).sum()
            tick()
    return 100 * int(right) / len(labels)


def probe(network: nn.Module, images: Tensor, normalise: Normalise) -> int:
    """The network's number of classes; on a CPU, `normalise` turns to channels-last order where the network takes it.

    That order makes a training step of a convolution and batch norm network 1.3 to 2 times faster on a CPU (measured at
    8 and 32 pixels, 1 and 2 threads). A network that calls `view(n, -1)` on its feature maps refuses it.
    """
    with mode(network, training=False), torch.no_grad():
        if normalise.mean.device.type == "cpu":
            normalise.layout = torch.channels_last
            try:
                return logits_of(network, normalise(images)).shape[1]
            except RuntimeError:
                normalise.layout = torch.contiguous_format
        return logits_of(network, normalise(images)).shape[1]


def logits_of(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits (n, classes) of inputs (n, 3, H, W). Raises `UsageError` where the network returns something else."""
    logits = network(inputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"{type(network).__name__} returned {shape} for {len(inputs)} images; it must return logits of shape "
            f"({len(inputs)}, classes)"
        )
    return logits


@contextmanager
def mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside, each module's own mode again outside."""
    before = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
