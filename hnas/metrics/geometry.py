"""How a layer maps its input to its output, and the adjoints of that map.

Of a depthwise convolution, whose every channel is one image and one kernel, torch has on the CPU fast kernels for the
forward pass, and of the backward passes for few sizes only: a kernel of 5 × 5 or a dilation costs up to a hundred
times the forward pass. Each of its adjoints is a depthwise forward pass as well. With output gradient ȳ,

    to x:  ȳ, spread out by the stride, convolved with the kernel turned by 180°
    to the kernel, one sample:  x convolved with ȳ as the kernel, stride and dilation changing places

    ∂/∂w[i, j] = Σ_{h, v} ȳ[h, v] x[s h + d i − p, s v + d j − p]

so samples and channels together become the channels of one convolution whose kernels are the output gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Geometry:
    """How a layer maps its input to its output: a convolution's stride, padding, dilation and groups, or none of it."""

    convolution: bool
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`weight * x + bias`: x (m, C, …) and weight (C', C / groups, …), or x (m, …, C) and weight (C', C)."""
        if not self.convolution:
            return F.linear(x, weight, bias)
        zeros = (0,) * len(self.stride)
        y: Tensor = torch.ops.aten.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, False, zeros, self.groups
        )
        return y

    def adjoint(
        self, gy: Tensor, x: Tensor, weight: Tensor, *, to_x: bool, to_kernel: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of `⟨gy, weight * x⟩` with respect to x and to weight, each where asked for."""
        if not self.convolution:
            gx = gy @ weight if to_x else None
            gw = gy.flatten(0, -2).t() @ x.flatten(0, -2) if to_kernel else None
            return gx, gw
        gx = gw = None
        if self.is_depthwise(x, weight) and x.device.type == "cpu":
            dilated = self.dilation != (1, 1)
            padding = tuple(
                d * (k - 1) - p for d, k, p in zip(self.dilation, weight.shape[2:], self.padding, strict=True)
            )
            if to_x and (dilated or self.stride == (1, 1)) and min(padding) >= 0:
                gx, to_x = self._turned(gy, x, weight, padding), False
            if to_kernel and (dilated or max(weight.shape[2:]) > 3):
                gw, to_kernel = self.depthwise_gradients(gy, x, weight).sum(0)[:, None], False
        if to_x or to_kernel:
            zeros = (0,) * len(self.stride)
            by_torch = torch.ops.aten.convolution_backward(
                gy, x, weight, None, self.stride, self.padding, self.dilation, False, zeros, self.groups,
                (to_x, to_kernel, False),
            )  # fmt: skip
            gx, gw = by_torch[0] if to_x else gx, by_torch[1] if to_kernel else gw
        return gx, gw

    def bias_adjoint(self, gy: Tensor) -> Tensor:
        """The gradient of the bias for each sample: `gy` (m, …) summed over positions, (m, C')."""
        if gy.dim() == 2:
            return gy
        return gy.flatten(2).sum(2) if self.convolution else gy.flatten(1, -2).sum(1)

    def is_depthwise(self, x: Tensor, weight: Tensor) -> bool:
        """Whether it is a two-dimensional convolution of x, batched, with one kernel for each channel."""
        return self.convolution and x.dim() == 4 and self.groups == x.shape[1] == weight.shape[0]

    def depthwise_gradients(self, gy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Of a depthwise convolution the gradients of each sample's `⟨gy_s, weight * x_s⟩`, (m, C, height, width)."""
        (m, channels), (kh, kw) = x.shape[:2], weight.shape[2:]
        turned = Geometry(True, self.dilation, self.padding, self.stride, m * channels)
        found = turned.apply(x.reshape(1, m * channels, *x.shape[2:]), gy.reshape(m * channels, 1, *gy.shape[2:]))
        return found[0, :, :kh, :kw].reshape(m, channels, kh, kw)

    def _turned(self, gy: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> Tensor:
        """Of a depthwise convolution the gradient to x: gy, padded by `padding`, through the kernels turned by 180°."""
        # What the convolution would have returned without its stride.
        size = [n + p - q for n, p, q in zip(x.shape[2:], self.padding, padding, strict=True)]
        if list(gy.shape[2:]) != size:
            spread = gy.new_zeros((len(gy), *size, gy.shape[1])).permute(0, 3, 1, 2)
            spread[:, :, :: self.stride[0], :: self.stride[1]] = gy
            gy = spread
        return Geometry(True, (1, 1), padding, self.dilation, self.groups).apply(gy, weight.flip(2, 3))


def per_dimension(value: Any, dimensions: int) -> tuple[int, ...]:
    """One number for each dimension from what torch takes for them: a number, or one or all of them in a sequence."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values
