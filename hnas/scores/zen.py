"""`zen = ln mean_i ‖f(x_i) − f(x_i + α ε_i)‖₁ + Σ_BN ln √mean(v)`, f the feature maps before the last global pooling.

x and ε (m, C, H, W) are standard normal, α = 0.01, all weights of Conv and Linear layers are standard normal, biases 0,
and batch norms use batch statistics with scale 1 and shift 0. v are the running variances of a batch norm's channels
after the two passes, starting at 1: with torch's momentum 0.1, `0.81 + 0.09 v₁ + 0.1 v₂` for the variances v₁, v₂ of
the passes.

Source: Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", ICCV 2021, algorithm 1, in the
form of its program (`compute_zen_score.py`, once instead of 32 times): the 1-norm instead of the Frobenius norm, and
running variances instead of those of one pass. Invariant to the run's weights, images and labels. Batch norms without
running statistics do not count. NAS-Bench-Suite-Zero's values therefore count only the stem and the reductions, because
the batch norms of its cells have none. Since unused batch norms count too, the score is defined on the canonical
network.

After the last layer with feature maps as output, f are the maps that become vectors, by a mean or by flattening. In a
network without feature maps, f is the input of the last linear layer. −inf where f is constant. NaN for images of
integers, such as tokens or pixels, because normal numbers are no such images.

Cost: two forward passes.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hnas.metrics.layers import MODULES, Modules
from hnas.metrics.layout import fastest
from hnas.metrics.nested import tensors_in
from hnas.metrics.randomness import Generators
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, deterministic, drawn, generator, replaced, undisturbed

_ALPHA = 1e-2
_NORMS = (_BatchNorm, nn.GroupNorm)


class Zen:
    """The Gaussian complexity of the network, with the scales of batch norms restored."""

    columns: ClassVar[tuple[str, ...]] = ("zen",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Return ln mean_i ‖f(x_i) − f(x_i + α ε_i)‖₁ + Σ ln √mean(v)."""
        network, images = subject.network, subject.images
        if not images.is_floating_point():
            return {"zen": math.nan}
        with undisturbed(network, images) as (modules, generators):

            def complexity() -> float:
                return _complexity(subject, modules, generators)

            return {"zen": deterministic(modules, images, generators, complexity)}


def _complexity(subject: Subject, modules: Modules, generators: Generators) -> float:
    images, source = subject.images, generator(subject.seed, "zen")
    # No value requires a gradient, so there is no graph, and a network may differentiate in its own forward pass.
    values = _drawn_network(modules, source)
    x = drawn(images.shape, source, images)
    moved = x + _ALPHA * drawn(images.shape, source, images)
    with replaced(modules, values):
        first, second = (_maps(subject.network, batch, generators) for batch in (x, moved))
        variances = [module.running_var for module in dict.fromkeys(modules.values()) if isinstance(module, _BatchNorm)]
    apart = sum((a - b).double().abs().flatten(1).sum(1) for a, b in zip(first, second, strict=True))
    assert isinstance(apart, Tensor)
    scales = [variance.double().mean().sqrt().log() for variance in variances if variance is not None]
    return float(sum(scales, apart.mean().log()).detach())


def _drawn_network(modules: Modules, source: torch.Generator) -> dict[int, Tensor]:
    """Return the parameters and buffers by id, with drawn weights and newly initialised norms."""
    values: dict[int, Tensor] = {}
    for module in modules.values():
        for own in (module._parameters, module._buffers):
            for name, value in own.items():
                if value is not None and id(value) not in values:
                    values[id(value)] = _fresh(module, name, value.detach(), source)
    return values


def _fresh(module: nn.Module, own: str, value: Tensor, source: torch.Generator) -> Tensor:
    if own == "weight" and isinstance(module, MODULES):
        return drawn(value.shape, source, value)
    if isinstance(module, _NORMS) and own in ("weight", "running_var"):
        return torch.ones_like(value)
    if own == "running_mean" or (own == "bias" and isinstance(module, (*MODULES, *_NORMS))):
        return torch.zeros_like(value)
    return value.clone()


def _maps(network: nn.Module, images: Tensor, generators: Generators) -> list[Tensor]:
    """Return f(images), in parts."""
    seen = _BeforePooling(generators)
    with seen:
        network(images.clone(memory_format=fastest(images)))
    return seen.maps or seen.last


class _BeforePooling(Functions):
    """Keeps the feature maps that are reduced to vectors after the last layer with feature maps as output."""

    def __init__(self, generators: Generators) -> None:
        super().__init__(generators)
        self.maps: list[Tensor] = []
        self.last: list[Tensor] = []

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        made = super().call(func, args, kwargs)
        if not isinstance(made, Tensor):
            return made
        if func is torch.nn.functional.linear and made.dim() == 2:
            self.last = [args[0] if args else kwargs["input"]]
        if func in _LAYERS and _positions(made) > 1:
            self.maps = []
        elif _positions(made) == 1:
            self.maps += [v for v in tensors_in((args, kwargs)) if _positions(v) > 1 and len(v) == len(made)]
        return made


_LAYERS = {torch.conv1d, torch.conv2d, torch.conv3d, torch.nn.functional.linear}


def _positions(value: Tensor) -> int:
    """Return the number of positions of a value (m, C, …), 0 if it is not a batch of maps or vectors."""
    return value[0, 0].numel() if value.dim() >= 2 and value.numel() else 0
