"""`θᵀ H g`, the product that GraSP is made of: from one pass of tangents, without the graph of a double backward.

    θᵀ H g = ∂²/∂ε∂δ L(θ + ε θ + δ g)  at ε = δ = 0

With the tangents `p = ∂x/∂ε`, `q = ∂x/∂δ` of every value x, the chain rule gives

    θᵀ H g = Σ_f ⟨∂L/∂y, f″(p, q)⟩

over all operations `y = f(x)` that are not linear, layers (`p ↦ W p + W x`, `q ↦ W q + G x`, `f″ = W q + G p` with the
gradient G of the weight W) and the loss among them. So second derivatives of values are never carried along, as
hyper-dual numbers (Fike and Alonso, 2011) carry them. `∂L/∂y` is what the backward pass for g sends through y anyway:
it is kept where f is not linear. Apart from that only values that the forward pass has anyway are kept, and they go as
the replay moves on: a double backward holds twice what a training step holds.

A network with an operation that has no rule is differentiated twice by autograd, which takes any operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hnas.metrics.tape import Replay, Tape
from hnas.metrics.unseen_uses import cut_short

Gradients = Sequence[Tensor | None]


class NoSecondDerivativeError(Exception):
    """Torch cannot differentiate a network twice, for the reason in the message."""


def by_tangents(tape: Tape, gradients: Mapping[str, Tensor | None], logits: Tensor, labels: Tensor) -> Tensor:
    """`θᵀ H g`, a float64 scalar, of the mean cross entropy of `logits` (m, classes) against `labels` (m,).

    `gradients` are those of the layers by name, None where the loss does not reach a weight. Uses up the tape.
    """
    shares = logits.double().softmax(1)
    replay = Replay(gradients, torch.zeros_like(shares[0, 0]))
    p, q = tape.replay(replay)
    if p is not None and q is not None:
        replay.add(((shares * p * q).sum(1) - (shares * p).sum(1) * (shares * q).sum(1)) / len(labels))
    return replay.curvature


def by_autograd(loss: Tensor, weights: Sequence[Tensor], gradients: Gradients) -> Tensor:
    """`θᵀ H g`, a float64 scalar, by a backward pass through the backward pass of `loss`; `gradients` are its g.

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
