"""Assignment of a layer's rows to samples, by backward passes.

Where samples do not interact, the gradient at a row is that of a single logit. The first pass sets the cotangent of
every sample's logit to 1; each further pass sets sample i's to a power of two whose exponent is a digit of i. A row's
gradients then differ by exactly these powers, since scaling by powers of two does not round, and the exponents spell
the sample. Gradients of a row that several samples share are not multiples of each other, which reveals it. Batch norms
treat their statistics as constants during these passes.

A row is what a linear map acts on, (…, C) → (…), or an entry along the first dimension of a convolution's input. Rows
may be in any order: sequence first (length, m, C), samples shuffled, taken one by one, or folded into one dimension
with others (m · length, C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


class MixedRowsError(Exception):
    """A row contributes to the logits of several samples."""


@dataclass(frozen=True)
class Rows:
    """The samples of rows: they lie along `dimension`, or `owner` (rows,) gives the sample of each, −1 for none."""

    dimension: int
    owner: Tensor | None = None


IN_ORDER = Rows(0)


def cotangents(target: Tensor) -> list[Tensor]:
    """Return the cotangents (m,) of the logits `target` (m,) for each pass, ones first."""
    samples, base = len(target), _base(target.dtype)
    index = torch.arange(samples, device=target.device)
    passes = [torch.ones_like(target)]
    for _ in range(_digits(samples, base)):
        passes.append(torch.ldexp(passes[0], index % base - base // 2))
        index = index // base
    return passes


def rows_of(gradients: list[Tensor], samples: int, *, convolution: bool) -> Rows | None:
    """Return the rows of a layer whose output had `gradients` in these passes, None where some are not finite.

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
    """Return the number of exponents of a cotangent, small enough that gradients neither overflow nor underflow."""
    return {torch.float64: 256, torch.float16: 4}.get(dtype, 16)


def _digits(samples: int, base: int) -> int:
    digits, reach = 1, base
    while reach < samples:
        digits, reach = digits + 1, reach * base
    return digits
