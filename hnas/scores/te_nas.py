"""`te_nas_kappa = mean_r λ_max(Θ) / λ_min(Θ)` and `te_nas_regions`, for the small networks of TE-NAS.

`Θ = J Jᵀ`, with J (72, P) the gradients of Σ_c f_c(x_i) with respect to all weights, including the scales of batch
norms, through the batch statistics. The network has C = 3 channels (NAS-Bench-101: 5) and N = 1 cell per stage (DARTS:
3 cells); weights are normal with variance 2/fan_out (Kaiming), biases 0, and r runs over 3 draws. The images are the
first 72 of the run's batch followed by `further`.

`te_nas_regions` is the number of distinct activation patterns of all ReLUs over 3,000 random 1 × 3 × 3 crops, in
batches of 1,000, averaged over 3 draws of normal weights with variance 2/fan_in. The network is the space's first cell
with C = 1 channel, followed by a batch norm and a ReLU.

Source: Chen, Gong, Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
Perspective", ICLR 2021, section 3.1, and its program (`lib/procedures`). The program prunes the operations of a
supernet by how much each changes the two scores. Here the network is that of one architecture, as if all but one
operation of each edge were pruned, in its canonical form, whose unread values have no ReLU. Θ is summed in float64, and
κ is `inf` where Θ is singular; in the program's float32, rounding hides λ_min for κ above 1e6. Invariant to the run's
weights, and to the labels.

Cost: 3 × 72 backward passes of a network of some hundred weights, and 9 forward passes of a cell. NaN for a network of
no space, and for images of integers; `te_nas_regions` is NaN for spaces whose networks have no first cell with one
channel (`hnas.spaces`).
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
from hnas.metrics.randomness import Generators
from hnas.metrics.results import condition_number
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, deterministic, draws_undone, generator, undisturbed

_DRAWS = 3
_IMAGES = 72
_CROPS = (3, 1000)
_SIDE = 3
_RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


class TENAS:
    """The condition number and the number of linear regions of TE-NAS's small networks."""

    columns: ClassVar[tuple[str, ...]] = ("te_nas_kappa", "te_nas_regions")
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Return κ and the number of linear regions."""
        smallest: tuple[int, int] | None = getattr(subject.network, "smallest", None)
        if subject.build is None or smallest is None or not subject.images.is_floating_point():
            return dict.fromkeys(self.columns, math.nan)
        channels, cells = smallest
        source = generator(subject.seed, "te_nas")
        images = subject.images if subject.further is None else torch.cat([subject.images, subject.further[0]])
        first = images[:_IMAGES]
        with draws_undone(images.device):  # building draws too
            network = subject.build(channels=max(3, channels), cells=cells).to(images)
            kappa = _mean(lambda generators: _kappa(network, first, generators), network, first, source, fan_in=False)
            regions = math.nan
            if hasattr(network, "first_cell"):
                crops = _crops(images, source)
                thin: Any = subject.build(channels=channels, cells=cells).to(images)
                regions = _mean(
                    lambda generators: _regions(thin.first_cell, crops, generators), thin, first, source, fan_in=True
                )
        return {"te_nas_kappa": kappa, "te_nas_regions": regions}


def _mean(
    score: Callable[[Generators], float], network: nn.Module, images: Tensor, source: torch.Generator,
    *, fan_in: bool,
) -> float:  # fmt: skip
    """Return the mean of `score` over draws of the weights of `network`, in training mode and without randomness."""
    values = []
    with undisturbed(network, images) as (modules, generators):
        for _ in range(_DRAWS):
            _draw(network, source, fan_in=fan_in)
            values.append(deterministic(modules, images, generators, lambda: score(generators)))
    return sum(values) / _DRAWS


def _draw(network: nn.Module, source: torch.Generator, *, fan_in: bool) -> None:
    """Draw the weights of `network` by Kaiming's rule for ReLUs."""
    for module in network.modules():
        if isinstance(module, MODULES):
            fan = module.weight[0] if fan_in else module.weight[:, 0]
            with torch.no_grad():
                normal = torch.randn(module.weight.shape, generator=source, dtype=torch.float32, device="cpu")
                module.weight.copy_(normal * math.sqrt(2 / fan.numel()))
                if module.bias is not None:
                    module.bias.zero_()


def _kappa(network: nn.Module, images: Tensor, generators: Generators) -> float:
    """Return κ of the gradients of each image's summed logits."""
    weights = [p.requires_grad_() for name, p in network.named_parameters() if "weight" in name]
    with Functions(generators):
        sums = network(images.clone()).sum(1)
    rows = []
    # A GPU takes all images in one backward pass, of larger kernels; a CPU takes them faster one by one.
    at_once = len(sums) if sums.is_cuda else 1
    for chosen in torch.split(torch.eye(len(sums), dtype=sums.dtype, device=sums.device), at_once):
        batched = at_once > 1
        gradients = torch.autograd.grad(
            sums,
            weights,
            chosen if batched else chosen[0],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )
        rows.append(torch.cat([g.reshape(len(chosen), -1) for g in gradients if g is not None], 1))
    jacobian = torch.cat(rows).double()
    return condition_number(torch.linalg.eigvalsh(jacobian @ jacobian.t()), images.dtype)


def _crops(images: Tensor, source: torch.Generator) -> Tensor:
    """Return random crops (batches, n, C, 3, 3) of images, each with the image's channels in random order."""
    count = math.prod(_CROPS)
    windows = images.unfold(2, _SIDE, 1).unfold(3, _SIDE, 1)  # (images, C, rows, columns, 3, 3)
    image, row, column = (
        torch.randint(windows.shape[dimension], (count,), generator=source, device="cpu") for dimension in (0, 2, 3)
    )
    order = torch.rand((count, images.shape[1]), generator=source, dtype=torch.float32, device="cpu")
    channels = order.argsort(1)
    chosen = windows[image[:, None], channels, row[:, None], column[:, None]]
    return chosen.view(*_CROPS, *chosen.shape[1:])


def _regions(cell: Callable[[Tensor], Tensor], crops: Tensor, generators: Generators) -> int:
    """Return the number of distinct activation patterns of the ReLUs in `cell` and after it."""
    seen = []
    for batch in crops:
        with _Signs(generators) as signs:
            out = cell(batch.clone())
            torch.relu(F.batch_norm(out, None, None, training=True))
        seen.append(torch.cat(signs.active, 1))
    return len(np.unique(np.packbits(torch.cat(seen).cpu().numpy(), axis=1), axis=0))


class _Signs(Functions):
    """Collects which units of each ReLU are active, (m, units)."""

    def __init__(self, generators: Generators) -> None:
        super().__init__(generators)
        self.active: list[Tensor] = []

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        made = super().call(func, args, kwargs)
        if func in _RELUS:
            self.active.append((made > 0).flatten(1))
        return made
