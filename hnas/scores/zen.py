"""`zen = ln mean_i ‖f(x_i) − f(x_i + α ε_i)‖₁ + Σ_BN ln √mean(v)`, f the maps before the last global pooling.

x and ε (m, C, H, W) are standard normal, α = 0.01, all weights of Conv and Linear layers are standard normal, biases 0,
and batch norms, which take the batch's statistics, have scale 1 and shift 0. v are the running variances of the
channels of a batch norm after the two passes, from 1 with the norm's momentum: `0.81 + 0.09 v₁ + 0.1 v₂` of the passes'
variances with torch's 0.1.

Source: Lin et al., "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", ICCV 2021, algorithm 1, in the
form of its program (`compute_zen_score.py`, once instead of 32 times): the 1-norm for the Frobenius norm, and running
variances for those of a pass. Invariant to the weights that the run draws, to images and labels. Batch norms without
running statistics are left out, and so NAS-Bench-Suite-Zero's numbers, of networks whose cells have such, count those
of the stem and the reductions alone. Counts batch norms that nothing reaches, so that it is defined on the canonical
network.

f is what values without positions are made of, by a mean or flattened, after the last layer that makes some with
positions; of a network without any, the input of its last linear layer. −inf where f is constant.

Cost: two forward passes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hnas.metrics.layers import MODULES, Modules
from hnas.metrics.nested import tensors_in
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, drawn, generator, replaced, undisturbed

_ALPHA = 1e-2
_NORMS = (_BatchNorm, nn.GroupNorm)


class Zen:
    """The Gaussian complexity of the network, with batch norms' scales put back."""

    columns: ClassVar[tuple[str, ...]] = ("zen",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """ln mean_i ‖f(x_i) − f(x_i + α ε_i)‖₁ + Σ ln √mean(v)."""
        network, images = subject.network, subject.images
        source = generator(subject.seed, "zen")
        with undisturbed(network, images) as modules, torch.no_grad():
            values = _drawn_network(modules, source)
            x = drawn(images.shape, source, images)
            moved = x + _ALPHA * drawn(images.shape, source, images)
            with replaced(modules, values):
                first, second = (_maps(network, given) for given in (x, moved))
                variances = [module.running_var for module in set(modules.values()) if isinstance(module, _BatchNorm)]
            apart = sum((a - b).double().abs().flatten(1).sum(1) for a, b in zip(first, second, strict=True))
            assert isinstance(apart, Tensor)
            scales = [variance.double().mean().sqrt().log() for variance in variances if variance is not None]
            score = sum(scales, apart.mean().log())
        return {"zen": float(score)}


def _drawn_network(modules: Modules, source: torch.Generator) -> dict[int, Tensor]:
    """The parameters and buffers of the network by id, weights drawn, and norms as if they were made now."""
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


def _maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    """f(images), in parts."""
    seen = _BeforePooling()
    with seen:
        network(images.clone())
    return seen.maps or seen.last


class _BeforePooling(Functions):
    """Keeps the values with positions of which others without are made, since the last that a layer made."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []
        self.last: list[Tensor] = []

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        made = super().call(func, args, kwargs)
        if not isinstance(made, Tensor):
            return made
        if func is torch.nn.functional.linear and made.dim() == 2:
            self.last = [args[0]]
        if func in _LAYERS and _positions(made) > 1:
            self.maps = []
        elif _positions(made) == 1:
            self.maps += [v for v in tensors_in((args, kwargs)) if _positions(v) > 1 and len(v) == len(made)]
        return made


_LAYERS = {torch.conv1d, torch.conv2d, torch.conv3d, torch.nn.functional.linear}


def _positions(value: Tensor) -> int:
    """How many positions a value (m, C, …) has, 0 for one that is no batch of maps or vectors."""
    return value[0, 0].numel() if value.dim() >= 2 and value.numel() else 0
