"""Fisher saliency of a network's channels, from the backward pass for g.

    Σ_l Σ_calls Σ_c n_l (1/2m) Σ_i (Σ_positions z_ic ∂L/∂z_ic)²

z_ic is channel c of the layer's output for sample i, bias included, and n_l the number of weights per channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hnas.metrics.layers import Call
from hnas.metrics.passes import BackwardPass


class FisherPass(BackwardPass):
    """The backward pass for the gradients of all weights; `total` is the saliency summed over the layers, float64.

    `total` is NaN where some row of a layer does not belong to exactly one sample.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        super().__init__()
        self.samples = samples
        self.total = torch.zeros((), dtype=torch.float64, device=device)

    def visit(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Add the saliency of one call and release its output."""
        z = call.returned(x)
        products = None if z is None else self._by_sample(call, z * gy)
        if products is None:
            self.total += torch.nan
        else:
            self.total += products.double().square().sum() * (call.layer.weight[0].numel() / (2 * self.samples))

    def _by_sample(self, call: Call, products: Tensor) -> Tensor | None:
        """Sum the products of a call's rows over positions, (m, C)."""
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
