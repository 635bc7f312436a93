"""`meco = Σ_M λ_min(P(M))` over the outputs of all modules M for one random image, P the correlations of the channels.

The image (1, C, 64, 64) is standard normal, the network in training mode. P (c, c) has the Pearson correlations of the
output's channels over its positions, 0 where a channel is constant.

Source: Jiang, Wang, Bie, "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of
Correlation", NeurIPS 2023, eq. (8), and its program (`measures/meco.py`), which this equals but that P and λ_min are
float64 here. Invariant to the labels and images of the run, and to the scale and shift of each channel. A module that
holds others counts beside them, and what no module is (a ReLU that is a function) does not: it depends on how a
network is written. It also sees modules that nothing reaches, so that it is defined on the canonical network.

Modules that return something else than one batch of maps are left out.

Cost: a forward pass of one image of 64 × 64, and an eigenvalue problem for each module. NaN for a network of other
inputs than images, or that takes none of this size.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hnas.errors import HnasError
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, drawn, generator, undisturbed

_SIDE = 64


class MeCo:
    """The least eigenvalues of the correlations between channels."""

    columns: ClassVar[tuple[str, ...]] = ("meco",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Σ_M λ_min(P(M))."""
        network, images = subject.network, subject.images
        if images.dim() != 4:
            return {"meco": math.nan}
        image = drawn((1, images.shape[1], _SIDE, _SIDE), generator(subject.seed, "meco"), images)
        least: list[Tensor] = []

        def add(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() > 2:  # what has no positions has no correlations
                least.append(_least_eigenvalue(output[0].double().flatten(1)))

        try:
            with undisturbed(network, image), torch.no_grad(), Functions():
                handles = [module.register_forward_hook(add) for module in network.modules()]
                try:
                    network(image)
                finally:
                    for handle in handles:
                        handle.remove()
        except HnasError:
            return {"meco": math.nan}
        return {"meco": float(sum(least))}


def _least_eigenvalue(channels: Tensor) -> Tensor:
    """λ_min of the correlations of the rows of `channels` (c, positions), with 0 for those that have none."""
    d = channels - channels.mean(1, keepdim=True)
    norm = d.norm(dim=1, keepdim=True)
    correlations = torch.nan_to_num(d @ d.t() / (norm * norm.t()), nan=0.0, posinf=0.0, neginf=0.0)
    least: Tensor = torch.linalg.eigvalsh(correlations)[0]
    return least
