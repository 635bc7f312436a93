"""Memory layouts: the fastest one, and values (m, C, …) as matrices with one column per channel, without a copy."""

from __future__ import annotations

import torch
from torch import Tensor


def fastest(x: Tensor) -> torch.memory_format:
    """Return the layout in which convolutions, batch norm and pooling of images `x` (m, C, …) run fastest.

    Not in networks of very few channels: torch's gradient of a batch norm of 3 takes ten times as long in it.
    """
    return torch.channels_last if x.dim() == 4 else torch.contiguous_format


def matrix(x: Tensor) -> Tensor:
    """Return `x` (m, C, …) as a matrix (n, C); a view where the channels are innermost."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def like(rows: Tensor, x: Tensor) -> Tensor:
    """Return a matrix (n, C) in the shape (m, C, …) of `x`, channels innermost."""
    return rows.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return `⟨a, b⟩`, in one pass over memory where both have the same layout."""
    if a.stride() == b.stride():
        if a.is_contiguous():
            return torch.dot(a.view(-1), b.view(-1))
        if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
            return torch.dot(a.permute(0, 2, 3, 1).view(-1), b.permute(0, 2, 3, 1).view(-1))
    return (a * b).sum()
