"""The eight columns and Θ₀, and the packed form in which they leave the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import cast

import torch
from torch import Tensor

from hnas.metrics.columns import COLUMNS
from hnas.metrics.layers import Layers
from hnas.metrics.statistics import Statistics


@dataclass(frozen=True)
class Metrics:
    """The eight columns, Θ₀ and its spectrum.

    `ntk` is Θ₀ (m, m) and `eigenvalues` (m,) its spectrum in ascending order, both float64 on the CPU. `status` is
    `ok`, `constant` where the output does not depend on the input, or `nonfinite` where a number overflowed. In the
    latter two κ is `inf`, and no search proposes the network. `grasp` and `grasp_abs` are NaN where torch has no second
    derivative of some operation. `statistics` and `scores` hold the statistics and the score columns that the caller
    requested, by name.
    """

    grad_norm: float
    grad_norm_l2: float
    snip: float
    snip_inner: float
    grasp: float
    grasp_abs: float
    trace: float
    kappa: float
    status: str
    ntk: Tensor
    eigenvalues: Tensor
    statistics: Statistics = field(default_factory=lambda: Statistics())
    scores: Mapping[str, float] = field(default_factory=dict)

    def columns(self) -> dict[str, float]:
        """The eight columns by name, in the order of `COLUMNS`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in COLUMNS}


@dataclass(frozen=True)
class Pending:
    """The metrics of one network, possibly still being computed on its device.

    `packed` (6 + m² + …,) float64 on that device is all that remains of the network: grad_norm, grad_norm_l2, snip,
    θᵀg, θᵀHg, the spread of the logits over the batch, Θ₀ row by row, and the statistics, whose shapes are
    `statistics`. `dtype` is the precision of the logits; `twice` says whether θᵀHg exists.
    """

    packed: Tensor
    dtype: torch.dtype
    twice: bool = True
    statistics: Mapping[str, torch.Size] = field(default_factory=dict)

    def result(self) -> Metrics:
        """Wait for the device, copy the results to the host once, and return the metrics.

        The eigenvalues are computed on the host.
        """
        packed = self.packed.cpu()
        size = sum(shape.numel() for shape in self.statistics.values())
        columns, rest = torch.split(packed, [len(packed) - size, size])
        metrics = _metrics(columns, self.dtype, twice=self.twice)
        return replace(metrics, statistics=unpacked(rest, self.statistics)) if self.statistics else metrics


@dataclass(frozen=True)
class PendingStatistics:
    """The statistics of one network, possibly still being computed on its device."""

    packed: Tensor
    shapes: Mapping[str, torch.Size]

    def result(self) -> Statistics:
        """Wait for the device, copy the results to the host once, and return the statistics."""
        return unpacked(self.packed.cpu(), self.shapes)


def packed_statistics(found: Mapping[str, Tensor], device: torch.device) -> tuple[Tensor, dict[str, torch.Size]]:
    """Concatenate the statistics in float64, and return them with the shape of each by name."""
    parts = [torch.zeros(0, dtype=torch.float64, device=device)]
    parts += [value.detach().double().flatten() for value in found.values()]
    return torch.cat(parts), {name: value.shape for name, value in found.items()}


def unpacked(packed: Tensor, shapes: Mapping[str, torch.Size]) -> Statistics:
    """Invert `packed_statistics`."""
    parts = torch.split(packed, [shape.numel() for shape in shapes.values()])
    values = {name: part.clone().view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    return cast("Statistics", values)


def packed_results(
    layers: Layers,
    gradients: tuple[Tensor | None, ...],
    curvature: Tensor | None,
    matrix: Tensor,
    logits: Tensor,
) -> Tensor:
    """Pack the columns and Θ₀ for `Pending`, on the device of the logits."""
    spread = (logits - logits[:1]).abs().max().double()
    hessian = torch.full_like(spread, math.nan) if curvature is None else curvature
    return torch.cat([gradient_sums(layers, gradients, logits.device), hessian[None], spread[None], matrix.flatten()])


def gradient_sums(layers: Layers, gradients: tuple[Tensor | None, ...], device: torch.device) -> Tensor:
    """Return grad_norm, grad_norm_l2, snip and θᵀg (4,), float64."""
    double = torch.float64
    norms, snips, inners = [], [], []
    for layer, gradient in zip(layers, gradients, strict=True):
        if gradient is not None:
            g = gradient.detach()
            product = layer.weight.detach() * g
            norms.append(torch.linalg.vector_norm(g, dtype=double))
            snips.append(product.abs().sum(dtype=double))
            inners.append(product.sum(dtype=double))
    zero = torch.zeros((), dtype=double, device=device)
    per_layer = torch.stack(norms) if norms else zero[None]
    return torch.stack([per_layer.sum(), torch.linalg.vector_norm(per_layer), sum(snips, zero), sum(inners, zero)])


def _metrics(packed: Tensor, dtype: torch.dtype, *, twice: bool) -> Metrics:
    """Return the metrics for the packed columns and Θ₀, on the host."""
    grad_norm, grad_norm_l2, snip, inner, hessian, spread = packed[:6].tolist()
    m = math.isqrt(len(packed) - 6)
    ntk = packed[6:].view(m, m).clone()  # its own storage, so that a result does not keep `packed` alive
    finite = all(map(math.isfinite, (grad_norm, snip, inner, hessian if twice else 0.0, spread))) and bool(
        torch.isfinite(ntk).all()
    )
    status = "nonfinite" if not finite else "constant" if spread == 0.0 else "ok"
    eigenvalues = torch.linalg.eigvalsh(ntk) if finite else ntk.new_full((m,), math.nan)
    return Metrics(
        grad_norm=grad_norm,
        grad_norm_l2=grad_norm_l2,
        snip=snip,
        snip_inner=abs(inner),
        grasp=-hessian,
        grasp_abs=abs(hessian),
        trace=math.sqrt(max(float(ntk.trace()), 0.0) / m) if finite else math.nan,
        kappa=condition_number(eigenvalues, dtype) if status == "ok" else math.inf,
        status=status,
        ntk=ntk,
        eigenvalues=eigenvalues,
    )


def condition_number(eigenvalues: Tensor, dtype: torch.dtype) -> float:
    """Return κ = λ_max / λ_min of Θ₀ from `eigenvalues` (m,) ascending, for gradients of precision `dtype`.

    `inf` where Θ₀ = J Jᵀ is singular to working precision: where λ_min = σ_min(J)² is at most `(m ε)² λ_max`, with ε
    the gradients' precision, or at most `m ε₆₄ λ_max`, with ε₆₄ that of float64, in which the products were summed.
    """
    m = len(eigenvalues)
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    floor = max((m * torch.finfo(dtype).eps) ** 2, m * torch.finfo(torch.float64).eps)
    return high / low if low > floor * high else math.inf
