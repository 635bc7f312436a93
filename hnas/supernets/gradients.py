"""Gradients for α: of the validation loss, at the current weights or after one step of the weights.

first order    ∇_α L_val(w, α)
second order   ∇_α L_val(w', α) − η ∇²_{α,w} L_train(w, α) ∇_{w'} L_val(w', α)
               w' = w − η (μ b + ∇_w L_train(w, α) + λ w)

η is the learning rate of the weights, μ their momentum, b its buffers, λ their weight decay. The product with the
second derivative is approximated by a finite difference, with v = ∇_{w'} L_val(w', α) and R = r / ‖v‖₂,

    (∇_α L_train(w + R v, α) − ∇_α L_train(w − R v, α)) / 2R,     r = 0.01

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, eq. (6) to (8); momentum and decay
as in their program (`backward_step_unrolled`; exps/NATS-algos/search-cell.py of AutoDL-Projects).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from hnas.supernets.network import Mixture

#: Inputs (m, 3, S, S) and labels (m,).
Batch = tuple[Tensor, Tensor]
Mix = Callable[[Tensor], Mixture]


def first_order(network: nn.Module, mix: Mix, alphas: Tensor, valid: Batch) -> tuple[Tensor, Tensor]:
    """Return ∇_α L_val (6, 5) and the loss, without building the graph of the weights."""
    weights = {name: p.detach() for name, p in network.named_parameters()}
    return _by_alpha(network, weights, mix, alphas, valid)


def second_order(
    network: nn.Module,
    mix: Mix,
    alphas: Tensor,
    train: Batch,
    valid: Batch,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    buffers: Mapping[str, Tensor],
    r: float = 1e-2,
) -> tuple[Tensor, Tensor]:
    """Return the second-order gradient (6, 5) and L_val(w', α). `buffers` b are by parameter name, missing ones 0."""
    weights = {name: p.detach() for name, p in network.named_parameters()}
    gradient = _by_weights(network, weights, mix, alphas.detach(), train)
    unrolled = {
        name: w - lr * (momentum * buffers.get(name, torch.zeros_like(w)) + gradient[name] + weight_decay * w)
        for name, w in weights.items()
    }
    leaves = {name: w.requires_grad_() for name, w in unrolled.items()}
    alphas = alphas.detach().requires_grad_()
    loss = _loss(network, leaves, mix(alphas), valid)
    direct, *v = torch.autograd.grad(loss, [alphas, *leaves.values()])
    radius = r / float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in v])))
    shifted = [
        {name: w + sign * radius * part for (name, w), part in zip(weights.items(), v, strict=True)} for sign in (1, -1)
    ]
    above, below = (_by_alpha(network, moved, mix, alphas, train)[0] for moved in shifted)
    return direct - lr * (above - below) / (2 * radius), loss.detach()


def _loss(network: nn.Module, weights: Mapping[str, Tensor], mixture: Mixture, batch: Batch) -> Tensor:
    images, labels = batch
    return cross_entropy(functional_call(network, dict(weights), (images, mixture)), labels)


def _by_alpha(
    network: nn.Module, weights: Mapping[str, Tensor], mix: Mix, alphas: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    alphas = alphas.detach().requires_grad_()
    loss = _loss(network, weights, mix(alphas), batch)
    (gradient,) = torch.autograd.grad(loss, [alphas])
    return gradient, loss.detach()


def _by_weights(
    network: nn.Module, weights: Mapping[str, Tensor], mix: Mix, alphas: Tensor, batch: Batch
) -> dict[str, Tensor]:
    leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
    loss = _loss(network, leaves, mix(alphas), batch)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {n: torch.zeros_like(w) if g is None else g for (n, w), g in zip(leaves.items(), gradients, strict=True)}
