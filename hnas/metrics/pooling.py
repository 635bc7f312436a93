"""Poolings in few passes over memory, for tensors whose channels are innermost.

On such tensors torch's average pooling on the CPU takes seven times as long as a depthwise convolution, and it is one,
with a kernel of ones, times the share `1 / count` of each window. Its adjoint is the same convolution turned round.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.geometry import Geometry, per_dimension


def average_pool(
    input: Tensor,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Stands in for `torch.nn.functional.avg_pool2d`, same arguments, same values up to rounding.

    Windows that do not overlap, and tensors other than batches of images on the CPU, are left to torch.
    """
    stride = kernel_size if stride is None or stride == [] else stride
    kernel, steps = per_dimension(kernel_size, 2), per_dimension(stride, 2)
    overlap = any(step < size for step, size in zip(steps, kernel, strict=True))
    if input.device.type != "cpu" or input.dim() != 4 or not input.is_floating_point() or ceil_mode or not overlap:
        return F.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    constants = _constants(
        input.shape[1:], kernel, steps, per_dimension(padding, 2), count_include_pad, divisor_override, input.dtype
    )
    out: Tensor = _Average.apply(input, *constants)  # type: ignore[no-untyped-call]
    return out


@lru_cache(maxsize=32)
def _constants(
    shape: torch.Size, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
    count_include_pad: bool, divisor: int | None, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Geometry]:  # fmt: skip
    """A kernel of ones (C, 1, height, width), each window's share of its sum (1, C, H', W'), and the convolution."""
    # The share by torch's own rules: what pooling makes of ones, whose sums are known.
    ones = torch.ones((1, 1, *shape[1:]), dtype=dtype)
    means = F.avg_pool2d(ones, kernel, stride, padding, False, count_include_pad, divisor)
    share = means / F.avg_pool2d(ones, kernel, stride, padding, divisor_override=1)
    share = share.expand(1, shape[0], -1, -1).contiguous(memory_format=torch.channels_last)
    return ones.new_ones((shape[0], 1, *kernel)), share, Geometry(True, stride, padding, (1, 1), shape[0])


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ones: Tensor, share: Tensor, geometry: Geometry) -> Tensor:
        ctx.shape, ctx.constants = x.shape, (ones, share, geometry)
        return geometry.apply(x, ones).mul_(share)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None, None, None]:
        gx: Tensor = _Spread.apply(gy, ctx.shape, *ctx.constants)  # type: ignore[no-untyped-call]
        return gx, None, None, None


class _Spread(torch.autograd.Function):
    """The adjoint of `_Average`."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, shape: torch.Size, ones: Tensor, share: Tensor, geometry: Geometry) -> Tensor:
        ctx.constants = ones, share, geometry
        x = gy.new_empty(()).expand(shape)  # only its shape counts
        gx, _ = geometry.adjoint(gy * share, x, ones, to_x=True, to_kernel=False)
        assert gx is not None
        return gx

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None, None, None]:
        out: Tensor = _Average.apply(v, *ctx.constants)  # type: ignore[no-untyped-call]
        return out, None, None, None, None


def max_pool_places(indices: Tensor, size: torch.Size) -> Tensor:
    """Where the entries that a max pooling took of (m, C, *size) lie there if the channels are innermost.

    `indices` (m, C, …) are flat within a map, as torch's max poolings return them; the places, one after the other with
    the channels innermost too, are flat in the whole tensor.
    """
    rows = indices.movedim(1, -1)
    m, channels = len(indices), indices.shape[1]
    shape = (1, *rows.shape[1:])
    channel = torch.arange(channels, device=indices.device).expand(shape).contiguous()
    places = torch.add(channel, rows, alpha=channels)  # one pass over `rows`, which are many
    start = torch.arange(m, device=indices.device).view(m, *(1,) * (rows.dim() - 1))
    return places.add_(start * (size.numel() * channels)).reshape(-1)
