"""Batch norm on batch statistics, with few passes over memory forwards, backwards and for tangents.

Over the n values x of a channel, with `d = x − mean(x)`, `s = 1/√(mean(d²) + ε)`, `x̂ = s d`, `a = γ s`:

    y = γ x̂ + β,   x̄ = a (ȳ − m₁ − m₂ x̂),   m₁ = mean(ȳ),  m₂ = mean(ȳ x̂)

and for the tangents, with `P, Q` the centred tangents of x,

    p ↦ a (P − α d),   α = s² mean(d P)
    q ↦ a (Q − β d),   β = s² mean(d Q)
    f″(p, q) = a ((3 α β − s² mean(P Q)) d − α Q − β P)

After a layer that omits d from its p and Q from its f″ (`hnas.metrics.ops.layer`), use `α − ε s²` in place of α: the
omitted terms cancel in each line up to this, because `s² mean(d²) = 1 − ε s²`.

Torch's own batch norm is too inaccurate: on channels-last tensors its CPU kernel sums naively, which puts the mean of
65,536 values off by 3e-4 and moves κ by several per cent. Torch's pairwise sums, used here, are off by 2e-7.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.metrics.layout import inner, like, matrix
from hnas.metrics.ops.layer import LayerRule, NormalisesRule
from hnas.metrics.order import same_shape
from hnas.metrics.passes import Passes
from hnas.metrics.recorder import Recorder, handles, register
from hnas.metrics.tape import ZERO, Cotangent, Replay, TangentRule, Tangents


@dataclass
class BatchNormRule(NormalisesRule):
    """The rule of one batch norm of the centred input d (m, C, …), with s and a (C,).

    `layer` is the rule of the layer that made the input, if any. The cotangent is stored as (ȳ, m₁, m₂).
    """

    d: Tensor
    eps: float
    s: Tensor
    a: Tensor
    layer: LayerRule | None = None
    cotangent: Cotangent = field(default_factory=Cotangent)

    def prepare(self, readers: Sequence[TangentRule], *, returned: bool) -> str | None:
        self.cotangent.wanted = True
        return None

    def __call__(self, read: list[Tangents], replay: Replay) -> Iterable[Tangents]:
        normalised = self.layer is not None and self.layer.normalised
        if not normalised and all(tangent is None for tangent in read[0]):
            return (ZERO,)
        s, a, d = self.s, self.a, matrix(self.d)
        n = len(d)
        p, q = (torch.zeros_like(d) if tangent is None else matrix(tangent) for tangent in read[0])
        buffer = torch.empty_like(d)
        square, minus = s * s, -a
        share = square / n
        p1, q1 = (tangent.sum(0) / n for tangent in (p, q))
        dp, beta, pq = (torch.mul(x, y, out=buffer).sum(0) * share for x, y in ((d, p), (d, q), (p, q)))
        alpha = dp - self.eps * s * s if normalised else dp
        if self.cotangent.value is not None:
            cotangent, m1, m2 = self.cotangent.value
            gy = matrix(cotangent)
            total = n * m1
            gp, gq = (torch.mul(gy, x, out=buffer).sum(0) - total * x1 for x, x1 in ((p, p1), (q, q1)))
            of_d = 3 * alpha * beta - pq + square * p1 * q1
            replay.add(a * (of_d * m2 * n / s - alpha * gq - beta * gp))
            if self.layer is not None and self.layer.mixed is not None:
                gradient = _input_gradient(gy, d, s, a, m1, m2, buffer)
                replay.add(inner(gradient, matrix(self.layer.mixed)))
                self.layer.mixed = None
        # If nothing else reads the layer's tangents, overwrite them.
        out = (p, q) if normalised else (torch.empty_like(d), buffer)
        torch.addcmul(minus * p1, p, a, out=out[0]).addcmul_(d, minus * alpha)
        torch.addcmul(minus * q1, q, a, out=out[1]).addcmul_(d, minus * beta)
        return (Tangents(*(like(tangent, self.d) for tangent in out)),)


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
    passes: Passes,
) -> tuple[Tensor, BatchNormRule | None]:
    """Return `torch.nn.functional.batch_norm` of the same arguments, and its tangent rule if it has one.

    Never updates the running statistics.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps), None
    if input.numel() == input.shape[1]:
        raise ValueError(f"batch norm needs more than one value per channel, got input of shape {tuple(input.shape)}")
    d: Tensor = _Centre.apply(input)  # type: ignore[no-untyped-call]
    out: Tensor
    if any(factor is not None and factor.requires_grad for factor in (weight, bias)):
        # The network computed γ or β, so they need gradients, which `_BatchNorm` does not return.
        out, *_ = _BatchNorm.apply(d, None, None, eps, Cotangent(), passes)  # type: ignore[no-untyped-call]
        shape = (-1, *(1,) * (input.dim() - 2))
        out = out if weight is None else out * weight.view(shape)
        return out if bias is None else out + bias.view(shape), None
    cotangent = Cotangent()
    out, s, a = _BatchNorm.apply(d, weight, bias, eps, cotangent, passes)  # type: ignore[no-untyped-call]
    return out, BatchNormRule(d.detach(), eps, s, a, cotangent=cotangent)


