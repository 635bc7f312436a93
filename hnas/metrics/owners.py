"""Which sample each row of a layer's input belongs to, found out by backward passes.

Where the samples meet nowhere, what comes back to a row is the gradient of one logit alone. So let the cotangent of
sample i's logit be 1 in a first pass, and a power of two in others, whose exponents spell i: a row's gradients then
differ by those powers, which scale without rounding, and tell the sample. A row of several samples shows as well, since
its gradients are no multiples of each other. Batch norms take their statistics for constants meanwhile.

Rows are whatever a linear map acts on, (…, C) → (…), and the first dimension of a convolution's input. They need not be
in the samples' order: sequences may come first (length, m, C), samples be reordered, taken one by one, or folded into
one dimension with others (m · length, C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


class MixedRowsError(Exception):
    """A row has a share in the logits of several samples."""


@dataclass(frozen=True)
class Rows:
    """To whom rows belong: the samples lie along `dimension`, or else `owner` (rows,) has the sample of each, or −1."""

    dimension: int
    owner: Tensor | None = None


IN_ORDER = Rows(0)


def cotangents(target: Tensor) -> list[Tensor]:
    """Those of the samples' logits `target` (m,) in each pass, the first of them ones."""
    samples, base = len(target), _base(target.dtype)
    index = torch.arange(samples, device=target.device)
    passes = [torch.ones_like(target)]
    for _ in range(_digits(samples, base)):
        passes.append(torch.ldexp(passes[0], index % base - base // 2))
        index = index // base
    return passes


def rows_of(gradients: list[Tensor], samples: int, *, convolution: bool) -> Rows | None:
    """The rows of a layer whose output had these gradients in those passes, None where some are not finite.

    Raises `MixedRowsError`.
    """
    dtype = gradients[0].dtype
    rows = [(g.flatten(1) if convolution else g).double() for g in gradients]
    sizes = [torch.linalg.vector_norm(g, dim=-1) for g in rows]
    if not all(bool(torch.isfinite(size).all()) for size in sizes):
        return None
    base, tolerance = _base(dtype), math.sqrt(torch.finfo(dtype).eps)
    first, *others = rows
    size = sizes[0]
    reached = size > 0
    owner = torch.zeros_like(size, dtype=torch.int64)
    mixed = torch.zeros_like(reached)
    for place, (other, scaled) in enumerate(zip(others, sizes[1:], strict=True)):
        exponent = torch.where(reached & (scaled > 0), torch.log2(scaled / size).round(), 0)
        off = torch.linalg.vector_norm(other - torch.ldexp(first, exponent[..., None]), dim=-1)
        digit = exponent.long() + base // 2
        mixed |= (off > tolerance * scaled) | (digit < 0) | (digit >= base)
        owner += digit * base**place
    if bool((mixed | (reached & (owner >= samples))).any()):
        raise MixedRowsError
    return _arranged(torch.where(reached, owner, -1), samples)


def _arranged(owner: Tensor, samples: int) -> Rows:
    order = torch.arange(samples, device=owner.device)
    fits = []
    for dimension, length in enumerate(owner.shape):
        along = order.view(-1, *(1,) * (owner.dim() - dimension - 1))
        if length == samples and bool(((owner == along) | (owner < 0)).all()):
            fits.append(dimension)
    return Rows(fits[0]) if len(fits) == 1 and bool((owner >= 0).any()) else Rows(0, owner.flatten())


def _base(dtype: torch.dtype) -> int:
    """How many exponents a cotangent has: few enough that gradients neither overflow nor vanish."""
    return {torch.float64: 256, torch.float16: 4}.get(dtype, 16)


def _digits(samples: int, base: int) -> int:
    digits, reach = 1, base
    while reach < samples:
        digits, reach = digits + 1, reach * base
    return digits
