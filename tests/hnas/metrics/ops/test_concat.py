"""The engine's concatenation against torch's: values, gradients, and the memory layout of gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hnas.metrics.ops.concat import cat


def maps(*channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    drawn = (torch.randn(2, c, 3, 5, generator=generator, dtype=torch.float64) for c in channels)
    return [x.contiguous(memory_format=torch.channels_last).requires_grad_() for x in drawn]


@pytest.mark.parametrize("along", [{"dim": 1}, {"axis": 1}, {"dim": -3}])
def test_values_and_both_derivatives_match_torch(along: dict[str, Any]) -> None:
    found = []
    for join in (cat, torch.cat):
        parts = maps(3, 1, 4)
        y = join(parts, **along)
        gy = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).requires_grad_()
        gradients = torch.autograd.grad((y**2).sum() + (y * gy).sum(), parts, create_graph=True)
        (to_gy,) = torch.autograd.grad(sum((g**2).sum() for g in gradients), gy)
        found.append([y, *gradients, to_gy])
    for ours, torchs in zip(*found, strict=True):
        assert torch.equal(ours, torchs)


def test_gradients_of_joined_channels_are_dense_channels_last() -> None:
    parts = maps(16, 16)
    y = cat(parts, 1)
    gradients = torch.autograd.grad(y, parts, torch.ones_like(y))
    assert all(g.is_contiguous(memory_format=torch.channels_last) for g in gradients)
    first, _ = torch.autograd.grad(torch.cat(parts, 1), parts, torch.ones_like(y))
    assert not first.is_contiguous(
        memory_format=torch.channels_last
    )  # otherwise torch does it itself, and `cat` can be deleted


def test_parts_without_gradient_get_none() -> None:
    one, other = maps(2, 3)
    y = cat([one.detach(), other], 1)
    (gradient,) = torch.autograd.grad(y.sum(), other)
    assert torch.equal(gradient, torch.ones_like(other))


def test_other_dimensions_and_shapes_are_left_to_torch() -> None:
    one, other = maps(2, 2)
    assert torch.equal(cat([one, other]), torch.cat([one, other]))
    assert torch.equal(cat([one[0], other[0]], 1), torch.cat([one[0], other[0]], 1))
    out = torch.empty(2, 4, 3, 5, dtype=one.dtype)
    assert cat([one.detach(), other.detach()], 1, out=out) is out
    with pytest.raises(RuntimeError, match="must match"):
        cat([one, other[..., :2]], 1)
