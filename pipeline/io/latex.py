"""Cells of a LaTeX table."""

from __future__ import annotations

from collections.abc import Sequence

from hnas.pipeline.io.printable import printable

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {
    "±": r"$\pm$", "✓": r"$\surd$", "≈": r"$\approx$", "✗": r"$\times$", "−": "$-$", "≤": r"$\le$", "≥": r"$\ge$",
    "ρ": r"$\rho$", "τ": r"$\tau$", "κ": r"$\kappa$", "μ": r"$\mu$", "ν": r"$\nu$", "θ": r"$\theta$",
    "ᵀ": r"$^{\mathsf{T}}$", "Θ": r"$\Theta$", "₀": r"$_0$", "σ": r"$\sigma$", "η": r"$\eta$", "·": r"$\cdot$",
    "×": r"$\times$", "½": r"$\frac{1}{2}$", "∇": r"$\nabla$", "ℓ": r"$\ell$", "β": r"$\beta$", "‖": r"$\|$",
    "Σ": r"$\Sigma$", "Π": r"$\Pi$", "√": r"$\surd$", "⁽": "$^($", "ⁱ": "$^i$", "⁾": "$^)$", "ᴸ": "$^L$", "ᵢ": "$_i$",
    "λ": r"$\lambda$", "⟨": r"$\langle$", "⟩": r"$\rangle$",
    "…": r"\dots{}", "²": "$^2$", "<": "$<$", ">": "$>$", "|": r"$|$",
}  # fmt: skip


def latex_row(cells: Sequence[str]) -> str:
    """Return a row of a table, with all characters that LaTeX treats specially or its text fonts lack replaced."""
    return " & ".join("".join(_LATEX.get(c, c) for c in printable(cell)) for cell in cells) + r" \\"
