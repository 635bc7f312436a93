"""Theorem 3 and Figure 3: a wide and a deep architecture with the same parameters, and their tangent kernels.

    wide   f(x)  = 1ᵀ Σ_i W⁽ⁱ⁾ x            Θ₀ = L n I           exactly, whatever the weights
    deep   f'(x) = 1ᵀ W⁽ᴸ⁾ … W⁽¹⁾ x         E[Θ'₀] = L nᴸ I      over the weights

W⁽ⁱ⁾ is n × n with independent standard-normal entries. The m ≤ n inputs are the columns of X, with XᵀX = I. (They are
not also centred: Σ x_i = 0 would give 0 = ‖Σ x_i‖² = m.) So wide has κ = 1 and M_Trace = √(L n). Deep has a larger
M_Trace, but also κ > 1, since Θ'₀ deviates from its expectation. The exact size of this deviation is derived here. With

    a_i = (W⁽ᴸ⁾ … W⁽ⁱ⁺¹⁾)ᵀ 1,   b_i(x) = W⁽ⁱ⁻¹⁾ … W⁽¹⁾ x,   Θ'₀(x, x') = Σ_i ‖a_i‖² ⟨b_i(x), b_i(x')⟩

the entries of Θ'₀ have second moments

    E[Θ'₀(x, x')²] = Σ_i n² q^{L−i} c_{i−1} + 2 Σ_{i<k} n² q^{L−k} c_{i−1} s_{k−i−1},   q = n (n + 2)

q stands for one backward step, E‖Wᵀa‖⁴ = q ‖a‖⁴. For a product P of j such matrices, c_j = E⟨Px, Px'⟩² and
d_j = E[‖Px‖² ‖Px'‖²] obey c_{j+1} = (n² + n) c_j + n d_j and d_{j+1} = n² d_j + 2n c_j, from c₀ = ⟨x, x'⟩², d₀ = 1. The
layers between i and k contribute s_p = E‖P‖_F⁴ = E(tr PPᵀ)², which with r_p = E tr (PPᵀ)² obeys
s_{p+1} = n² s_p + 2n r_p and r_{p+1} = n s_p + (n² + n) r_p, from s₀ = n², r₀ = n. To first order in 1/n, off-diagonal
entries have standard deviation √((L−1)(2L−1) / (6 L n)) times L nᴸ: the deeper the network, the further it is from
κ = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


def orthonormal(n: int, m: int, generator: torch.Generator) -> Tensor:
    """A uniformly distributed X (n, m) with XᵀX = I; m ≤ n."""
    q, r = torch.linalg.qr(torch.randn(n, m, generator=generator, dtype=torch.float64))
    columns: Tensor = q * r.diagonal().sign()
    return columns


def wide(weights: Tensor, x: Tensor) -> Tensor:
    """f(x) = 1ᵀ Σ_i W⁽ⁱ⁾ x, shape (m,), for weights (L, n, n) and inputs x (n, m)."""
    return (weights.sum(0) @ x).sum(0)


def deep(weights: Tensor, x: Tensor) -> Tensor:
    """f'(x) = 1ᵀ W⁽ᴸ⁾ … W⁽¹⁾ x, shape (m,), for weights (L, n, n) and inputs x (n, m)."""
    for weight in weights:
        x = weight @ x
    return x.sum(0)


def deep_kernel(weights: Tensor, x: Tensor) -> Tensor:
    """Θ'₀ (…, m, m) of `deep` for weights (…, L, n, n) and inputs x (n, m), by the module docstring's formula."""
    layers = weights.unbind(-3)
    norms = [torch.tensor(float(x.shape[0]), dtype=x.dtype)]  # ‖a_L‖² = ‖1‖² = n
    backward = torch.ones(x.shape[0], 1, dtype=x.dtype)
    for weight in layers[:0:-1]:
        backward = weight.mT @ backward
        norms.append(backward.square().sum((-2, -1)))
    forward, kernel = x, norms[-1][..., None, None] * (x.mT @ x)
    for weight, norm in zip(layers, norms[-2::-1], strict=False):
        forward = weight @ forward
        kernel = kernel + norm[..., None, None] * (forward.mT @ forward)
    return kernel


