"""Published scores that are functions of Θ₀ alone: of its spectrum, or of its entries. No network is touched.

    nasi_trace        ‖Θ₀‖_tr / m                           NASI
    kappa_at          λ_m / λ_{1+k}                         TE-NAS at k = 0, where it is `kappa`
    kappa_percentile  λ at 100 − p % / λ at p %             TE-NAS at p = 0
    effective_rank    exp(−Σ p_i ln p_i), p_i = λ_i / Σ λ   Roy and Vetterli
    log_determinant   Σ ln λ_i
    gram_mean         (1/m²) Σ_st Θ₀[s, t]                  KNAS

`eigenvalues` (…, m) are λ_1 ≤ … ≤ λ_m in ascending order, `gram` (…, m, m) is Θ₀ itself, both float64, as `ntk.zarr` of
a run has them; a score has the shape that is left, (…). A spectrum that is not finite has no trace, rank and
determinant (NaN) and an infinite κ, which is what the columns `trace` and `kappa` say of it.

The macros of `hnas sql` have the same names and definitions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hnas.errors import UsageError

Array = NDArray[np.float64]

#: The precision of the gradients that Θ₀ was summed from; that of a run is `numpy.finfo(dtype).eps`.
FLOAT32 = float(np.finfo(np.float32).eps)


def nasi_trace(eigenvalues: Array) -> Array:
    """‖Θ₀‖_tr / m, the mean eigenvalue: the square of the column `trace`, which is eq. (4).

    NASI ranks architectures by the trace norm ‖Θ₀‖_tr, which is the trace since Θ₀ is positive semi-definite. Divided
    by m it does not grow with the batch; among rows of one run the order is the same.

    Source: Shu, Cai, Dai, Ooi, Low, "NASI: Label- and Data-agnostic Neural Architecture Search at Initialization",
    ICLR 2022.
    """
    values, finite = _finite(eigenvalues)
    return np.where(finite, values.mean(axis=-1), np.nan)


def kappa_at(eigenvalues: Array, k: int = 0, *, epsilon: float = FLOAT32) -> Array:
    """λ_m / λ_{1+k}: the condition number without the k smallest eigenvalues. At k = 0 it is κ.

    `inf` where λ_{1+k} is zero to working precision; see `singular_below`. Raises `UsageError` unless 0 ≤ k < m.

    Source: Chen, Gong, Wang, "Neural Architecture Search on ImageNet in Four GPU Hours" (TE-NAS), ICLR 2021, for k = 0.
    """
    values, _ = _finite(eigenvalues)
    if not 0 <= k < values.shape[-1]:
        raise UsageError(f"k = {k} is no place in a spectrum of {values.shape[-1]} eigenvalues; 0 is the smallest")
    return _ratio(values, values[..., -1], values[..., k], epsilon)


def kappa_percentile(eigenvalues: Array, p: float, *, epsilon: float = FLOAT32) -> Array:
    """λ at the percentile 100 − p over λ at the percentile p, interpolated linearly between eigenvalues.

    At p = 0 it is κ, which rests on two of m eigenvalues and scatters as they do. `inf` where the lower one is zero to
    working precision; see `singular_below`. Raises `UsageError` unless 0 ≤ p < 50.
    """
    if not 0 <= p < 50:
        raise UsageError(f"p = {p:g} is no percentile below the median; 0 <= p < 50, and 0 gives kappa")
    values, _ = _finite(eigenvalues)
    m = values.shape[-1]
    place = (m - 1) * p / 100
    below = int(place)
    above = min(below + 1, m - 1)
    share = place - below
    low = values[..., below] * (1 - share) + values[..., above] * share
    high = values[..., m - 1 - below] * (1 - share) + values[..., m - 1 - above] * share
    return _ratio(values, high, low, epsilon)


def effective_rank(eigenvalues: Array) -> Array:
    """exp(H), H = −Σ p_i ln p_i with p_i = λ_i / Σ λ: between 1 and m, and m where all eigenvalues are equal.

    Eigenvalues below zero, which are rounding, count zero. A spectrum of zeros has the effective rank 0.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
    """
    values, finite = _finite(eigenvalues)
    weights = np.maximum(values, 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    rank = np.where(total[..., 0] > 0, np.exp(-(shares * logarithms).sum(axis=-1)), 0.0)
    return np.where(finite, rank, np.nan)


def log_determinant(eigenvalues: Array, *, epsilon: float = FLOAT32) -> Array:
    """ln det Θ₀ = Σ ln λ_i, −inf where Θ₀ is singular to working precision; see `singular_below`."""
    values, finite = _finite(eigenvalues)
    regular = values[..., 0] > singular_below(values, epsilon)
    logarithms = np.log(values, out=np.zeros_like(values), where=regular[..., None])
    return np.where(finite, np.where(regular, logarithms.sum(axis=-1), -np.inf), np.nan)


def gram_mean(gram: Array) -> Array:
    """(1/m²) Σ_st Θ₀[s, t] = ‖(1/m) Σ_s ∇_θ f_{y_s}(x_s)‖²: the mean of the Gram matrix, KNAS's score.

    Source: Xu, Zhao, Lin, Gao, Sun, Yang, "KNAS: Green Neural Architecture Search", ICML 2021.
    """
    return np.asarray(np.mean(np.asarray(gram, dtype=float), axis=(-2, -1)))


def singular_below(eigenvalues: Array, epsilon: float = FLOAT32) -> Array:
    """The eigenvalue at and below which one is zero to working precision: max((m ε)², m ε₆₄) λ_m.

    Θ₀ = J Jᵀ, so an eigenvalue is the square of a singular value of J, whose entries have the precision `epsilon`; the
    products were summed in float64. It is the rule by which the column `kappa` is infinite.
    """
    values = np.asarray(eigenvalues, dtype=float)
    m = values.shape[-1]
    return np.asarray(max((m * epsilon) ** 2, m * float(np.finfo(np.float64).eps)) * values[..., -1])


def _finite(eigenvalues: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The spectra, zero where they are not finite, and which are."""
    values = np.asarray(eigenvalues, dtype=float)
    finite = np.isfinite(values).all(axis=-1)
    return np.where(finite[..., None], values, 0.0), finite


def _ratio(values: Array, high: Array, low: Array, epsilon: float) -> Array:
    regular = low > singular_below(values, epsilon)
    return np.divide(high, low, out=np.full_like(high, np.inf), where=regular)
