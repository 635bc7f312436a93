"""The eight columns and Θ₀, from the few numbers that are left of a network once it is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hnas.metrics.columns import COLUMNS
from hnas.metrics.layers import Layers


@dataclass(frozen=True)
class Metrics:
    """The eight columns, Θ₀ and what they rest on.

    `ntk` is Θ₀ (m, m) and `eigenvalues` (m,) its spectrum in ascending order, both float64 on the CPU. `status` is
    `ok`; `constant` where the network's output does not depend on its input, `nonfinite` where a number overflowed:
    in both κ is `inf`, and no search proposes the network. `grasp` and `grasp_abs` are NaN where torch has no second
    derivative of an operation.
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

    def columns(self) -> dict[str, float]:
        """The eight columns by name, in the order of `COLUMNS`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in COLUMNS}


@dataclass(frozen=True)
class Pending:
    """The metrics of a network whose computation may still be under way on its device.

    `packed` (6 + m²,) float64 on that device is all that is left of it: grad_norm, grad_norm_l2, snip, θᵀg, θᵀHg, the
    spread of the logits over the batch, then Θ₀ row by row. `dtype` is the precision of the logits, `twice` whether
    there is a θᵀHg.
    """

    packed: Tensor
    dtype: torch.dtype
    twice: bool = True

    def result(self) -> Metrics:
        """The metrics, from one copy to the host, which waits for the device; eigenvalues are the host's."""
        return _metrics(self.packed.cpu(), self.dtype, twice=self.twice)


def packed_results(
    layers: Layers,
    gradients: tuple[Tensor | None, ...],
    curvature: Tensor | None,
    matrix: Tensor,
    logits: Tensor,
) -> Tensor:
    """What `Pending` holds, on the device of the logits."""
    double = torch.float64
    norms, snips, inners = [], [], []
    for layer, gradient in zip(layers, gradients, strict=True):
        if gradient is not None:
            g = gradient.detach()
            product = layer.weight.detach() * g
            norms.append(torch.linalg.vector_norm(g, dtype=double))
            snips.append(product.abs().sum(dtype=double))
            inners.append(product.sum(dtype=double))
    zero = torch.zeros((), dtype=double, device=logits.device)
    per_layer = torch.stack(norms) if norms else zero[None]
    scalars = torch.stack(
        [
            per_layer.sum(),
            torch.linalg.vector_norm(per_layer),
            sum(snips, zero),
            sum(inners, zero),
            zero * math.nan if curvature is None else curvature,
            (logits - logits[:1]).abs().max().to(double),
        ]
    )
    return torch.cat([scalars, matrix.flatten()])


def _metrics(packed: Tensor, dtype: torch.dtype, *, twice: bool) -> Metrics:
    """The metrics of what `Pending` holds, on the host."""
    double = torch.float64
    grad_norm, grad_norm_l2, snip, inner, hessian, spread = packed[:6].tolist()
    m = math.isqrt(len(packed) - 6)
    ntk = packed[6:].view(m, m).clone()  # a tensor of its own: no result holds on to what was packed with it
    finite = all(map(math.isfinite, (grad_norm, snip, inner, hessian if twice else 0.0, spread))) and bool(
        torch.isfinite(ntk).all()
    )
    status = "nonfinite" if not finite else "constant" if spread == 0.0 else "ok"
    eigenvalues = torch.linalg.eigvalsh(ntk) if finite else torch.full((len(ntk),), math.nan, dtype=double)
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
    """κ = λ_max / λ_min of Θ₀ with `eigenvalues` (m,) ascending, computed from gradients of precision `dtype`.

    `inf` where Θ₀ = J Jᵀ is singular to working precision: λ_min = σ_min(J)² at most `(m ε)² λ_max` with ε the
    gradients' precision, or at most `m ε λ_max` with ε float64's, in which the products were summed.
    """
    m = len(eigenvalues)
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    floor = max((m * torch.finfo(dtype).eps) ** 2, m * torch.finfo(torch.float64).eps)
    return high / low if low > floor * high else math.inf