def deep_mean(n: int, depth: int) -> float:
    """L nᴸ: the diagonal of E[Θ'₀], and its trace norm divided by m. For `wide`, it is L n."""
    return float(depth) * float(n) ** depth


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the entries of Θ'₀ over the weights, in units of the diagonal's mean L nᴸ."""

    diagonal: float
    off_diagonal: float


def deep_spread(n: int, depth: int) -> Spread:
    """The exact spread of Θ'₀ for orthonormal inputs."""
    mean = deep_mean(n, depth)
    second = [_second_moment(n, depth, inner) for inner in (1.0, 0.0)]
    return Spread(math.sqrt(second[0] / mean**2 - 1), math.sqrt(second[1]) / mean)


def deep_median_kappa(n: int, depth: int) -> float:
    """The median of κ(Θ'₀) for two orthonormal inputs, to first order: (1 + ρ) / (1 − ρ), ρ = √(2 ln 2) σ.

    σ is the standard deviation of Θ'₀(x, x') / (L nᴸ). As all rotations of X are equally likely, half the difference of
    the diagonal entries has the same σ and is uncorrelated with this entry. Both are nearly normal, so the eigenvalues
    are 1 ± r, where r has a Rayleigh distribution with median √(2 ln 2) σ.
    """
    rho = math.sqrt(2 * math.log(2)) * deep_spread(n, depth).off_diagonal
    return (1 + rho) / (1 - rho)


def _second_moment(n: int, depth: int, inner: float) -> float:
    """E[Θ'₀(x, x')²] for unit x, x' with ⟨x, x'⟩² = `inner`."""
    q = n * (n + 2.0)
    c, d = [inner], [1.0]
    s, r = [float(n) ** 2], [float(n)]
    for _ in range(depth - 1):
        c, d = [*c, (n * n + n) * c[-1] + n * d[-1]], [*d, n * n * d[-1] + 2 * n * c[-1]]
        s, r = [*s, n * n * s[-1] + 2 * n * r[-1]], [*r, n * s[-1] + (n * n + n) * r[-1]]
    layers = range(1, depth + 1)
    single = sum(n**2 * q ** (depth - i) * c[i - 1] for i in layers)
    pairs = sum(n**2 * q ** (depth - k) * c[i - 1] * s[k - i - 1] for i in layers for k in layers if i < k)
    return single + 2 * pairs


@dataclass(frozen=True)
class Node:
    """A node in a drawing of an architecture, with its `label`; x points to the right and y upwards."""

    name: str
    label: str
    x: float
    y: float


@dataclass(frozen=True)
class Topology:
    """An architecture of Figure 3: its formula, nodes, edges (pairs of node names), and its kernel by Theorem 3."""

    name: str
    formula: str
    kernel: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]


def figure3(depth: int = 3) -> tuple[Topology, Topology]:
    """The wide and the deep architecture of Figure 3 with L = `depth` matrices each."""
    names = tuple(f"W{i}" for i in range(1, depth + 1))
    labels = tuple(f"$W^{{({i})}}$" for i in range(1, depth + 1))
    middle = (depth - 1) / 2
    beside = tuple(Node(names[i], labels[i], 1.0, middle - i) for i in range(depth))
    behind = tuple(Node(names[i], labels[i], i + 1.0, 0.0) for i in range(depth))
    chain = ("x", *names, "f")
    return (
        Topology(
            name="wide",
            formula=r"$f(x) = 1^\top \sum_i W^{(i)} x$",
            kernel=r"$\Theta_0 = L\,n\,I$",
            nodes=(Node("x", "$x$", 0.0, 0.0), *beside, Node("f", r"$1^\top\Sigma$", 2.0, 0.0)),
            edges=(*(("x", name) for name in names), *((name, "f") for name in names)),
        ),
        Topology(
            name="deep",
            formula=r"$f'(x) = 1^\top \prod_i W^{(i)} x$",
            kernel=r"$\mathrm{E}[\Theta'_0] = L\,n^L I$",
            nodes=(Node("x", "$x$", 0.0, 0.0), *behind, Node("f", r"$1^\top$", depth + 1.0, 0.0)),
            edges=tuple(pairwise(chain)),
        ),
    )
