"""The backward passes through one recorded forward pass: what a layer sends back, and notes, in each.

`BackwardPass` gives `g_l = ∂L/∂θ_l`. Those of `hnas.metrics.ntk` want no weights: they visit each layer's call, to add
to Θ₀ or to find out to which samples rows belong. All are plain torch operations, which autograd can differentiate
again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from hnas.metrics.layers import Call


class BackwardPass:
    """The gradients of the weights and biases of the `wanted` layers, all if None, and of the inputs."""

    #: Whether batch norms differentiate their statistics, by which samples are coupled.
    couples = True
    #: Whether layers that read the images send gradients on to them.
    to_images = False

    def __init__(self, wanted: Collection[str] | None = None) -> None:
        self.wanted = wanted

    def visit(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """The pass is at a call with input x and output gradient gy."""

    def back(
        self, call: Call, x: Tensor, weight: Tensor, gy: Tensor, *, to_x: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of x, weight and bias of one call with output gradient gy, None where they are not wanted."""
        self.visit(call, x, gy)
        gx, gw = call.map.adjoint(gy, x, weight, to_x=to_x, to_weight=self._wants(call.layer.name))
        gb = call.map.bias_gradients(gy).sum(0) if call.bias is not None and self._wants(call.bias.owner) else None
        return gx, gw, gb

    def _wants(self, layer: str) -> bool:
        return self.wanted is None or layer in self.wanted


class Passes:
    """Runs backward passes through the graph of one network; its layers and batch norms ask for the current one."""

    def __init__(self) -> None:
        #: What also serves a network that differentiates in its own forward pass.
        self.current = BackwardPass()

    def run(
        self, this: BackwardPass, output: Tensor, leaves: Sequence[Tensor], cotangent: Tensor | None = None,
        *, keep_graph: bool = True,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Back-propagate `output` to `leaves` in this way: their gradients, None where none comes."""
        before, self.current = self.current, this
        try:
            return torch.autograd.grad(output, leaves, cotangent, retain_graph=keep_graph, allow_unused=True)
        finally:
            self.current = before
