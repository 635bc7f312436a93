"""`θᵀ H g`, the product in GraSP, from one pass of tangents instead of a double backward.

    θᵀ H g = ∂²/∂ε∂δ L(θ + ε θ + δ g)  at ε = δ = 0

With the tangents `p = ∂x/∂ε`, `q = ∂x/∂δ` of every value x, the chain rule gives

    θᵀ H g = Σ_f ⟨∂L/∂y, f″(p, q)⟩

over all nonlinear operations `y = f(x)`. These include the loss and the layers, which are bilinear in x and W:
`p ↦ W p + W x`, `q ↦ W q + G x`, `f″ = W q + G p` with the gradient G of the weight W. Unlike hyper-dual numbers (Fike
and Alonso, 2011), the values carry no second derivatives. The cotangent `∂L/∂y` of each nonlinear f is kept from the
backward pass for g. Everything else comes from the forward pass and is freed as the replay proceeds, whereas a double
backward needs twice the memory of a training step.

Autograd differentiates a network twice where one of its operations has no rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hnas.metrics.tape import Replay, Tape
from hnas.metrics.unseen_uses import cut_short

Gradients = Sequence[Tensor | None]


class NoSecondDerivativeError(Exception):
    """Torch cannot differentiate a network twice; the message says why."""


def by_tangents(tape: Tape, gradients: Mapping[str, Tensor | None], logits: Tensor, labels: Tensor) -> Tensor:
    """Return `θᵀ H g`, a float64 scalar, for the mean cross entropy of `logits` (m, classes) and `labels` (m,).

    `gradients` maps layer names to weight gradients, None where the loss does not depend on the weight. Consumes the
    tape.
    """
    shares = logits.double().softmax(1)
    replay = Replay(gradients, torch.zeros_like(shares[0, 0]))
    p, q = tape.replay(replay)
    if p is not None and q is not None:
        replay.add(((shares * p * q).sum(1) - (shares * p).sum(1) * (shares * q).sum(1)) / len(labels))
    return replay.curvature


def by_autograd(loss: Tensor, weights: Sequence[Tensor], gradients: Gradients) -> Tensor:
    """Return `θᵀ H g`, a float64 scalar, by differentiating `loss` twice; `gradients` is its g.

    Raises `NoSecondDerivativeError`.
    """
    total = torch.zeros((), dtype=torch.float64, device=loss.device)
    try:
        again = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        reached = [(a, g) for a, g in zip(again, gradients, strict=True) if g is not None and a.requires_grad]
        if not reached:
            return total
        if cut_short(a for a, _ in reached):
            raise NoSecondDerivativeError("a function is marked with once_differentiable")
        products = torch.autograd.grad([a for a, _ in reached], weights, [g for _, g in reached], allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NoSecondDerivativeError(str(error).strip().splitlines()[0].rstrip(".")) from error
    for weight, product in zip(weights, products, strict=True):
        if product is not None:
            total = total + (weight.detach() * product).sum(dtype=torch.float64)
    return total
