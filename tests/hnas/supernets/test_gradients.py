"""The gradients of α against finite differences and a plainly written supernet, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hnas.supernets.gradients import first_order, second_order
from hnas.supernets.mixing import dirichlet, gumbel, gumbel_noise, softmax
from hnas.supernets.network import Mixture
from tests.support.written_out import batch, loss, tiny_network

TRAIN, VALID = batch(1), batch(2)
STEP = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-3}


def alphas(seed: int = 0) -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def differences(function: Callable[[Tensor], Tensor], at: Tensor, h: float = 1e-5) -> Tensor:
    """Return ∂f/∂x (6, 5) by central differences."""
    found = torch.zeros_like(at)
    for place in range(at.numel()):
        moved = torch.zeros(at.numel(), dtype=at.dtype)
        moved[place] = h
        step = moved.view_as(at)
        found.view(-1)[place] = (function(at + step) - function(at - step)) / (2 * h)
    return found


def weights_of(seed: int = 0) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in tiny_network(seed).named_parameters()}


def test_first_order_gradients_match_finite_differences() -> None:
    network, at = tiny_network(), alphas()
    found, value = first_order(network, softmax, at, VALID)
    weights = weights_of()
    expected = differences(lambda a: loss(weights, VALID, torch.softmax(a, 1)), at)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert float(value) == pytest.approx(float(loss(weights, VALID, torch.softmax(at, 1))))
    assert all(p.grad is None for p in network.parameters())


def buffers_of(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    drawn = {name: torch.randn(w.shape, generator=generator, dtype=w.dtype) / 20 for name, w in weights.items()}
    return {name: b for k, (name, b) in enumerate(drawn.items()) if k % 5}  # some weights have no buffer yet


def exact(at: Tensor, weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
    """Return d/dα L_val(w'(α), α), including the derivative through the step, by autograd."""
    at = at.clone().requires_grad_()
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    gradient = torch.autograd.grad(loss(leaves, TRAIN, torch.softmax(at, 1)), list(leaves.values()), create_graph=True)
    moved = {
        name: w - STEP["lr"] * (STEP["momentum"] * buffers.get(name, 0) + g + STEP["weight_decay"] * w)
        for (name, w), g in zip(leaves.items(), gradient, strict=True)
    }
    (found,) = torch.autograd.grad(loss(moved, VALID, torch.softmax(at, 1)), [at])
    return found


def test_second_order_gradients_include_momentum_and_weight_decay() -> None:
    weights = weights_of()
    buffers = buffers_of(weights)
    expected = exact(alphas(), weights, buffers)
    first, _ = first_order(tiny_network(), softmax, alphas(), VALID)
    direct_share = float((expected - first).norm() / expected.norm())
    assert direct_share > 0.05  # the second term is not negligible
    network = tiny_network()
    # In so small a network, the published r = 0.01 steps over kinks of ReLUs.
    found, _ = second_order(network, softmax, alphas(), TRAIN, VALID, buffers=buffers, r=1e-5, **STEP)
    assert float((found - expected).norm() / expected.norm()) < 1e-7
    assert all(torch.equal(p, weights[name]) for name, p in network.named_parameters())


def test_the_reference_derivative_matches_finite_differences() -> None:
    weights = weights_of()
    buffers = buffers_of(weights)

    def unrolled(a: Tensor) -> Tensor:
        leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
        gradient = torch.autograd.grad(loss(leaves, TRAIN, torch.softmax(a, 1)), list(leaves.values()))
        moved = {
            name: w.detach() - STEP["lr"] * (STEP["momentum"] * buffers.get(name, 0) + g + STEP["weight_decay"] * w)
            for (name, w), g in zip(leaves.items(), gradient, strict=True)
        }
        with torch.no_grad():
            return loss(moved, VALID, torch.softmax(a, 1))

    expected = differences(unrolled, alphas())
    torch.testing.assert_close(exact(alphas(), weights, buffers), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("temperature", [10.0, 0.5])
def test_gumbel_computes_one_operation_per_edge_with_the_soft_gradient(temperature: float) -> None:
    at, noise = alphas().requires_grad_(), gumbel_noise(alphas(), torch.Generator().manual_seed(3))
    mixture = gumbel(at, noise, temperature)
    assert mixture.weights is not None
    drawn = [edge[0] for edge in mixture.operations]
    assert drawn == (at + noise).argmax(1).tolist()  # log softmax differs from α by a constant per edge
    assert torch.equal(mixture.weights.detach(), torch.eye(5, dtype=torch.float64)[drawn])

    value = torch.nn.functional.cross_entropy(tiny_network()(VALID[0], mixture), VALID[1])
    (found,) = torch.autograd.grad(value, [at])
    hard = torch.eye(5, dtype=torch.float64)[drawn].requires_grad_()
    (by_weight,) = torch.autograd.grad(loss(weights_of(), VALID, hard, drawn), [hard])

    def soft(a: Tensor) -> Tensor:
        return torch.softmax((torch.log_softmax(a, 1) + noise) / temperature, 1)

    expected = differences(lambda a: (by_weight * soft(a)).sum(), alphas(), h=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert (found.abs() > 1e-12).any()


def test_gumbel_samples_operations_with_their_probabilities() -> None:
    at, generator = alphas(), torch.Generator().manual_seed(0)
    n = 4000
    counts = torch.zeros(6, 5)
    for _ in range(n):
        mixture = gumbel(at, gumbel_noise(at, generator), 1.0)
        assert mixture.weights is not None
        counts += mixture.weights.float()
    p = torch.softmax(at, 1)
    assert ((counts / n - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


def test_dirichlet_samples_have_an_unbiased_gradient() -> None:
    """E[w₀²] = c₀ (c₀ + 1) / (S (S + 1)) with c = elu(α) + 1, S = Σ c."""
    n = 20_000
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = alphas(4)[:1].clone().requires_grad_()
        mixture = dirichlet(rows.expand(n, 5))
        assert mixture.weights is not None
        (found,) = torch.autograd.grad((mixture.weights[:, 0] ** 2).mean(), [rows])
    torch.testing.assert_close(mixture.weights.sum(1), torch.ones(n, dtype=torch.float64))
    exact_rows = alphas(4)[:1].clone().requires_grad_()
    c = torch.nn.functional.elu(exact_rows) + 1
    total = c.sum()
    (expected,) = torch.autograd.grad(c[0, 0] * (c[0, 0] + 1) / (total * (total + 1)), [exact_rows])
    torch.testing.assert_close(found, expected, rtol=0.05, atol=2e-3)


def test_only_kept_operations_have_weight_in_a_dirichlet_sample() -> None:
    kept = torch.zeros(6, 5, dtype=torch.bool)
    kept[:, 1:4] = True
    mixture: Mixture = dirichlet(alphas(), kept)
    assert mixture.weights is not None
    assert (mixture.weights[~kept] == 0).all()
    torch.testing.assert_close(mixture.weights.sum(1), torch.ones(6, dtype=torch.float64))
    assert mixture.operations == ((1, 2, 3),) * 6
