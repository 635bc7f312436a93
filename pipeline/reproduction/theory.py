"""The paper's theorems and Figure 3, as `hnas.theory` checks and describes them. They need no store."""

from __future__ import annotations

import duckdb

from hnas.pipeline.reproduction.results import Reproduction, Row, Section, Value, Verdict
from hnas.theory import checks, figure3

# Formulas are LaTeX, for drawings; this table turns their parts into plain text.
_SIGNS = {
    r"^\top": "ᵀ", r"\sum_i": "Σᵢ", r"\prod_i": "Πᵢ", "^{(i)}": "⁽ⁱ⁾", r"\Theta'_0": "Θ'₀", r"\Theta_0": "Θ₀",
    "n^L": "nᴸ", r"\mathrm{E}": "E", r"\,": " ", "$": "",
}  # fmt: skip


def theorems(_: duckdb.DuckDBPyConnection) -> Reproduction:
    """Each statement with its measured number, on small networks in float64, and the bound on that number."""
    rows = []
    for check in checks():
        verdict: Verdict = "reached" if check.holds else "not reached"
        reason = "" if check.holds else f"it does not hold: {check.statement}"
        measured = Value(check.measured, published=check.bound, verdict=verdict, reason=reason, form=".3g")
        rows.append(Row(f"{check.source}: {check.name}", (measured,), f"{check.statement}; {check.quantity}"))
    notes = ("Derived: not printed in the paper, derived here.",)
    legend = "in brackets: the most that the measured number may be if the statement holds; ✓ it holds, ✗ it does not"
    section = Section("measured now, in float64", "theorems", "statement", ("measured",), tuple(rows))
    return Reproduction("theorems", "The theorems, numerically", (section,), notes=notes, legend=legend)


def architectures(_: duckdb.DuckDBPyConnection) -> Reproduction:
    """Figure 3: the wide and the deep architecture with their formulas and kernels."""
    drawn = figure3()
    rows = tuple(Row(one.name, (), f"{_plain(one.formula)}, {_plain(one.kernel)}") for one in drawn)
    section = Section("with the same parameters", "figure 3", "architecture", (), rows)
    notes = ("--figure FILE draws them; `hnas reproduce theorems` measures both kernels.",)
    title = "Figure 3: a wide and a deep architecture"
    return Reproduction("figure3", title, (section,), notes=notes, drawn={one.name: one for one in drawn})


def _plain(formula: str) -> str:
    for written, sign in _SIGNS.items():
        formula = formula.replace(written, sign)
    return formula
