"""Weights drawn from a key of (run seed, position of the layer, its kind and shape).

A layer's weights depend on nothing else: not on the layers drawn before it, the worker, the order of architectures.
Networks that have a layer of one kind at one position share its weights (common random numbers), which takes the
initialisation's noise out of the comparison between them.
"""

from __future__ import annotations

import math
from hashlib import blake2b

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """A convolution without bias or padding surprises whose weights stay undrawn until `initialise` fills them."""

    def reset_parameters(self) -> None:
        """Leave the weights as allocated: `initialise` draws them, and drawing them twice costs as much as a pass."""


class Linear(nn.Linear):
    """A linear layer whose weights stay undrawn until `initialise` fills them."""

    def reset_parameters(self) -> None:
        """Leave the weights as allocated; see `Conv2d`."""


def initialise(network: nn.Module, seed: int) -> nn.Module:
    """Draw every Conv and Linear layer's weights in place, and return the network.

    PyTorch's default distribution, which the NAS benchmarks train from: weights and biases uniform in
    `±1/√fan_in`. The key is `seed`, the module's qualified name in `network`, and the shape of its weight; the stream
    is torch's own generator on the CPU, so a network is the same on every device.

    >>> import torch
    >>> from hnas import initialise
    >>> first, second = (initialise(torch.nn.Linear(4, 2), seed=0) for _ in range(2))
    >>> torch.equal(first.weight, second.weight), bool(first.weight.abs().max() <= 1 / 4**0.5)
    (True, True)
    """
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
                shape = "x".join(map(str, module.weight.shape))
                generator = torch.Generator().manual_seed(_key(f"{seed}/{name}/{shape}"))
                bound = 1 / math.sqrt(module.weight[0].numel())
                _uniform(module.weight, bound, generator)
                if module.bias is not None:
                    _uniform(module.bias, bound, generator)
    return network


def _uniform(target: Tensor, bound: float, generator: torch.Generator) -> None:
    if target.is_meta:  # somebody asks for shapes only
        return
    drawn = torch.empty(target.shape, dtype=torch.float32, device="cpu")  # whatever torch's defaults are
    target.copy_(drawn.uniform_(-bound, bound, generator=generator))


def _key(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
