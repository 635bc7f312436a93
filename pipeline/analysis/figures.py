"""Figures as in the paper, drawn with matplotlib without a display."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hnas.pipeline.analysis.correlate import Correlations
from hnas.pipeline.analysis.pareto import Front
from hnas.pipeline.io.figure_files import check_figure, lighten, save_figure


def plot_front(front: Front, path: Path) -> None:
    """Plot each pair of objectives: all architectures in grey, and the front, joined by a line if there is one pair.

    Raises `UsageError` for a path that cannot hold a figure, and `HnasError` if writing fails.
    """
    check_figure(path)
    pairs = list(combinations(range(len(front.names)), 2))
    figure = Figure(figsize=(4.2 * len(pairs), 3.6), layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        axes.plot(front.everything[:, x], front.everything[:, y], ".", color="0.75", markersize=2, rasterized=True)
        order = np.argsort(front.values[:, x], kind="stable")
        line = "steps-post" if front.maximised[y] != front.maximised[x] else "steps-pre"
        style = {"drawstyle": line, "linestyle": "-"} if len(pairs) == 1 else {"linestyle": "none"}
        points = front.values[order]
        axes.plot(points[:, x], points[:, y], marker="o", color="#D55E00", markersize=3, linewidth=1, **style)
        axes.set_xlabel(_objective(front, x))
        axes.set_ylabel(_objective(front, y))
        lighten(axes)
    run = front.run.settings
    title = (
        f"{run.space} on {run.dataset}, {len(front.everything):,} architectures\nhypervolume {front.hypervolume:.3f}"
    )
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _objective(front: Front, i: int) -> str:
    return f"{front.names[i]} ({'higher' if front.maximised[i] else 'lower'} is better)"


def plot_correlations(correlations: Correlations, path: Path) -> None:
    """Draw Figure 1: the rank correlation of every pair of columns as a coloured square with its number.

    Raises `UsageError` for a path that cannot hold a figure, and `HnasError` if writing fails.
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
    save_figure(figure, path)