@handles({F.batch_norm})
def call_batch_norm(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> Tensor:
    recorder.normalised += bool(kwargs.get("training", args[5] if len(args) > 5 else False))
    y, rule = batch_norm(*args, **kwargs, passes=recorder.passes)
    x = args[0] if args else kwargs["input"]
    if rule is not None and x in recorder.tape:
        maker = recorder.tape.maker(x)
        rule.layer = maker if isinstance(maker, LayerRule) else None
    recorder.note(func, args, kwargs, y, rule)
    return y


register({F.batch_norm}, keeps_order=same_shape)


class _Centre(torch.autograd.Function):
    """`d = x − mean(x)`, a node of its own so that the graph keeps d but not x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = matrix(x)
        return like(rows - rows.sum(0) / len(rows), x)

    @staticmethod
    def backward(ctx: Any, gx: Tensor) -> Tensor:
        return gx  # gradients from `_BatchNorm` already have mean zero, so `gx − mean(gx)` is gx


class _BatchNorm(torch.autograd.Function):
    """y, s and a for centred d."""

    @staticmethod
    def forward(
        ctx: Any, d: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, cotangent: Cotangent,
        passes: Passes,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        rows = matrix(d)
        # A new tensor, not a view of a matrix, because residual networks change it in place.
        y = torch.empty_strided(d.shape, like(rows, d).stride(), dtype=d.dtype, device=d.device)
        out = matrix(y)  # holds the squares until y is written: new memory costs more than the arithmetic
        s = (torch.mul(rows, rows, out=out).sum(0) / len(rows) + eps).rsqrt()
        a = s if weight is None else weight * s
        torch.addcmul(rows.new_zeros(()) if bias is None else bias, rows, a, out=out)
        ctx.save_for_backward(d, s, a, weight)
        ctx.eps, ctx.cotangent, ctx.passes = eps, cotangent, passes
        ctx.mark_non_differentiable(s, a)
        ctx.set_materialize_grads(False)
        return y, s, a

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Any) -> tuple[Tensor | None, None, None, None, None, None]:
        gx = None
        if ctx.needs_input_grad[0]:
            d, s, a, weight = ctx.saved_tensors
            if torch.is_grad_enabled():  # double backward: s and a are functions of d
                y = F.batch_norm(d.contiguous(), None, None, weight, None, True, 0.0, ctx.eps)
                (gx,) = torch.autograd.grad(y, d, gy, create_graph=True)
            elif not ctx.passes.current.couples:
                gx = like(matrix(gy) * a, gy)
            else:
                rows = matrix(d)
                gx, m1, m2 = _backward(matrix(gy), rows, s, a)
                gx = like(gx, gy)
                ctx.cotangent.keep((gy, m1, m2))
        return gx, None, None, None, None, None


def _backward(gy: Tensor, d: Tensor, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `x̄` (n, C) with `m₁` and `m₂` (C,)."""
    m1 = gy.sum(0) / len(gy)
    out = gy * d
    m2 = out.sum(0) * s / len(gy)
    return _input_gradient(gy, d, s, a, m1, m2, out), m1, m2


def _input_gradient(gy: Tensor, d: Tensor, s: Tensor, a: Tensor, m1: Tensor, m2: Tensor, out: Tensor) -> Tensor:
    """Write `x̄ = a (ȳ − m₁ − m₂ s d)`, (n, C), to `out`, and return it."""
    minus = -a
    return torch.addcmul(minus * m1, gy, a, out=out).addcmul_(d, minus * s * m2)
