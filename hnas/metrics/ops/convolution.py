"""Convolutions in one to three dimensions, their adjoints, and their per-sample gradients.

On the CPU, torch has fast forward kernels for depthwise convolutions, but fast backward kernels for few sizes only:
with a 5 × 5 kernel or with dilation, the backward pass takes up to a hundred times as long as the forward pass. Both
adjoints of a depthwise convolution are depthwise convolutions themselves. With cotangent ȳ,

    to x:  ȳ, spread out by the stride, convolved with the kernel rotated by 180°
    to the kernel, one sample:  x convolved with the kernel ȳ, stride and dilation exchanged

    ∂/∂w[i, j] = Σ_{h, v} ȳ[h, v] x[s h + d i − p, s v + d j − p]

so samples and channels together become the channels of one convolution whose kernels are the cotangents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.layers import LayerMap
from hnas.metrics.ops.layer import Invocation, call_layer
from hnas.metrics.recorder import Recorder, handles

# Elements of the im2col buffer: 1 MB in float32, measured fastest for maps from 16 × 32² to 64 × 8².
_PATCHES = 250_000

# The same on an accelerator, where fewer kernel launches matter more: 128 MiB in float32. Not measured.
_PATCHES_ON_DEVICE = 2**25


@dataclass
class Convolution(LayerMap):
    """Maps x (m, C, …) with weight (C', C / groups, …) to y (m, C', …)."""

    convolution: ClassVar[bool] = True

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        zeros = (0,) * len(self.stride)
        y: Tensor = torch.ops.aten.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, False, zeros, self.groups
        )
        return y

    def adjoint(
        self, gy: Tensor, x: Tensor, weight: Tensor, *, to_x: bool, to_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        gx = gw = None
        if self.is_depthwise(x, weight) and x.device.type == "cpu":
            dilated = self.dilation != (1, 1)
            padding = tuple(
                d * (k - 1) - p for d, k, p in zip(self.dilation, weight.shape[2:], self.padding, strict=True)
            )
            if to_x and (dilated or self.stride == (1, 1)) and min(padding) >= 0:
                gx, to_x = self._depthwise_input_gradient(gy, x, weight, padding), False
            if to_weight and (dilated or max(weight.shape[2:]) > 3):
                gw, to_weight = self.depthwise_gradients(gy, x, weight).sum(0)[:, None], False
        if (to_x or to_weight) and self._overruns(x, weight):
            # Drop the pixels that the stride skips, so that the stride is 1.
            kept = x[:, :, :: self.stride[0], :: self.stride[1]]
            dense = Convolution((1, 1), self.padding, self.dilation, self.groups)
            part, gw = dense.adjoint(gy, kept, weight, to_x=to_x, to_weight=to_weight)
            if part is not None:
                gx = torch.zeros_like(x)
                gx[:, :, :: self.stride[0], :: self.stride[1]] = part
        elif to_x or to_weight:
            zeros = (0,) * len(self.stride)
            by_torch = torch.ops.aten.convolution_backward(
                gy, x, weight, None, self.stride, self.padding, self.dilation, False, zeros, self.groups,
                (to_x, to_weight, False),
            )  # fmt: skip
            gx, gw = by_torch[0] if to_x else gx, by_torch[1] if to_weight else gw
        return gx, gw

    def _overruns(self, x: Tensor, weight: Tensor) -> bool:
        """Whether oneDNN may write beyond its buffer in the weight gradient.

        It does so on processors with AVX2 but without AVX-512 (torch 2.13), where a strided 1 × 1 convolution of
        channels-last maps has channels that are not a multiple of 8 (in a group, if there are several).
        """
        strided = (*weight.shape[2:], *self.padding) == (1, 1, 0, 0) and self.stride != (1, 1)
        odd = weight.shape[1] % 8 != 0 or weight.shape[0] // self.groups % 8 != 0
        return strided and odd and x.device.type == "cpu"

    def bias_gradients(self, gy: Tensor) -> Tensor:
        return gy.flatten(2).sum(2)

    def weight_gradients(self, x: Tensor, gy: Tensor, weight: Tensor, *, in_order: bool) -> Tensor:
        m = x.shape[0]
        if self.groups == 1 and x.dim() == 4:
            return _im2col_gradients(self, x, gy, weight, in_order)
        if self.is_depthwise(x, weight):
            return self.depthwise_gradients(gy, x, weight).flatten(1)
        # Make every sample a group of one convolution: its weight gradient is then those of the samples side by side.
        one = Convolution(self.stride, self.padding, self.dilation, self.groups * m)
        wide = weight.detach().expand(m, *weight.shape).flatten(0, 1)
        _, gw = one.adjoint(gy.flatten(0, 1)[None], x.flatten(0, 1)[None], wide, to_x=False, to_weight=True)
        assert gw is not None
        return gw.reshape(m, -1)

    def is_depthwise(self, x: Tensor, weight: Tensor) -> bool:
        """Whether this is a two-dimensional convolution of a batch x with one kernel per channel."""
        return x.dim() == 4 and self.groups == x.shape[1] == weight.shape[0]

    def depthwise_gradients(self, gy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the per-sample weight gradients of a depthwise convolution, (m, C, height, width)."""
        (m, channels), (kh, kw) = x.shape[:2], weight.shape[2:]
        exchanged = Convolution(self.dilation, self.padding, self.stride, m * channels)
        maps = exchanged.apply(x.reshape(1, m * channels, *x.shape[2:]), gy.reshape(m * channels, 1, *gy.shape[2:]))
        return maps[0, :, :kh, :kw].reshape(m, channels, kh, kw)

    def _depthwise_input_gradient(self, gy: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> Tensor:
        """Convolve gy, padded by `padding`, with the kernels rotated by 180°."""
        # The output size of the convolution without its stride.
        size = [n + p - q for n, p, q in zip(x.shape[2:], self.padding, padding, strict=True)]
        if list(gy.shape[2:]) != size:
            spread = gy.new_zeros((len(gy), *size, gy.shape[1])).permute(0, 3, 1, 2)
            spread[:, :, :: self.stride[0], :: self.stride[1]] = gy
            gy = spread
        return Convolution((1, 1), padding, self.dilation, self.groups).apply(gy, weight.flip(2, 3))


def _im2col_gradients(by: Convolution, x: Tensor, gy: Tensor, weight: Tensor, in_order: bool) -> Tensor:
    """Return per-sample weight gradients (m, P) as products of cotangents with input patches (im2col).

    Works on a few samples at a time, so that their patches stay in cache, and with channels innermost, so that a row
    of a patch is contiguous. Unless the stride skips rows, patches are unfolded along rows only: for each row of the
    kernel, the matching rows of the input are contiguous too, and one matrix product covers the whole output.
    """
    m, height, width = gy.shape[0], gy.shape[2], gy.shape[3]
    outputs, inputs, kh, kw = weight.shape
    (sh, sw), (ph, pw), (dh, dw) = by.stride, by.padding, by.dilation
    rows = gy.permute(0, 2, 3, 1).reshape(m, height * width, outputs).transpose(1, 2)
    if (kh, kw, ph, pw) == (1, 1, 0, 0):
        pixels = x[:, :, ::sh, ::sw].permute(0, 2, 3, 1).reshape(m, height * width, inputs)
        return torch.bmm(rows, pixels).flatten(1)
    # Kernel rows that are unfolded per pixel, and kernel rows that get a product of their own.
    unfolded, turns = (kh, 1) if sh > 1 else (1, kh)
    lines = height + (turns - 1) * dh
    patch = unfolded * kw * inputs
    patches_at_once = _PATCHES if x.device.type == "cpu" else _PATCHES_ON_DEVICE
    step = max(1, min(m, patches_at_once // (lines * width * patch)))
    out = x.new_empty((m, turns, outputs, patch))
    buffer = x.new_empty((step, lines, width, unfolded, kw, inputs))
    for start in range(0, m, step):
        part = F.pad(x[start : start + step], (pw, pw, ph, ph)).permute(0, 2, 3, 1).contiguous()
        b, h, w, c = part.stride()
        patches = buffer[: len(part)]
        patches.copy_(part.as_strided(patches.shape, (b, h * sh, w * sw, h * dh, w * dw, c)))
        pixels = patches.view(len(part), lines * width, patch)
        for turn in range(turns):
            first = turn * dh * width
            torch.bmm(
                rows[start : start + step],
                pixels[:, first : first + height * width],
                out=out[start : start + step, turn],
            )
    if in_order:
        out = out.view(m, turns, outputs, unfolded, kw, inputs).permute(0, 2, 5, 1, 3, 4)
    return out.flatten(1)


def per_dimension(value: Any, dimensions: int) -> tuple[int, ...]:
    """Return one number per dimension from torch's forms: a number, or a sequence of one or of all."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


def _invocation(
    dimensions: int,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Invocation:
    """Return the call of a convolution; parameters have torch's names."""
    zeros = None
    dilation = per_dimension(dilation, dimensions)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        # Pad here rather than in the convolution, because an even kernel needs one more zero on the right.
        zeros = [n for t in reversed(total) for n in (t // 2, t - t // 2)]
        padding = 0
    by = Convolution(per_dimension(stride, dimensions), per_dimension(padding, dimensions), dilation, groups)
    return Invocation(input, weight, bias, by, unbatched=dimensions + 1, zeros=zeros)


_DIMENSIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


@handles(_DIMENSIONS)
def convolution(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Tensor:
    return call_layer(recorder, func, args, kwargs, _invocation(_DIMENSIONS[func], *args, **kwargs))
