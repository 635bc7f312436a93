"""Convolutions in one to three dimensions, their adjoints, and the gradients of each sample.

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
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.layers import LayerMap
from hnas.metrics.ops.layer import Invocation, call_layer
from hnas.metrics.recorder import Recorder, handles

# Elements of the input patches (im2col) at once: 1 MB in float32, measured best from 16 × 32² to 64 × 8² maps.
_PATCHES = 250_000

# The same on an accelerator, where what counts is the number of kernels: 128 MiB in float32. Not measured.
_PATCHES_ON_DEVICE = 2**25


@dataclass
class Convolution(LayerMap):
    """x (m, C, …) and weight (C', C / groups, …) to y (m, C', …)."""

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
                gx, to_x = self._turned(gy, x, weight, padding), False
            if to_weight and (dilated or max(weight.shape[2:]) > 3):
                gw, to_weight = self.depthwise_gradients(gy, x, weight).sum(0)[:, None], False
        if to_x or to_weight:
            zeros = (0,) * len(self.stride)
            by_torch = torch.ops.aten.convolution_backward(
                gy, x, weight, None, self.stride, self.padding, self.dilation, False, zeros, self.groups,
                (to_x, to_weight, False),
            )  # fmt: skip
            gx, gw = by_torch[0] if to_x else gx, by_torch[1] if to_weight else gw
        return gx, gw

    def bias_gradients(self, gy: Tensor) -> Tensor:
        return gy.flatten(2).sum(2)

    def weight_gradients(self, x: Tensor, gy: Tensor, weight: Tensor, *, in_order: bool) -> Tensor:
        m = x.shape[0]
        if self.groups == 1 and x.dim() == 4:
            return _unfolded(self, x, gy, weight, in_order)
        if self.is_depthwise(x, weight):
            return self.depthwise_gradients(gy, x, weight).flatten(1)
        # Every sample becomes a group of one convolution, whose weight gradient is then theirs side by side.
        one = Convolution(self.stride, self.padding, self.dilation, self.groups * m)
        wide = weight.detach().expand(m, *weight.shape).flatten(0, 1)
        _, gw = one.adjoint(gy.flatten(0, 1)[None], x.flatten(0, 1)[None], wide, to_x=False, to_weight=True)
        assert gw is not None
        return gw.reshape(m, -1)

    def is_depthwise(self, x: Tensor, weight: Tensor) -> bool:
        """Whether it is a two-dimensional convolution of x, batched, with one kernel for each channel."""
        return x.dim() == 4 and self.groups == x.shape[1] == weight.shape[0]

    def depthwise_gradients(self, gy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Each sample's weight gradient of a depthwise convolution, (m, C, height, width)."""
        (m, channels), (kh, kw) = x.shape[:2], weight.shape[2:]
        turned = Convolution(self.dilation, self.padding, self.stride, m * channels)
        found = turned.apply(x.reshape(1, m * channels, *x.shape[2:]), gy.reshape(m * channels, 1, *gy.shape[2:]))
        return found[0, :, :kh, :kw].reshape(m, channels, kh, kw)

    def _turned(self, gy: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> Tensor:
        """The input gradient of a depthwise convolution: gy, padded by `padding`, through kernels turned by 180°."""
        # What the convolution would have returned without its stride.
        size = [n + p - q for n, p, q in zip(x.shape[2:], self.padding, padding, strict=True)]
        if list(gy.shape[2:]) != size:
            spread = gy.new_zeros((len(gy), *size, gy.shape[1])).permute(0, 3, 1, 2)
            spread[:, :, :: self.stride[0], :: self.stride[1]] = gy
            gy = spread
        return Convolution((1, 1), padding, self.dilation, self.groups).apply(gy, weight.flip(2, 3))


def _unfolded(by: Convolution, x: Tensor, gy: Tensor, weight: Tensor, in_order: bool) -> Tensor:
    """Products of output gradients with input patches, a few samples at a time, channels last.

    With the channels innermost a row of a patch is one run of memory, and the patches of a few samples stay in cache.
    Unless rows are skipped, a patch is not unfolded but along its rows: those of the output, one after the other, meet
    in turn the rows of the input that start at each row of the kernel, which are one run of memory too.
    """
    m, height, width = gy.shape[0], gy.shape[2], gy.shape[3]
    outputs, inputs, kh, kw = weight.shape
    (sh, sw), (ph, pw), (dh, dw) = by.stride, by.padding, by.dilation
    rows = gy.permute(0, 2, 3, 1).reshape(m, height * width, outputs).transpose(1, 2)
    if (kh, kw, ph, pw) == (1, 1, 0, 0):
        pixels = x[:, :, ::sh, ::sw].permute(0, 2, 3, 1).reshape(m, height * width, inputs)
        return torch.bmm(rows, pixels).flatten(1)
    # Kernel rows unfolded with each pixel, and those met in turn.
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
    """One number for each dimension from what torch takes for them: a number, or one or all of them in a sequence."""
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
    """A call of a convolution, with torch's names of the parameters."""
    zeros = None
    dilation = per_dimension(dilation, dimensions)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        # Zeros are added here rather than by the convolution: an even kernel needs one more on the right.
        zeros = [n for t in reversed(total) for n in (t // 2, t - t // 2)]
        padding = 0
    by = Convolution(per_dimension(stride, dimensions), per_dimension(padding, dimensions), dilation, groups)
    return Invocation(input, weight, bias, by, unbatched=dimensions + 1, zeros=zeros)


_DIMENSIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


@handles(_DIMENSIONS)
def convolution(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Tensor:
    return call_layer(recorder, func, args, kwargs, _invocation(_DIMENSIONS[func], *args, **kwargs))
