"""Sums over the rows of tall matrices, as batch norm takes them, and inner products of activations.

A matrix (n, C) here holds one row for each of n values of C channels, channels innermost. Torch's sum over its rows is
pairwise and exact to 2e-7, but where the matrix exceeds a core's own cache it waits for memory, and a product has to be
written before it is summed. Products of matrices read what they need once: `Σ_i x_i y_i` of each channel is the
diagonal of `xᵀ y`, whose other entries cost nothing as long as the channels are few. Taken in blocks of rows and then
summed they are as exact as torch's sums (over all rows at once they are off by 8e-6).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Measured in float32 on one core with 2 MB of its own, from 65,536 × 4 to 4,096 × 64 values: less than these numbers of
# values are summed as fast by torch, more than these channels cost more than they save. Sums of up to 8 channels are
# fast in torch at any size.
_SUMMED, _MULTIPLIED = 2**19, 2**18
_FEW, _MANY = 8, 24

_BLOCK = 1024


def row_sum(x: Tensor) -> Tensor:
    """`Σ_i x_i`, (C,), of x (n, C)."""
    block = _block(x, _SUMMED)
    if block == 0 or x.shape[1] <= _FEW:
        return x.sum(0)
    blocks = x.view(-1, block, x.shape[1])
    ones = x.new_ones((1, 1, block)).expand(len(blocks), 1, block)
    return torch.bmm(ones, blocks).sum((0, 1))


def row_products(x: Tensor, y: Tensor, buffer: Tensor) -> Tensor:
    """`Σ_i x_i y_i`, (C,), of x and y (n, C). `buffer`, of their size, may be written over."""
    block = min(_block(x, _MULTIPLIED), _block(y, _MULTIPLIED))
    if block == 0:
        return torch.mul(x, y, out=buffer).sum(0)
    shape = (-1, block, x.shape[1])
    return torch.bmm(x.view(shape).transpose(1, 2), y.view(shape)).diagonal(dim1=1, dim2=2).sum(0)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """`⟨a, b⟩`, in one pass over memory where both are laid out alike."""
    if a.stride() == b.stride():
        if a.is_contiguous():
            return torch.dot(a.view(-1), b.view(-1))
        if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
            return torch.dot(a.permute(0, 2, 3, 1).view(-1), b.permute(0, 2, 3, 1).view(-1))
    return (a * b).sum()


def _block(x: Tensor, least: int) -> int:
    """How many rows of `x` make a block, or 0 where torch's own sums are as fast."""
    if x.device.type != "cpu" or x.numel() < least or x.shape[1] > _MANY or not x.is_contiguous():
        return 0
    block = math.gcd(len(x), _BLOCK)
    return block if block >= _BLOCK // 4 else 0
