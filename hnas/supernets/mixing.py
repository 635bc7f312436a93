"""From architecture parameters α (6, 5) to weights of operations, which is where the searches differ.

softmax    w = softmax(α) per edge                                                                  DARTS
gumbel     w = one-hot(argmax z), z = softmax((log softmax(α) + g) / τ), g Gumbel noise;            GDAS
           the gradient is that of z
dirichlet  w ~ Dirichlet(elu(α) + 1) per edge; the gradient is pathwise, through the sample         DrNAS
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import elu

from hnas.supernets.network import Mixture


def softmax(alphas: Tensor) -> Mixture:
    """DARTS: Liu, Simonyan, Yang, ICLR 2019, eq. (2)."""
    return Mixture(torch.softmax(alphas, dim=1))


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw standard Gumbel noise of the shape of `like`, by default from torch's global generator."""
    drawn: Tensor = -torch.empty_like(like, requires_grad=False).exponential_(generator=generator).log()
    return drawn


def gumbel(alphas: Tensor, noise: Tensor, temperature: float) -> Mixture:
    """GDAS: Dong and Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019."""
    soft = gumbel_softmax(alphas, noise, temperature)
    drawn = soft.argmax(dim=1)
    hard = torch.zeros_like(soft).scatter_(1, drawn[:, None], 1.0)
    # (hard − soft) + soft would differ from 1 by rounding.
    weights = hard + (soft - soft.detach())
    return Mixture(weights, tuple((int(operation),) for operation in drawn), hard=True)


def gumbel_softmax(alphas: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Return z (6, 5) as above, a soft sample of p = softmax(α)."""
    return torch.softmax((torch.log_softmax(alphas, dim=1) + noise) / temperature, dim=1)


def dirichlet(alphas: Tensor, kept: Tensor | None = None) -> Mixture:
    """DrNAS: Chen, Wang, Cheng, Tang, Hsieh, ICLR 2021, eq. (5). Draws from torch's global generator.

    `kept` (6, 5) bool marks the operations that remain, equally many per edge; the others have weight 0.
    """
    if kept is None:
        return Mixture(torch.distributions.Dirichlet(elu(alphas) + 1).rsample())
    rows = alphas[kept].view(len(alphas), -1)
    drawn = torch.distributions.Dirichlet(elu(rows) + 1).rsample()
    operations = tuple(tuple(row.nonzero().flatten().tolist()) for row in kept)
    return Mixture(torch.zeros_like(alphas).masked_scatter(kept, drawn), operations)
