"""Backward passes through one recorded forward pass, and what each layer does in them.

`BackwardPass` computes `g_l = ∂L/∂θ_l`. The passes of `hnas.metrics.ntk` compute no weight gradients: they visit each
layer's call to add to Θ₀, or to assign its rows to samples. All consist of plain torch operations, so autograd can
differentiate them again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from hnas.metrics.layers import Call


class BackwardPass:
    """Gradients of the inputs, and of the weights and biases of the `wanted` layers, all if None."""

    #: Whether batch norms differentiate their statistics, which couple the samples.
    couples = True
    #: Whether gradients propagate to the images.
    to_images = False

    def __init__(self, wanted: Collection[str] | None = None) -> None:
        self.wanted = wanted

    def visit(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Process one call with input x and cotangent gy; does nothing by default."""

    def back(
        self, call: Call, x: Tensor, weight: Tensor, gy: Tensor, *, to_x: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of x, weight and bias for one call with cotangent gy, None where not needed."""
        self.visit(call, x, gy)
        gx, gw = call.map.adjoint(gy, x, weight, to_x=to_x, to_weight=self._wants(call.layer.name))
        gb = call.map.bias_gradients(gy).sum(0) if call.bias is not None and self._wants(call.bias.owner) else None
        return gx, gw, gb

    def _wants(self, layer: str) -> bool:
        return self.wanted is None or layer in self.wanted


class Passes:
    """Runs backward passes through the graph of one network, whose layers and batch norms read the current one."""

    def __init__(self) -> None:
        #: The default also serves networks that differentiate in their own forward pass, perhaps by the images.
        self.current = BackwardPass()
        self.current.to_images = True
        #: Whether a network differentiated a layer there and can differentiate the result again.
        self.nested = False

    def run(
        self, this: BackwardPass, output: Tensor, leaves: Sequence[Tensor], cotangent: Tensor | None = None,
        *, keep_graph: bool = True,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        """Back-propagate `output` in the pass `this`; return the gradients of `leaves`, None where there is none."""
        before, self.current = self.current, this
        try:
            return torch.autograd.grad(output, leaves, cotangent, retain_graph=keep_graph, allow_unused=True)
        finally:
            self.current = before
