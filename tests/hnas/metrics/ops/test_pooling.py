"""The engine's poolings against torch's: values, first and second derivatives, and the positions of maxima."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from hnas.metrics.ops.pooling import average_pool, max_pool_places


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return drawn.contiguous(memory_format=torch.channels_last)


@st.composite
def poolings(draw: st.DrawFn) -> tuple[tuple[int, int], dict[str, Any]]:
    def pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
        return st.tuples(st.integers(low, high), st.integers(low, high))

    size, kernel, stride = draw(pair(1, 8)), draw(pair(1, 4)), draw(st.none() | pair(1, 4))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, kernel, strict=True)))
    return size, {
        "kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": draw(st.booleans()),
        "count_include_pad": draw(st.booleans()), "divisor_override": draw(st.none() | st.integers(1, 5)),
    }  # fmt: skip


@given(poolings())
def test_averages_and_both_derivatives_match_torch(pooling: tuple[tuple[int, int], dict[str, Any]]) -> None:
    size, options = pooling
    found = []
    for pool in (average_pool, F.avg_pool2d):
        x = images(2, 3, *size).requires_grad_()
        y = pool(x, **options)
        gy = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape).requires_grad_()
        (gx,) = torch.autograd.grad(y, x, gy, create_graph=True)
        (to_gy,) = torch.autograd.grad((gx**2).sum(), gy)
        found.append((y, gx, to_gy))
    for ours, torchs in zip(*found, strict=True):
        assert ours.shape == torchs.shape
        assert float((ours - torchs).detach().abs().max()) <= 1e-13 * max(1.0, float(torchs.detach().abs().max()))


@pytest.mark.parametrize(("channels", "side"), [(16, 32), (64, 8)])
@pytest.mark.parametrize("stride", [1, 2])
def test_averages_are_accurate_in_float32(channels: int, side: int, stride: int) -> None:
    x = images(8, channels, side, side, dtype=torch.float32)
    y = average_pool(x, 3, stride, 1, count_include_pad=False)
    exact = F.avg_pool2d(x.double(), 3, stride, 1, count_include_pad=False)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert float((y - exact).abs().max()) < 1e-6


def test_inputs_other_than_batches_of_images_are_left_to_torch() -> None:
    one = images(1, 3, 6, 6)[0]
    assert torch.equal(average_pool(one, 3, 1), F.avg_pool2d(one, 3, 1))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_places_are_the_positions_of_the_maxima(dimensions: int) -> None:
    x = torch.randn(3, 4, *(6, 5, 7)[:dimensions], generator=torch.Generator().manual_seed(2))
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dimensions - 1]
    y, indices = pool(x, 3, 2, 1, return_indices=True)
    places = max_pool_places(indices, x.shape[2:])
    assert torch.equal(x.movedim(1, -1).reshape(-1)[places], y.movedim(1, -1).reshape(-1))
