"""The linear map of `nn.Linear`, y = x Wᵀ + b along the last dimension of x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.layers import LayerMap
from hnas.metrics.ops.layer import Invocation, call_layer
from hnas.metrics.recorder import Recorder, handles


@dataclass
class Linear(LayerMap):
    """Maps x (m, …, C) with weight (C', C) to y (m, …, C')."""

    convolution: ClassVar[bool] = False

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)

    def adjoint(
        self, gy: Tensor, x: Tensor, weight: Tensor, *, to_x: bool, to_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        gx = gy @ weight if to_x else None
        gw = gy.flatten(0, -2).t() @ x.flatten(0, -2) if to_weight else None
        return gx, gw

    def bias_gradients(self, gy: Tensor) -> Tensor:
        return gy if gy.dim() == 2 else gy.flatten(1, -2).sum(1)

    def weight_gradients(self, x: Tensor, gy: Tensor, weight: Tensor, *, in_order: bool) -> Tensor:
        if x.dim() == 2:
            return (gy[:, :, None] * x[:, None, :]).flatten(1)
        return torch.bmm(gy.flatten(1, -2).transpose(1, 2), x.flatten(1, -2)).flatten(1)

    def products(self, x: Tensor, gy: Tensor) -> Tensor | None:
        """Return `⟨J_s, J_t⟩ = ⟨x_s, x_t⟩ ⟨gy_s, gy_t⟩` if each sample is a single vector."""
        if x.dim() != 2:
            return None
        a, b = x.double(), gy.double()
        return (a @ a.t()) * (b @ b.t())


@handles({F.linear})
def linear(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Tensor:

    def invocation(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Invocation:  # noqa: A002
        return Invocation(input, weight, bias, Linear(), unbatched=1)

    return call_layer(recorder, func, args, kwargs, invocation(*args, **kwargs))
