"""Activation patterns of a network's ReLUs, reduced to two counts.

With `s_iu = 1` where unit u is active for sample i, else 0, over the units of all ReLUs:

    K[i, j] = Σ_u [s_iu = s_ju] = 2 Σ_u s_iu s_ju + U − Σ_u s_iu − Σ_u s_ju      (m, m), U units
    patterns = |{(s_1u, …, s_mu) : u}|

Both are exact: float32 sums of ones stay below 2²⁴, and a pattern is stored as ⌈m / 64⌉ 64-bit integers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

# Units processed at once: 1 MiB for 64 samples, which fits a core's own cache.
_UNITS = 4096

# The same on an accelerator, for fewer kernels: 256 MiB.
_UNITS_ON_DEVICE = 2**20

# Bits of a pattern are summed as powers of two in float32: 22 at a time are exact, and 3 × 22 cover a 64-bit word.
_BITS = 22
_WORD = 64


class Signs:
    """The two counts over all ReLUs passed to `add`, each on request."""

    def __init__(self, samples: int, device: torch.device, *, agreements: bool, patterns: bool) -> None:
        self._wanted = agreements, patterns
        self._units = 0
        self._products = torch.zeros((samples, samples), dtype=torch.float64, device=device)
        self._powers = _powers(samples, device)
        self._words = [torch.zeros((len(self._powers) // 3, 0), dtype=torch.int64, device=device)]
        self._ordered = True
        # The products of each ReLU's output while that is alive, with its version.
        self._added: Any = WeakIdKeyDictionary()

    def add(self, values: Tensor | None) -> None:
        """Count the units of a ReLU with output `values` (m, …); None makes both counts NaN.

        A second call with the same values counts them again.
        """
        if values is None:
            self._ordered = False
            return
        version, products = self._added.get(values, (None, None))
        if version != values._version:  # new, or changed in place since
            products = self._new(values.detach())
            self._added[values] = values._version, products
        self._products += products
        self._units += values[0].numel()

    def _new(self, values: Tensor) -> Tensor:
        """Return the products (m, m) of new values, and store their patterns."""
        agreements, patterns = self._wanted
        products = torch.zeros_like(self._products)
        values = values[:, None] if values.dim() == 1 else values
        rows = (values if values.is_contiguous() else values.movedim(1, -1)).flatten(1)
        step = min(rows.shape[1], _UNITS if rows.device.type == "cpu" else _UNITS_ON_DEVICE)
        buffer = torch.empty(len(rows) * step, dtype=torch.float32, device=rows.device)
        for start in range(0, rows.shape[1], step or 1):
            part = rows[:, start : start + step]
            # Comparing straight into floats takes an eighth of the time of a conversion.
            active = torch.gt(part, 0, out=buffer[: part.numel()].view(part.shape))
            if agreements:
                products += active @ active.t()
            if patterns:
                self._words.append(_words(self._powers @ active))
        return products

    def agreements(self) -> Tensor:
        """Return K (m, m) float64, NaN where some ReLU's samples were not in order."""
        active = self._products.diagonal()
        counts = 2 * self._products + self._units - active[:, None] - active
        return counts if self._ordered else counts * torch.nan

    def patterns(self) -> Tensor:
        """Return the number of distinct patterns, a float64 scalar, NaN where some ReLU's samples were not in order."""
        words = torch.cat(self._words, 1)
        last, order = words[-1].sort()
        for word in words[:-1].flip(0):
            order = order[word[order].argsort(stable=True)]
        words = words[:, order] if len(words) > 1 else last[None]
        count = (words[:, 1:] != words[:, :-1]).any(0).sum().double() + bool(self._units)
        return count if self._ordered else count * torch.nan


def _powers(samples: int, device: torch.device) -> Tensor:
    """Return (3 ⌈m / 64⌉, m): what each sample's activity adds to the three pieces of each word of a pattern."""
    sample = torch.arange(samples, device=device)
    piece = sample // _WORD * 3 + sample % _WORD // _BITS
    pieces = torch.arange(3 * -(-samples // _WORD), device=device)[:, None]
    return (pieces == piece) * torch.ldexp(torch.ones_like(sample, dtype=torch.float32), sample % _WORD % _BITS)


def _words(pieces: Tensor) -> Tensor:
    """Combine pieces (3 w, n) of patterns into words (w, n) int64."""
    low, middle, high = pieces.to(torch.int64).view(-1, 3, pieces.shape[1]).unbind(1)
    return low + (middle << _BITS) + (high << 2 * _BITS)
