"""Published scores that depend on Θ₀ alone: on its spectrum, or on its entries.

    nasi_trace        ‖Θ₀‖_tr / m                           NASI
    kappa_at          λ_m / λ_{1+k}                         TE-NAS at k = 0, where it is `kappa`
    kappa_percentile  λ at 100 − p % / λ at p %             TE-NAS at p = 0
    effective_rank    exp(−Σ p_i ln p_i), p_i = λ_i / Σ λ   Roy and Vetterli
    log_determinant   Σ ln λ_i
    gram_mean         (1/m²) Σ_st Θ₀[s, t]                  KNAS

`eigenvalues` (…, m) are λ_1 ≤ … ≤ λ_m in ascending order and `gram` (…, m, m) is Θ₀, both float64 as in a run's
`ntk.zarr`; a score has the remaining shape (…). For a spectrum that is not finite, trace, rank and determinant are NaN
and κ is infinite, as in the columns `trace` and `kappa`.

The macros of `hnas sql` have the same names and definitions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hnas.errors import UsageError

Array = NDArray[np.float64]

#: The precision of float32 gradients; for the dtype of a run it is `numpy.finfo(dtype).eps`.
FLOAT32 = float(np.finfo(np.float32).eps)


def nasi_trace(eigenvalues: Array) -> Array:
    """Return ‖Θ₀‖_tr / m, the mean eigenvalue: the square of the column `trace`, eq. (4).

    NASI ranks architectures by the trace norm ‖Θ₀‖_tr, which equals the trace because Θ₀ is positive semi-definite.
    Dividing by m makes it independent of the batch size, and keeps the order of the rows of one run.

    Source: Shu, Cai, Dai, Ooi, Low, "NASI: Label- and Data-agnostic Neural Architecture Search at Initialization",
    ICLR 2022.
    """
    values, finite = _finite(eigenvalues)
    return np.where(finite, values.mean(axis=-1), np.nan)


def kappa_at(eigenvalues: Array, k: int = 0, *, epsilon: float = FLOAT32) -> Array:
    """Return λ_m / λ_{1+k}, the condition number without the k smallest eigenvalues; κ at k = 0.

    `inf` where λ_{1+k} is zero to working precision; see `singular_below`. Raises `UsageError` unless 0 ≤ k < m.

    Source: Chen, Gong, Wang, "Neural Architecture Search on ImageNet in Four GPU Hours" (TE-NAS), ICLR 2021, for k = 0.
    """
    values, _ = _finite(eigenvalues)
    if not 0 <= k < values.shape[-1]:
        raise UsageError(f"k must be between 0 and {values.shape[-1] - 1}, the number of eigenvalues less 1, got {k}")
    return _ratio(values, values[..., -1], values[..., k], epsilon)


def kappa_percentile(eigenvalues: Array, p: float, *, epsilon: float = FLOAT32) -> Array:
    """Return the percentile 100 − p of the eigenvalues over the percentile p, both interpolated linearly.

    At p = 0 it is κ, which depends on only two of the m eigenvalues and is as noisy as they are. `inf` where the
    denominator is zero to working precision; see `singular_below`. Raises `UsageError` unless 0 ≤ p < 50.
    """
    if not 0 <= p < 50:
        raise UsageError(f"p must be a percentile in 0 <= p < 50, got {p:g}; 0 gives kappa")
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
    """Return exp(H), H = −Σ p_i ln p_i with p_i = λ_i / Σ λ: from 1 to m, which equal eigenvalues reach.

    Negative eigenvalues, which are rounding errors, count as zero. A spectrum of zeros has the effective rank 0.

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
    """Return ln det Θ₀ = Σ ln λ_i, −inf where Θ₀ is singular to working precision; see `singular_below`."""
    values, finite = _finite(eigenvalues)
    regular = values[..., 0] > singular_below(values, epsilon)
    logarithms = np.log(values, out=np.zeros_like(values), where=regular[..., None])
    return np.where(finite, np.where(regular, logarithms.sum(axis=-1), -np.inf), np.nan)


def gram_mean(gram: Array) -> Array:
    """Return (1/m²) Σ_st Θ₀[s, t] = ‖(1/m) Σ_s ∇_θ f_{y_s}(x_s)‖², the mean of the Gram matrix: KNAS's score.

    Source: Xu, Zhao, Lin, Gao, Sun, Yang, "KNAS: Green Neural Architecture Search", ICML 2021.
    """
    return np.asarray(np.mean(np.asarray(gram, dtype=float), axis=(-2, -1)))


def singular_below(eigenvalues: Array, epsilon: float = FLOAT32) -> Array:
    """Return max((m ε)², m ε₆₄) λ_m, at or below which an eigenvalue is zero to working precision.

    Θ₀ = J Jᵀ, so an eigenvalue is the square of a singular value of J, whose entries have the precision `epsilon`; the
    products were summed in float64. The column `kappa` is infinite by the same rule.
    """
    values = np.asarray(eigenvalues, dtype=float)
    m = values.shape[-1]
    return np.asarray(max((m * epsilon) ** 2, m * float(np.finfo(np.float64).eps)) * values[..., -1])


def _finite(eigenvalues: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return the spectra, with zeros for those that are not finite, and which ones are finite."""
    values = np.asarray(eigenvalues, dtype=float)
    finite = np.isfinite(values).all(axis=-1)
    return np.where(finite[..., None], values, 0.0), finite


def _ratio(values: Array, high: Array, low: Array, epsilon: float) -> Array:
    regular = low > singular_below(values, epsilon)
    return np.divide(high, low, out=np.full_like(high, np.inf), where=regular)
