"""A layer's map and its adjoints against torch's convolutions, in float64, and in float32 for realistic sizes."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from hnas.metrics.ops.convolution import Convolution


class Case(NamedTuple):
    geometry: Convolution
    x: Tensor
    weight: Tensor
    gy: Tensor


def case(
    samples: int, channels: int, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int], dilation: tuple[int, int], dtype: torch.dtype = torch.float64,
) -> Case:  # fmt: skip
    """A depthwise convolution with its input and a cotangent, channels innermost."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).contiguous(memory_format=torch.channels_last)

    geometry = Convolution(stride, padding, dilation, channels)
    x, weight = draw(samples, channels, *size), draw(channels, 1, *kernel)
    return Case(geometry, x, weight, draw(*geometry.apply(x, weight).shape))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    def pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
        return st.tuples(st.integers(low, high), st.integers(low, high))

    size, kernel, stride, padding, dilation = (draw(pair(*r)) for r in ((1, 9), (1, 5), (1, 3), (0, 5), (1, 3)))
    sides = zip(size, kernel, padding, dilation, strict=True)
    assume(all(n + 2 * p > d * (k - 1) for n, k, p, d in sides))
    return case(draw(st.integers(1, 3)), draw(st.integers(1, 3)), size, kernel, stride, padding, dilation)


def by_autograd(c: Case, x: Tensor, gy: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of `⟨gy, weight * x⟩` with respect to x and weight."""
    x, weight = x.clone().requires_grad_(), c.weight.clone().requires_grad_()
    g = c.geometry
    y = F.conv2d(x, weight, None, g.stride, g.padding, g.dilation, g.groups)
    to_x, to_weight = torch.autograd.grad(y, [x, weight], gy)
    return to_x, to_weight


def close(ours: Tensor | None, reference: Tensor, relative: float) -> bool:
    assert ours is not None
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max()) <= relative * max(float(reference.abs().max()), 1.0)


@given(cases())
def test_adjoints_of_depthwise_convolutions_match_autograd(c: Case) -> None:
    to_x, to_weight = by_autograd(c, c.x, c.gy)
    gx, gw = c.geometry.adjoint(c.gy, c.x, c.weight, to_x=True, to_weight=True)
    assert close(gx, to_x, 1e-12)
    assert close(gw, to_weight, 1e-12)
    assert c.geometry.adjoint(c.gy, c.x, c.weight, to_x=False, to_weight=False) == (None, None)


@given(
    channels=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    groups=st.integers(1, 3),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    needed=st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_adjoints_of_strided_1_by_1_convolutions_match_autograd(
    channels: tuple[int, int], groups: int, size: tuple[int, int], stride: tuple[int, int], needed: tuple[bool, bool]
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = channels
    g = Convolution(stride, (0, 0), (1, 1), groups)
    x = torch.randn(2, groups * inputs, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(groups * outputs, inputs, 1, 1, generator=generator, dtype=torch.float64)
    gy = torch.randn(g.apply(x, weight).shape, generator=generator, dtype=torch.float64)
    c = Case(g, x.contiguous(memory_format=torch.channels_last), weight, gy)
    ours = g.adjoint(c.gy, c.x, c.weight, to_x=needed[0], to_weight=needed[1])
    for gradient, reference, need in zip(ours, by_autograd(c, c.x, c.gy), needed, strict=True):
        assert close(gradient, reference, 1e-12) if need else gradient is None


@given(cases())
def test_per_sample_depthwise_gradients_match_single_samples(c: Case) -> None:
    ours = c.geometry.depthwise_gradients(c.gy, c.x, c.weight)
    each = [by_autograd(c, c.x[i : i + 1], c.gy[i : i + 1])[1][:, 0] for i in range(len(c.x))]
    assert close(ours, torch.stack(each), 1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("channels", "side"), [(16, 32), (64, 8)])
def test_convolutions_of_darts_are_accurate_in_float32(
    channels: int, side: int, kernel: int, dilation: int, stride: int
) -> None:
    padding = dilation * (kernel // 2)
    sides = [(value, value) for value in (side, kernel, stride, padding, dilation)]
    c = case(8, channels, *sides, torch.float32)  # type: ignore[arg-type]
    double = Case(c.geometry, c.x.double(), c.weight.double(), c.gy.double())
    to_x, to_weight = by_autograd(double, double.x, double.gy)
    gx, gw = c.geometry.adjoint(c.gy, c.x, c.weight, to_x=True, to_weight=True)
    assert gx is not None
    assert gx.is_contiguous(memory_format=torch.channels_last)  # its readers expect the channels innermost
    assert close(gx, to_x, 1e-6)
    assert close(gw, to_weight, 1e-5)
