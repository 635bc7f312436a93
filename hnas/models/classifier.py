"""A network that takes pixels: its normalisation is part of it, so that nobody has to remember it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hnas.errors import UsageError


class Classifier(nn.Module):
    """f(x) = network((x / 255 - mean) / std): from pixels (n, 3, S, S), 0 to 255, to logits (n, classes).

    The operations are those of training in their order, so the logits are those that the network was evaluated with.
    `network` alone takes images that are normalised already.
    """

    channel_mean: Tensor
    channel_std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        like = next(network.parameters())
        for name, values in (("channel_mean", mean), ("channel_std", std)):
            # Settings, not weights: they are no part of the state. Not `mean`, which ONNX calls a network's own means.
            self.register_buffer(name, like.new_tensor(list(values)).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of RGB pixels (n, 3, S, S): uint8, or floats from 0 to 255."""
        inputs = images.to(self.channel_mean.dtype) / 255
        logits: Tensor = self.network((inputs - self.channel_mean) / self.channel_std)
        return logits

    def probabilities(self, images: Tensor) -> Tensor:
        """softmax(f(images)) of uint8 pixels (n, 3, S, S): float64 (n, classes), on the CPU.

        Computed in evaluation mode; every module comes back in the mode that it had. Raises `UsageError` for anything
        but such pixels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(
                f"images to classify have shape {tuple(images.shape)} and type {images.dtype}; they must be uint8, "
                "(n, 3, height, width)"
            )
        before = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.inference_mode():
                return torch.softmax(self(images.to(self.channel_mean.device)).double(), 1).cpu()
        finally:
            for module, mode in before:
                module.training = mode
