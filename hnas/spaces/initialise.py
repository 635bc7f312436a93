"""Weights drawn from a key of (run seed, position of the layer, its kind and shape).

A layer's weights depend on nothing else: not on other layers, the worker, or the order of architectures. Networks with
the same kind of layer at the same position share its weights (common random numbers), which removes the noise of
initialisation from comparisons. With n the fan-in (weights per output), k the positions of a kernel, and C' the output
channels, the initialisations are

    torch        weights and biases of Conv and Linear uniform in ±1/√n, PyTorch's default
    he           weights normal, mean 0, standard deviation √(2/n); biases 0
    published    Conv weights normal, √(2/(k C')), Linear weights normal, 0.01; biases 0; batch norm 1 and 0

`he` is Kaiming normal initialisation by fan-in with ReLU's gain √2, including the classifier (He, Zhang, Ren, Sun,
"Delving Deep into Rectifiers", ICCV 2015). `published` is the initialisation of NAS-Bench-101 in the program of the
HNAS paper (`_initialize_weights` in foresight/models/nasbench1.py of shuyao95/HNAS). Both scale the same normal
numbers.
"""

from __future__ import annotations

import math
from hashlib import blake2b

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hnas.errors import unknown

INITIALISATIONS = ("torch", "he", "published")


class Conv2d(nn.Conv2d):
    """A convolution whose weights stay uninitialised until `initialise` draws them."""

    def reset_parameters(self) -> None:
        """Leave the weights uninitialised: drawing them twice would take as long as a forward pass."""


class Linear(nn.Linear):
    """A linear layer whose weights stay uninitialised until `initialise` draws them."""

    def reset_parameters(self) -> None:
        """Leave the weights uninitialised; see `Conv2d`."""


def initialise(network: nn.Module, seed: int, init: str = "torch") -> nn.Module:
    """Draw the weights of all Conv and Linear layers in place, and return the network.

    `init` is one of `INITIALISATIONS`; see the module's docstring. The key consists of `seed`, the module's qualified
    name in `network`, and the shape of its weight. Numbers come from torch's CPU generator, so a network is the same on
    every device. Raises `UsageError` for an unknown `init`.

    >>> import torch
    >>> from hnas import initialise
    >>> first, second = (initialise(torch.nn.Linear(4, 2), seed=0) for _ in range(2))
    >>> torch.equal(first.weight, second.weight), bool(first.weight.abs().max() <= 1 / 4**0.5)
    (True, True)
    """
    if init not in INITIALISATIONS:
        raise unknown("the initialisation", init, INITIALISATIONS)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
                shape = "x".join(map(str, module.weight.shape))
                generator = torch.Generator().manual_seed(_key(f"{seed}/{name}/{shape}"))
                if init == "torch":
                    bound = 1 / math.sqrt(module.weight[0].numel())
                    _uniform(module.weight, bound, generator)
                    if module.bias is not None:
                        _uniform(module.bias, bound, generator)
                else:
                    _normal(module.weight, _deviation(module, init), generator)
                    if module.bias is not None:
                        module.bias.zero_()
            elif init == "published" and isinstance(module, _BatchNorm) and module.affine:
                module.weight.fill_(1)
                module.bias.zero_()
    return network


def redrawn(network: nn.Module, seed: int, init: str) -> nn.Module:
    """Return `network`, built by its space with `seed`, initialised by `init`; for `torch` it is returned unchanged."""
    return network if init == "torch" else initialise(network, seed, init)


def _deviation(module: nn.Module, init: str) -> float:
    """Return the standard deviation of a layer's normal weights (C', C, ...)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if init == "published" and isinstance(module, nn.Linear):
        return 0.01
    # The published program counts all output channels, for grouped convolutions too.
    return math.sqrt(2 / (weight[0] if init == "he" else weight[:, 0]).numel())


def _uniform(target: Tensor, bound: float, generator: torch.Generator) -> None:
    if target.is_meta:  # only shapes are needed
        return
    drawn = torch.empty(target.shape, dtype=torch.float32, device="cpu")  # independent of torch's defaults
    target.copy_(drawn.uniform_(-bound, bound, generator=generator))


def _normal(target: Tensor, deviation: float, generator: torch.Generator) -> None:
    if target.is_meta:
        return
    # Drawn in float64, because torch's float32 normals differ in the last digit between processors' vector units.
    drawn = torch.empty(target.shape, dtype=torch.float64, device="cpu")
    target.copy_(drawn.normal_(0, deviation, generator=generator))


def _key(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
