"""Many batches of one image in a single pass: batch norms use the statistics of each image alone."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.recorder import Recorder


class NoStatisticsError(Exception):
    """A batch norm has one value per channel and image, so a single image has no statistics."""


class Alone(Recorder):
    """A recorder whose batch norms use the statistics of each image alone, of rows that are the images."""

    #: The dimensions of (m, C, …) that batch norms average over, besides the positions.
    over: tuple[int, ...] = ()

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is not F.batch_norm:
            return super().call(func, args, kwargs)
        return self.note(func, args, kwargs, _batch_norm(*args, **kwargs, over=self.over))


class OneImage(Alone):
    """The same for a batch of one image, which may have several rows: a network may fold other dimensions into m."""

    over = (0,)


def _batch_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    over: tuple[int, ...],
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    dimensions = (*over, *range(2, input.dim()))
    if math.prod(input.shape[each] for each in dimensions) == 1:
        raise NoStatisticsError
    y: Tensor = _InstanceNorm.apply(input, dimensions, eps)  # type: ignore[no-untyped-call]
    shape = (-1, *(1,) * (input.dim() - 2))
    y = y if weight is None else y * weight.view(shape)
    return y if bias is None else y + bias.view(shape)


class _InstanceNorm(torch.autograd.Function):
    """x̂ = s (x − mean(x)), s = 1/√(var(x) + ε), with means over `dimensions` of x (m, C, …)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dimensions: tuple[int, ...], eps: float) -> Tensor:
        d = x - x.mean(dimensions, keepdim=True)
        s = (d.square().mean(dimensions, keepdim=True) + eps).rsqrt()
        ctx.save_for_backward(d, s)
        ctx.dimensions = dimensions
        return d * s

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None, None]:
        d, s = ctx.saved_tensors
        size = gy.abs().amax(ctx.dimensions, keepdim=True)
        gx = gy - gy.mean(ctx.dimensions, keepdim=True)
        gx = gx - d * ((gy * d).mean(ctx.dimensions, keepdim=True) * s.square())
        cancelled = gx.abs().amax(ctx.dimensions, keepdim=True) <= near(gy) * size
        return gx.mul_(s.masked_fill(cancelled, 0)), None, None


def near(value: Tensor) -> float:
    """Return the bound, relative to their size, below which numbers that cancel are rounding errors."""
    return 128 * torch.finfo(value.dtype).eps
