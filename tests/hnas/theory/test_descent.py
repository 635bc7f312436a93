"""Gradient descent against autograd, and the training errors predicted by the kernel."""

import pytest
import torch

from hnas.theory.descent import Descent, Task, descend, linear_training_error, printed_bound, rate_bound
from hnas.theory.generalisation import sphere_task, width_deviation
from hnas.theory.networks import Dense, tangent_kernel

TIMES = (0, 1, 2, 5, 20)


def linear_descent(step: float = 0.5, labels: torch.Tensor | None = None) -> Descent:
    """Descent of f(x) = θᵀx, whose kernel is constant, on eight inputs in general position in R¹⁰."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 10, generator=generator, dtype=torch.float64) / 10
    y = torch.rand(8, generator=generator, dtype=torch.float64) if labels is None else labels
    network = Dense((10,), "linear")
    return descend(network, network.draw(generator, 3), Task(x, y, x, y), TIMES, step=step)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_steps_equal_those_of_autograd(activation):
    network, task = Dense((6, 5, 4), activation, 0.7), sphere_task(1, noise=0.25, samples=7, tests=11)
    weights = network.draw(torch.Generator().manual_seed(2), 2)
    run = descend(network, weights, task, (0, 3))
    for i in range(2):
        own = tuple(w[i].clone().requires_grad_() for w in weights)
        eta = 0.5 * 7 / torch.linalg.eigvalsh(tangent_kernel(network, tuple(w.detach() for w in own), task.x))[-1]
        assert float(run.eta[i]) == pytest.approx(float(eta))
        for _ in range(3):
            loss = (network.outputs(own, task.x) - task.y).square().mean() / 2
            gradients = torch.autograd.grad(loss, own)
            own = tuple((w - eta * g).detach().requires_grad_() for w, g in zip(own, gradients, strict=True))
        test = (network.outputs(own, task.test_x) - task.test_y).square().mean() / 2
        training = (network.outputs(own, task.x) - task.y).square().mean() / 2
        assert float(run.training[i, 1]) == pytest.approx(float(training.detach()), rel=1e-10)
        assert float(run.generalisation[i, 1]) == pytest.approx(float(test.detach()), rel=1e-10)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_the_kernel_predicts_the_training_error_of_a_linear_function(step):
    run = linear_descent(step)
    torch.testing.assert_close(run.training, linear_training_error(run), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_both_bounds_hold_for_a_linear_function_and_the_rate_never_exceeds_one_half(step):
    run = linear_descent(step)
    assert (run.residual.square().sum(-1) <= 8).all()
    assert (run.training <= printed_bound(run) + 1e-15).all()
    assert (run.training <= rate_bound(run) + 1e-15).all()
    assert (rate_bound(run) <= 0.5).all()


def test_the_rate_of_the_bound_is_within_a_factor_m_of_the_slowest_direction():
    """m = 2, eigenvalues 1 and 0.01, residual along the second: L_S falls at rate λ_min/m, the bound at M²/(m κ)."""
    x = torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64))
    y = torch.tensor([0.0, 1.0], dtype=torch.float64)
    run = descend(Dense((2,), "linear"), (torch.zeros(1, 2, 1, dtype=torch.float64),), Task(x, y, x, y), TIMES)
    eta, least, m = float(run.eta), 0.01, 2
    exact = torch.tensor([[(1 - eta * least / m) ** (2 * t) / (2 * m) for t in TIMES]], dtype=torch.float64)
    torch.testing.assert_close(run.training, exact)
    assert least / m < float(run.trace**2 / run.kappa) < least


def test_the_first_term_of_corollary_2_vanishes_only_where_the_eigenvalues_are_equal():
    x = torch.linalg.qr(torch.randn(9, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0].T
    y = torch.rand(5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    network = Dense((9,), "linear")
    weights = network.draw(torch.Generator().manual_seed(6), 1)
    equal = descend(network, weights, Task(x, y, x, y), (0, 1), step=1.0)
    assert float(printed_bound(equal)[0, 1]) < 1e-20
    assert float(equal.training[0, 1]) < 1e-20
    unequal = linear_descent(step=1.0)
    assert (printed_bound(unequal)[:, 1] > 0.5).all()


def test_training_approaches_the_kernels_prediction_as_networks_get_wider():
    deviations = [width_deviation(width, seed=0) for width in (8, 32, 128)]
    assert deviations[0] > 3 * deviations[1] > 9 * deviations[2]
