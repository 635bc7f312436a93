"""Figures of the paper's kind, drawn with matplotlib on any machine, without a screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hnas.errors import HnasError, UsageError
from hnas.pipeline.analysis.correlate import Correlations

_SUFFIXES = (".png", ".pdf", ".svg")


def check_figure(path: Path) -> None:
    """Raise `UsageError` unless a figure can be written to `path`: a known suffix, a folder that exists."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--plot {path} has no suffix that says how to draw; end it with {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path} lies in a folder that does not exist; create {path.parent} first")


def plot_correlations(correlations: Correlations, path: Path) -> None:
    """Figure 1: the rank correlation of every pair of columns as a coloured, numbered square.

    Raises `UsageError` for a path that cannot hold a figure, `HnasError` where writing fails.
    """
    check_figure(path)
    names, matrix = correlations.names, correlations.matrix
    side = 1.6 + 0.55 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    for i in range(len(names)):
        for j in range(len(names)):
            value = matrix[i, j]
            text = "n/a" if np.isnan(value) else f"{value:.2f}".replace("0.", ".", 1)
            colour = "white" if abs(value) > 0.6 else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    label = {"spearman": "Spearman's ρ", "kendall": "Kendall's τ"}[correlations.method]
    run = correlations.run.settings
    axes.set_title(f"{label}, {run.space} on {run.dataset}, {correlations.n:,} architectures", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise HnasError(f"{path} cannot be written: {error.strerror or error}") from error
