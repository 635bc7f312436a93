"""The tangent kernel of small networks, against autograd's gradients and the metric engine."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import jacrev

from hnas import compute_metrics
from hnas.theory.networks import ACTIVATIONS, Dense, condition_number, tangent_kernel, trace_metric


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.floats(0.1, 3),
    st.integers(0, 99),
)
def test_the_kernel_is_the_gram_matrix_of_autograds_gradients(widths, activation, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    network = Dense(tuple(widths), activation, scale)
    weights = network.draw(generator)
    x = torch.randn(5, widths[0], generator=generator, dtype=torch.float64)
    jacobians = jacrev(lambda weights: network.outputs(weights, x))(weights)
    flat = torch.cat([jacobian.flatten(1) for jacobian in jacobians], 1)
    torch.testing.assert_close(tangent_kernel(network, weights, x), flat @ flat.T, rtol=1e-10, atol=1e-12)


def test_a_batch_of_networks_gives_the_kernels_of_each_alone():
    network = Dense((4, 6, 5), "tanh")
    weights = network.draw(torch.Generator().manual_seed(1), 3)
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    together = tangent_kernel(network, weights, x)
    for i in range(3):
        torch.testing.assert_close(together[i], tangent_kernel(network, tuple(w[i] for w in weights), x))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_trace_and_kappa_equal_those_of_the_metric_engine(activation):
    network = Dense((5, 8, 6), activation)
    weights = network.draw(torch.Generator().manual_seed(3))
    layers: list[nn.Module] = []
    for weight in weights:
        layer = nn.Linear(*weight.shape, bias=False, dtype=torch.float64)
        layer.weight.data = weight.T.contiguous()
        layers += [layer, {"tanh": nn.Tanh, "relu": nn.ReLU}[activation]()]
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    measured = compute_metrics(nn.Sequential(*layers[:-1]), x, torch.zeros(6, dtype=torch.long), ntk="exact")
    theta = tangent_kernel(network, weights, x)
    assert float(trace_metric(theta)) == pytest.approx(measured.trace, rel=1e-10)
    assert float(condition_number(theta)) == pytest.approx(measured.kappa, rel=1e-6)


def test_a_singular_kernel_has_an_infinite_condition_number():
    gradients = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert condition_number(gradients @ gradients.T) == torch.inf
    assert condition_number(torch.zeros(2, 2, dtype=torch.float64)) == torch.inf
    assert condition_number(torch.diag(torch.tensor([2.0, 8.0], dtype=torch.float64))) == 4
