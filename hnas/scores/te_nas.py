"""`te_nas_kappa = mean_r λ_max(Θ) / λ_min(Θ)` and `te_nas_regions`, on small networks of TE-NAS's own.

`Θ = J Jᵀ`, J (72, P) the gradients of Σ_c f_c(x_i) with respect to all weights, batch norms' scales among them, through
the batch's statistics. The network has C = 3 channels (NAS-Bench-101: 5) and N = 1 cell a stage (DARTS: 3 cells),
weights normal with the variance 2/fan_out (Kaiming) and biases 0; r runs over 3 draws. The images are the first 72 of
the run's batch and those further.

`te_nas_regions` is the number of different signs of all ReLUs that 3,000 random crops of 1 × 3 × 3 pixels give, 1,000 a
batch, mean over 3 draws of weights, normal with 2/fan_in, in the space's first cell alone with C = 1 channel, followed
by a batch norm and a ReLU.

Source: Chen, Gong, Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
Perspective", ICLR 2021, section 3.1, and its program (`lib/procedures`), where a supernet's edges are pruned by how
much each operation changes the two: here the network is that of one architecture, all of whose operations but one are
pruned on each edge, and of its canonical form, in which what nothing reads has no ReLU. Θ is summed in float64, and κ
is `inf` where it is singular; in the program's float32 λ_min is lost to rounding above 1e6. Invariant to the weights
that the run draws, and to labels.

Cost: 3 × 72 backward passes of a network of some hundred weights, and 9 forward passes of a cell. NaN for a network of
no space, and for regions of a space whose networks have no first cell of one channel (`hnas.spaces`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas.metrics.layers import MODULES
from hnas.metrics.results import condition_number
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, generator

_DRAWS = 3
_IMAGES = 72
_CROPS = (3, 1000)
_SIDE = 3
_RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


class TENAS:
    """The condition number of the kernel and the linear regions of TE-NAS's small networks."""

    columns: ClassVar[tuple[str, ...]] = ("te_nas_kappa", "te_nas_regions")
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """κ and the number of linear regions."""
        smallest: tuple[int, int] | None = getattr(subject.network, "smallest", None)
        if subject.build is None or smallest is None:
            return dict.fromkeys(self.columns, math.nan)
        channels, cells = smallest
        source = generator(subject.seed, "te_nas")
        images = subject.images if subject.further is None else torch.cat([subject.images, subject.further[0]])
        network = subject.build(channels=max(3, channels), cells=cells).to(images)
        kappas = [_kappa(_drawn(network, source, fan_in=False), images[:_IMAGES]) for _ in range(_DRAWS)]
        regions = [math.nan]
        if hasattr(network, "first_cell"):
            crops = _crops(images, source)
            thin = subject.build(channels=channels, cells=cells).to(images)
            regions = [_regions(_drawn(thin, source, fan_in=True).first_cell, crops) for _ in range(_DRAWS)]
        return {"te_nas_kappa": sum(kappas) / _DRAWS, "te_nas_regions": sum(regions) / len(regions)}


def _drawn(network: nn.Module, source: torch.Generator, *, fan_in: bool) -> Any:
    """`network` in training mode with weights drawn by Kaiming's rule for ReLUs."""
    for module in network.modules():
        if isinstance(module, MODULES):
            fan = module.weight[0] if fan_in else module.weight[:, 0]
            with torch.no_grad():
                module.weight.copy_(torch.randn(module.weight.shape, generator=source) * math.sqrt(2 / fan.numel()))
                if module.bias is not None:
                    module.bias.zero_()
    return network.train()


def _kappa(network: nn.Module, images: Tensor) -> float:
    """κ of the gradients of each image's sum of logits."""
    weights = [p for name, p in network.named_parameters() if "weight" in name]
    sums = network(images).sum(1)
    rows = []
    for each in sums:
        gradients = torch.autograd.grad(each, weights, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([g.flatten() for g in gradients if g is not None]))
    jacobian = torch.stack(rows).double()
    return condition_number(torch.linalg.eigvalsh(jacobian @ jacobian.t()), images.dtype)


def _crops(images: Tensor, source: torch.Generator) -> Tensor:
    """Random parts (batches, n, C, 3, 3) of images, each with the image's channels in random order."""
    count = math.prod(_CROPS)
    windows = images.unfold(2, _SIDE, 1).unfold(3, _SIDE, 1)  # (images, C, rows, columns, 3, 3)
    image, row, column = (
        torch.randint(windows.shape[dimension], (count,), generator=source) for dimension in (0, 2, 3)
    )
    channels = torch.rand((count, images.shape[1]), generator=source).argsort(1)
    chosen = windows[image[:, None], channels, row[:, None], column[:, None]]
    return chosen.view(*_CROPS, *chosen.shape[1:])


def _regions(cell: Callable[[Tensor], Tensor], crops: Tensor) -> int:
    """How many different signs of all ReLUs there are in `cell` and behind it."""
    seen = []
    with torch.no_grad():
        for batch in crops:
            with _Signs() as signs:
                out = cell(batch)
                torch.relu(F.batch_norm(out, None, None, training=True))
            seen.append(torch.cat(signs.found, 1))
    return len(np.unique(np.packbits(torch.cat(seen).cpu().numpy(), axis=1), axis=0))


class _Signs(Functions):
    """Collects which units of each ReLU are positive, (m, units)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        made = super().call(func, args, kwargs)
        if func in _RELUS:
            self.found.append((made > 0).flatten(1))
        return made
