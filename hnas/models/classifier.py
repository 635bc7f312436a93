"""A classifier of pixels: a network together with its normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hnas.errors import UsageError


class Classifier(nn.Module):
    """f(x) = network((x / 255 - mean) / std), from pixels (n, 3, S, S) in 0 to 255 to logits (n, classes).

    The operations are those of training in the same order, so the logits equal those of the evaluation. `network` alone
    takes normalised images.
    """

    channel_mean: Tensor
    channel_std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        like = next(network.parameters())
        for name, values in (("channel_mean", mean), ("channel_std", std)):
            # Settings, not weights, so not part of the state dict. Not called `mean`, because ONNX uses that name.
            self.register_buffer(name, like.new_tensor(list(values)).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, classes) for RGB pixels (n, 3, S, S): uint8, or floats from 0 to 255."""
        inputs = images.to(self.channel_mean.dtype) / 255
        logits: Tensor = self.network((inputs - self.channel_mean) / self.channel_std)
        return logits

    def probabilities(self, images: Tensor) -> Tensor:
        """Return softmax(f(images)) for uint8 pixels (n, 3, S, S): float64 (n, classes), on the CPU.

        Computed in evaluation mode; the modes of all modules are restored. Raises `UsageError` for other images.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(
                "images to classify must be uint8 of shape (n, 3, height, width), "
                f"got {images.dtype} of shape {tuple(images.shape)}"
            )
        before = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.inference_mode():
                return torch.softmax(self(images.to(self.channel_mean.device)).double(), 1).cpu()
        finally:
            for module, mode in before:
                module.training = mode
