"""Batch norm on batch statistics, with a first and a second backward pass of few passes over memory.

Over the n values x of a channel, with `d = x − mean(x)`, `s = 1/√(mean(d²) + ε)`, `x̂ = s d`, `a = γ s`:

    y = γ x̂ + β,   x̄ = a (ȳ − m₁ − m₂ x̂),   m₁ = mean(ȳ),  m₂ = mean(ȳ x̂)

and, for a cotangent v of x̄ with `v₁ = mean(v)`, `p = mean(v x̂)`, `q = mean(v ȳ)`,

    to ȳ:  a (v − v₁ − p x̂), which is the backward pass applied to v
    to x:  a s (−m₂ (v − v₁) − p (ȳ − m₁) + (3 m₂ p − q + m₁ v₁) x̂)

Torch's own batch norm is not used: on channels-last tensors its CPU kernel sums naively, and the means of 65,536
values are off by 3e-4, which moves κ by per cents. Sums here are torch's pairwise ones, off by 2e-7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from hnas.metrics.curvature import Trace


@dataclass
class Moments:
    """What one batch norm has found out, for a derivative of its backward pass that autograd does not take itself.

    `forward` holds s and a, (C,) each; `backward` ȳ (m, C, …), m₁ and m₂ (C,) of its first backward pass.
    """

    forward: tuple[Tensor, Tensor] | None = None
    backward: tuple[Tensor, Tensor, Tensor] | None = None


@dataclass
class Coupling:
    """Whether backward passes take the batch's statistics for constants just now, and samples so for separate."""

    cut: bool = False


def batch_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    trace: Trace,
) -> Tensor:
    """Stands in for `torch.nn.functional.batch_norm`, same arguments; batch statistics leave the running ones alone.

    Records itself in `trace`.
    """
    if not training:
        fixed = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        trace.operation(F.batch_norm, (input, weight, bias), {}, fixed)
        return fixed
    if input.numel() == input.shape[1]:
        raise ValueError(f"batch norm needs more than one value a channel, got an input of shape {tuple(input.shape)}")
    centred: Tensor = _Centre.apply(input)  # type: ignore[no-untyped-call]
    moments, coupling = Moments(), trace.coupling
    if any(factor is not None and factor.requires_grad for factor in (weight, bias)):
        # Made by the network itself, they have derivatives of their own, which `_BatchNorm` does not send.
        out: Tensor = _BatchNorm.apply(centred, None, None, eps, None, coupling)  # type: ignore[no-untyped-call]
        shape = (-1, *(1,) * (input.dim() - 2))
        out = out if weight is None else out * weight.view(shape)
        out = out if bias is None else out + bias.view(shape)
        trace.operation(F.batch_norm, (input, weight, bias), {}, out)
        return out
    out = _BatchNorm.apply(centred, weight, bias, eps, moments, coupling)  # type: ignore[no-untyped-call]
    trace.batch_norm(input, out, centred, moments, eps)
    return out


def matrix(x: Tensor) -> Tensor:
    """`x` (m, C, …) as a matrix (n, C); a view where the channels are innermost."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def like(rows: Tensor, x: Tensor) -> Tensor:
    """A matrix (n, C) in the shape (m, C, …) of `x`, channels innermost."""
    return rows.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """`⟨a, b⟩`, in one pass over memory where both are laid out alike."""
    if a.stride() == b.stride():
        if a.is_contiguous():
            return torch.dot(a.view(-1), b.view(-1))
        if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
            return torch.dot(a.permute(0, 2, 3, 1).view(-1), b.permute(0, 2, 3, 1).view(-1))
    return (a * b).sum()


class _Centre(torch.autograd.Function):
    """`d = x − mean(x)`, a node of its own so that nothing keeps x: only d is needed later."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = matrix(x)
        return like(rows - rows.sum(0) / len(rows), x)

    @staticmethod
    def backward(ctx: Any, gx: Tensor) -> Tensor:
        return gx  # what `_BatchNorm` and `_Adjoint` send has mean zero already, so `gx − mean(gx)` is gx


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, moments: Moments | None,
        coupling: Coupling,
    ) -> Tensor:  # fmt: skip
        """`x` (m, C, …) is centred. What `moments` holds is filled in, here and in the first backward pass."""
        d = matrix(x)
        # A tensor of its own, not a view of a matrix: what follows may change it in place, as residual networks do.
        y = torch.empty_strided(x.shape, like(d, x).stride(), dtype=x.dtype, device=x.device)
        rows = matrix(y)  # the squares go where y will be: fresh memory costs more than the arithmetic
        s = (torch.mul(d, d, out=rows).sum(0) / len(d) + eps).rsqrt()
        a = s if weight is None else weight * s
        torch.addcmul(d.new_zeros(()) if bias is None else bias, d, a, out=rows)
        ctx.save_for_backward(x, s, a)
        ctx.moments, ctx.coupling = moments, coupling
        if moments is not None:
            moments.forward = s, a
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, None, None, None, None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, None
        x, s, a = ctx.saved_tensors
        if ctx.coupling.cut:
            return like(matrix(gy) * a, gy), None, None, None, None, None
        gx = _Adjoint.apply(gy, x, s, a, ctx.moments)  # type: ignore[no-untyped-call]
        return gx, None, None, None, None, None


class _Adjoint(torch.autograd.Function):
    """`x̄` as a function of ȳ and the centred x; `s` and `a` are functions of x. The first call fills `moments`."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, s: Tensor, a: Tensor, moments: Moments | None) -> Tensor:
        rows, d = matrix(gy), matrix(x)
        gx, m1, m2 = _backward(rows, d, s, a)
        ctx.save_for_backward(gy, x, s, a, m1, m2)
        if moments is not None and moments.backward is None:
            moments.backward = gy.detach(), m1, m2
        return like(gx, gy)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        gy, x, s, a, m1, m2 = ctx.saved_tensors
        v, gy, d = map(matrix, (cotangent, gy, x))
        to_gy, v1, p = _backward(v, d, s, a)
        to_x = None
        if ctx.needs_input_grad[1]:
            q = (v * gy).sum(0) / len(v)
            scale = a * s
            to_x = torch.addcmul(scale * (m2 * v1 + p * m1), v, -scale * m2)
            to_x.addcmul_(gy, -scale * p).addcmul_(d, scale * s * (3 * m2 * p - q + m1 * v1))
            to_x = like(to_x, cotangent)
        return like(to_gy, cotangent), to_x, None, None, None


def _backward(gy: Tensor, d: Tensor, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`x̄` (n, C) with `m₁`, `m₂` (C,)."""
    m1 = gy.sum(0) / len(gy)
    out = gy * d
    m2 = out.sum(0) * s / len(gy)
    return input_gradient(gy, d, s, a, m1, m2, out), m1, m2


def input_gradient(gy: Tensor, d: Tensor, s: Tensor, a: Tensor, m1: Tensor, m2: Tensor, out: Tensor) -> Tensor:
    """`x̄ = a (ȳ − m₁ − m₂ s d)`, (n, C), in `out`."""
    return torch.addcmul(-a * m1, gy, a, out=out).addcmul_(d, -a * s * m2)
