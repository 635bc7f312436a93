"""The saliency of a network's channels under the loss, from the backward pass for g.

    Σ_l Σ_calls Σ_c n_l (1/2m) Σ_i (Σ_positions z_ic ∂L/∂z_ic)²

with z what a layer returns, bias included, channel c for sample i, and n_l the number of weights that make a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hnas.metrics.layers import Call
from hnas.metrics.passes import BackwardPass


class FisherPass(BackwardPass):
    """The pass that gives the gradients of all weights, and `total`, the sum over the layers, a float64 scalar.

    `total` is NaN where rows of a layer are not known to belong to one sample each.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        super().__init__()
        self.samples = samples
        self.total = torch.zeros((), dtype=torch.float64, device=device)

    def visit(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Add the share of a call, and let go of what it returned."""
        z = call.returned(x)
        products = None if z is None else self._by_sample(call, z * gy)
        if products is None:
            self.total += torch.nan
        else:
            self.total += products.double().square().sum() * (call.layer.weight[0].numel() / (2 * self.samples))

    def _by_sample(self, call: Call, products: Tensor) -> Tensor | None:
        """The products of a call's rows summed over positions, (m, C)."""
        rows = call.rows
        if rows is None:
            return None
        if rows.owner is None:
            return call.map.bias_gradients(products.movedim(rows.dimension, 0))
        each = call.map.bias_gradients(products) if call.map.convolution else products.flatten(0, -2)
        if bool(each[rows.owner < 0].any()):
            return None
        known = rows.owner >= 0
        return each.new_zeros((self.samples, each.shape[1])).index_add_(0, rows.owner[known], each[known])
