"""Pooling with few passes over memory, for channels-last tensors.

On such tensors, torch's average pooling on the CPU takes seven times as long as the equivalent depthwise convolution: a
kernel of ones, times the share `1 / count` of each window. Its adjoint is the transposed convolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.layout import like, matrix
from hnas.metrics.ops.convolution import Convolution, per_dimension
from hnas.metrics.ops.linear_rule import linear_in_first
from hnas.metrics.order import Order, first_argument
from hnas.metrics.recorder import Recorder, handles, named, register, replace
from hnas.metrics.tape import Replay, TangentRule, Tangents


def average_pool(
    input: Tensor,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Replaces `torch.nn.functional.avg_pool2d`: same arguments, same values up to rounding.

    Calls torch for windows that do not overlap, and for inputs other than batches of images on the CPU.
    """
    stride = kernel_size if stride is None or stride == [] else stride
    kernel, steps = per_dimension(kernel_size, 2), per_dimension(stride, 2)
    overlap = any(step < size for step, size in zip(steps, kernel, strict=True))
    if input.device.type != "cpu" or input.dim() != 4 or not input.is_floating_point() or ceil_mode or not overlap:
        if input.device.type != "cpu":
            # Of padded channels-last maps, torch's backward pass on CUDA is wrong (pytorch/pytorch#188344).
            input = input.contiguous()  # noqa: A001
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
) -> tuple[Tensor, Tensor, Convolution]:  # fmt: skip
    """A kernel of ones (C, 1, height, width), each window's factor 1 / count (1, C, H', W'), and the convolution."""
    # Pool ones, whose sums are known, to get the factors by torch's own rules.
    ones = torch.ones((1, 1, *shape[1:]), dtype=dtype, device="cpu")
    means = F.avg_pool2d(ones, kernel, stride, padding, False, count_include_pad, divisor)
    share = means / F.avg_pool2d(ones, kernel, stride, padding, divisor_override=1)
    share = share.expand(1, shape[0], -1, -1).contiguous(memory_format=torch.channels_last)
    return ones.new_ones((shape[0], 1, *kernel)), share, Convolution(stride, padding, (1, 1), shape[0])


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ones: Tensor, share: Tensor, convolution: Convolution) -> Tensor:
        ctx.shape, ctx.constants = x.shape, (ones, share, convolution)
        return convolution.apply(x, ones).mul_(share)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, None, None, None]:
        ones, share, convolution = ctx.constants
        x = gy.new_empty(()).expand(ctx.shape)  # only its shape is read
        gx, _ = convolution.adjoint(gy * share, x, ones, to_x=True, to_weight=False)
        return gx, None, None, None


replace({F.avg_pool2d}, average_pool)


@dataclass
class MaxPoolRule(TangentRule):
    """The rule of a max pooling of maps of this size: it picks the entries of a tangent that it picked of its input."""

    indices: Tensor
    size: torch.Size

    def __call__(self, read: list[Tangents], replay: Replay) -> Iterable[Tangents]:
        places = max_pool_places(self.indices, self.size)

        def taken(tangent: Tensor) -> Tensor:
            rows = matrix(tangent).reshape(-1).index_select(0, places)
            return like(rows.view(-1, tangent.shape[1]), self.indices)

        return (Tangents(*(None if tangent is None else taken(tangent) for tangent in read[0])),)


_MAX_POOLS: dict[Any, int] = {F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3}


@handles(_MAX_POOLS)
def max_pool(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Run `F.max_pool2d` and the like, keeping the indices of the maxima for values of the network."""
    batched = bool(args) and recorder.tape.knows(args[0]) and args[0].dim() == _MAX_POOLS[func] + 2
    if not batched or kwargs.get("return_indices"):
        return recorder.plain(func, args, kwargs)
    y, indices = func(*args, **{**kwargs, "return_indices": True})
    return recorder.note(func, args, kwargs, y, MaxPoolRule(indices, args[0].shape[2:]))


def max_pool_places(indices: Tensor, size: torch.Size) -> Tensor:
    """Return the flat positions, channels innermost, of the entries that a max pooling of (m, C, *size) picked.

    `indices` (m, C, …) are flat within each map, as torch's max pooling returns them. The positions are flat in the
    whole tensor, and ordered with the channels innermost too.
    """
    rows = indices.movedim(1, -1)
    m, channels = len(indices), indices.shape[1]
    shape = (1, *rows.shape[1:])
    channel = torch.arange(channels, device=indices.device).expand(shape).contiguous()
    places = torch.add(channel, rows, alpha=channels)  # one pass over `rows`, which is large
    start = torch.arange(m, device=indices.device).view(m, *(1,) * (rows.dim() - 1))
    return places.add_(start * (size.numel() * channels)).reshape(-1)


def _pooled(order: Order, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> bool:
    first = first_argument(args, kwargs)
    return order.knows(first) and result.dim() == first.dim() > 2


register(
    {average_pool}
    | named("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d"),
    linear_in_first,
    _pooled,
)
register({*_MAX_POOLS, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d}, keeps_order=_pooled)
register({F.interpolate}, keeps_order=_pooled)
