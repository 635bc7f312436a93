"""Theorem 1: its metrics against per-sample autograd, and cases in which its constants are attained."""

import pytest
import torch
from torch.autograd import grad

from hnas.theory.connections import LOSSES, connection, study
from hnas.theory.networks import Dense

LOGISTIC, HUBER = LOSSES


def sphere(m: int, n: int, seed: int) -> torch.Tensor:
    x = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_the_metrics_equal_a_double_backward_of_each_sample(activation, loss):
    network = Dense((3, 5, 4), activation)
    weights = tuple(w.requires_grad_() for w in network.draw(torch.Generator().manual_seed(0)))
    x, y = sphere(6, 3, 1), torch.tensor([1.0, -1, -1, 1, 1, -1], dtype=torch.float64)
    gradients, snip, grasp = [], 0.0, 0.0
    for i in range(6):
        value = loss.value(network.outputs(weights, x[i : i + 1]), y[i : i + 1]).sum()
        g = grad(value, weights, create_graph=True)
        product = grad(sum((a * a.detach()).sum() for a in g), weights)
        gradients.append(torch.cat([a.detach().flatten() for a in g]))
        snip += sum(float((w * a).sum().detach()) for w, a in zip(weights, g, strict=True)) / 6
        grasp += sum(float((w * a).sum().detach()) for w, a in zip(weights, product, strict=True)) / 6
    result = connection(network, tuple(w.detach() for w in weights), x, y, loss)
    expected = (float(torch.stack(gradients).mean(0).norm()), abs(snip), abs(grasp))
    assert result.metrics == pytest.approx(expected, rel=1e-10)


def test_grasp_of_eq_3_differs_from_the_batch_hessian_times_the_batch_gradient():
    network = Dense((3, 6), "tanh")
    weights = tuple(w.requires_grad_() for w in network.draw(torch.Generator().manual_seed(0)))
    x, y = sphere(8, 3, 1), torch.ones(8, dtype=torch.float64)
    y[::2] = -1
    g = grad(LOGISTIC.value(network.outputs(weights, x), y).mean(), weights, create_graph=True)
    product = grad(sum((a * a.detach()).sum() for a in g), weights)
    batch = abs(sum(float((w * a).sum().detach()) for w, a in zip(weights, product, strict=True)))
    printed = connection(network, tuple(w.detach() for w in weights), x, y, LOGISTIC).metrics[2]
    assert abs(printed / batch - 1) > 0.1


def test_no_smaller_constant_suffices():
    """Equality holds for one sample, f(x) = θᵀx, θ along x and a residual at the edge of Huber's quadratic."""
    network = Dense((4,), "linear")
    x = sphere(1, 4, 2)
    weights = ((1.0 - 0.5 * (1 - 1e-9)) * x.T,)
    result = connection(network, weights, x, torch.ones(1, dtype=torch.float64), HUBER)
    assert result.ratios == pytest.approx((1, 1, 1), abs=1e-8)


def test_the_inequalities_hold_over_widths_activations_losses_and_initialisations():
    networks = study(seed=3, widths=(2, 6), initialisations=5)
    assert len(networks) == 2 * 2 * 2 * 5
    ratios = torch.tensor([network.connection.ratios for network in networks])
    assert ratios.max() <= 1
    assert (ratios.amax(0) > 0.05).all()
