"""Figures of the paper's kind, drawn with matplotlib on any machine, without a screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hnas.errors import HnasError
from hnas.pipeline.analysis.correlate import Correlations
from hnas.pipeline.io.figure_files import check_figure


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
