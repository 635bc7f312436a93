"""Theorem 3: the exact kernel of the wide architecture, the moments of the deep one's, and Figure 3."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import jacrev

from hnas.theory import figure3, topology
from hnas.theory.networks import condition_number


def draw(seed: int, n: int, m: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = topology.orthonormal(n, m, generator)
    return torch.randn(*shape, n, n, generator=generator, dtype=torch.float64), x


shapes = st.tuples(st.integers(0, 999), st.integers(2, 8), st.integers(1, 5))


@given(shapes)
def test_the_wide_kernel_is_l_n_times_the_identity_for_any_weights(shape):
    seed, n, depth = shape
    weights, x = draw(seed, n, n - 1, depth)
    jacobian = jacrev(topology.wide)(weights, x).flatten(1)
    expected = depth * n * torch.eye(n - 1, dtype=torch.float64)
    torch.testing.assert_close(jacobian @ jacobian.T, expected, rtol=0, atol=1e-12)


@given(shapes)
def test_the_deep_kernel_is_the_gram_matrix_of_autograds_gradients(shape):
    seed, n, depth = shape
    weights, x = draw(seed, n, n - 1, depth)
    jacobian = jacrev(topology.deep)(weights, x).flatten(1)
    kernel = topology.deep_kernel(weights, x)
    torch.testing.assert_close(kernel, jacobian @ jacobian.T, rtol=1e-10, atol=1e-9 * n**depth)


@pytest.mark.parametrize("depth", range(1, 7))
def test_the_spread_for_one_by_one_matrices_follows_from_normal_moments(depth):
    """For n = 1, Θ'₀ = Σ_i Π_{j≠i} w_j², whose second moment follows from E w² = 1 and E w⁴ = 3."""
    second = depth * 3 ** (depth - 1) + (depth * (depth - 1) * 3 ** (depth - 2) if depth > 1 else 0)
    assert topology.deep_spread(1, depth).diagonal ** 2 == pytest.approx(second / depth**2 - 1, rel=1e-12)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_two_matrices_have_the_spread_of_a_wishart_matrix(n):
    """For L = 2, Θ'₀ = ‖W⁽²⁾ᵀ1‖² I + n XᵀW⁽¹⁾ᵀW⁽¹⁾X: two independent terms, each n χ²_n on the diagonal."""
    spread = topology.deep_spread(n, 2)
    assert spread.diagonal == pytest.approx(math.sqrt(2 * n**2 * 2 * n) / (2 * n**2), rel=1e-12)
    assert spread.off_diagonal == pytest.approx(math.sqrt(n**2 * n) / (2 * n**2), rel=1e-12)
    assert topology.deep_spread(n, 1) == topology.Spread(0, 0)


def test_draws_of_four_matrices_have_the_stated_mean_and_spread():
    n, depth, draws = 6, 4, 20_000
    weights, x = draw(0, n, 2, draws, depth)
    kernels = topology.deep_kernel(weights, x) / topology.deep_mean(n, depth)
    spread = topology.deep_spread(n, depth)
    diagonal, off = kernels[:, 0, 0], kernels[:, 0, 1]
    for values, mean, deviation in ((diagonal, 1.0, spread.diagonal), (off, 0.0, spread.off_diagonal)):
        assert abs(float(values.mean()) - mean) < 4 * deviation / math.sqrt(draws)
        squares = (values - mean).square()
        assert abs(float(squares.mean()) - deviation**2) < 4 * float(squares.std()) / math.sqrt(draws)


@pytest.mark.parametrize("depth", [2, 3, 8])
def test_the_spread_of_wide_layers_approaches_its_first_order(depth):
    first = math.sqrt((depth - 1) * (2 * depth - 1) / (6 * depth * 1000))
    assert topology.deep_spread(1000, depth).off_diagonal == pytest.approx(first, rel=0.01)


def test_kappa_is_one_for_wide_and_grows_with_depth_for_deep():
    medians = []
    for depth in (1, 2, 4, 8):
        weights, x = draw(depth, 32, 4, 200, depth)
        medians.append(float(condition_number(topology.deep_kernel(weights, x)).median()))
    assert medians[0] == pytest.approx(1, abs=1e-12)
    assert medians == sorted(medians)
    assert medians[1] > 1.5


def test_orthonormal_inputs_are_not_centred():
    x = topology.orthonormal(9, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.T @ x, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-14)
    assert float(x.sum(1).norm()) == pytest.approx(math.sqrt(4))


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_figure_3_has_each_matrix_once_beside_or_behind_the_others(depth):
    wide, deep = figure3(depth)
    matrices = [f"W{i}" for i in range(1, depth + 1)]
    for drawing in (wide, deep):
        assert [node.name for node in drawing.nodes] == ["x", *matrices, "f"]
        assert len({(node.x, node.y) for node in drawing.nodes}) == depth + 2
    assert set(wide.edges) == {("x", w) for w in matrices} | {(w, "f") for w in matrices}
    assert deep.edges == tuple(zip(["x", *matrices], [*matrices, "f"], strict=True))
