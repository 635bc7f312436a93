"""`meco = Σ_M λ_min(P(M))` over all modules M for one random image, P the correlations of the output's channels.

The image (1, C, 64, 64) is standard normal, and the network is in training mode. P (c, c) holds the Pearson
correlations of the channels over the positions, 0 where a channel is constant.

Source: Jiang, Wang, Bie, "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of
Correlation", NeurIPS 2023, eq. (8), and its program (`measures/meco.py`); the only difference is that P and λ_min are
float64 here. Invariant to the labels and images of the run, and to the scale and shift of each channel. The score
depends on how a network is written: a module counts in addition to its submodules, and a function (`F.relu`) does not
count. Since unused modules count too, it is defined on the canonical network.

Modules whose output is not one batch of feature maps do not count.

Cost: a forward pass of one 64 × 64 image, and an eigenvalue problem per module. NaN for a network whose inputs are not
images of floating-point numbers, or that does not take images of this size.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hnas.errors import HnasError
from hnas.metrics.inputs import errors_named
from hnas.metrics.randomness import Generators
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, deterministic, drawn, generator, tensors_of, undisturbed

_SIDE = 64


class MeCo:
    """The smallest eigenvalues of the correlations between channels."""

    columns: ClassVar[tuple[str, ...]] = ("meco",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Return Σ_M λ_min(P(M))."""
        network, images = subject.network, subject.images
        if images.dim() != 4 or not images.is_floating_point():
            return {"meco": math.nan}
        image = drawn((1, images.shape[1], _SIDE, _SIDE), generator(subject.seed, "meco"), images)
        with undisturbed(network, images) as (modules, generators):
            for tensor in tensors_of(modules):  # needs no graph, but a network may differentiate in its own forward
                tensor.requires_grad_(False)

            def least() -> float:
                return _least(network, image.clone(), generators)

            return {"meco": deterministic(modules, images, generators, least)}


def _least(network: nn.Module, image: Tensor, generators: Generators) -> float:
    """Return Σ_M λ_min(P(M)), NaN where the network fails on the image."""
    found: list[Tensor] = []

    def add(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() > 2:  # without positions there are no correlations
            found.append(_least_eigenvalue(output[0].detach().double().flatten(1)))

    handles = [module.register_forward_hook(add) for module in network.modules()]
    try:
        with errors_named(network, image), Functions(generators):
            network(image)
    except HnasError:
        return math.nan
    finally:
        for handle in handles:
            handle.remove()
    return float(sum(found))


def _least_eigenvalue(channels: Tensor) -> Tensor:
    """Return λ_min of the correlation matrix of the rows of `channels` (c, positions), with 0 for constant rows."""
    d = channels - channels.mean(1, keepdim=True)
    norm = d.norm(dim=1, keepdim=True)
    correlations = torch.nan_to_num(d @ d.t() / (norm * norm.t()), nan=0.0, posinf=0.0, neginf=0.0)
    least: Tensor = torch.linalg.eigvalsh(correlations)[0]
    return least
