"""Sums over rows against the same in float64, on both sides of each of the thresholds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hnas.metrics.reductions import inner, row_products, row_sum

SHAPES = [(65_536, 16), (65_536, 5), (32_768, 21), (16_384, 32), (4_096, 64), (65_537, 9), (9 * 1024 + 256, 24), (3, 2)]


def tall(n: int, channels: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Values whose mean is not zero, so that a sum of many is far larger than any."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((n, channels), generator=generator, dtype=torch.float64) + 0.7).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_sums_are_those_of_float64(shape: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    x, y = tall(*shape, dtype), tall(*shape, dtype, seed=1)
    n = shape[0]
    sums, products = x.double().sum(0), (x.double() * y.double()).sum(0)
    assert ((row_sum(x) - sums).abs() <= tolerance * n).all()
    assert ((row_products(x, y, torch.empty_like(x)) - products).abs() <= 2 * tolerance * n).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 700), st.integers(1, 40), st.integers(1, 64))
def test_any_number_of_rows_and_channels(rows: int, channels: int, times: int) -> None:
    n = rows * times
    x, y = tall(n, channels, torch.float64, seed=rows), tall(n, channels, torch.float64, seed=times)
    torch.testing.assert_close(row_sum(x), x.sum(0))
    torch.testing.assert_close(row_products(x, y, torch.empty_like(x)), (x * y).sum(0))


def test_a_matrix_with_gaps_is_summed_too() -> None:
    x = tall(65_536, 32, torch.float64)[:, ::2]
    torch.testing.assert_close(row_sum(x), x.sum(0))
    torch.testing.assert_close(row_products(x, x.contiguous(), torch.empty_like(x)), (x * x).sum(0))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inner_products_in_any_layout(layout: torch.memory_format) -> None:
    a = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    b = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    expected = (a * b).sum()
    torch.testing.assert_close(inner(a.contiguous(memory_format=layout), b), expected)
    torch.testing.assert_close(inner(a.contiguous(memory_format=layout), b.contiguous(memory_format=layout)), expected)
    torch.testing.assert_close(inner(a[:, ::2], b[:, 1::2]), (a[:, ::2] * b[:, 1::2]).sum())
