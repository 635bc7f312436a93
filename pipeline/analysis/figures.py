"""Figures of the paper's kind, drawn with matplotlib on any machine, without a screen."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hnas.pipeline.analysis.correlate import Correlations
from hnas.pipeline.analysis.pareto import Front
from hnas.pipeline.io.figure_files import check_figure, save_figure


def plot_front(found: Front, path: Path) -> None:
    """Each pair of objectives: all architectures grey, the front as a line; with more than two its points alone.

    Raises `UsageError` for a path that cannot hold a figure, `HnasError` where writing fails.
    """
    check_figure(path)
    pairs = list(combinations(range(len(found.names)), 2))
    figure = Figure(figsize=(4.2 * len(pairs), 3.6), layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        axes.plot(found.everything[:, x], found.everything[:, y], ".", color="0.75", markersize=2, rasterized=True)
        order = np.argsort(found.values[:, x], kind="stable")
        line = "steps-post" if found.maximised[y] != found.maximised[x] else "steps-pre"
        style = {"drawstyle": line, "linestyle": "-"} if len(pairs) == 1 else {"linestyle": "none"}
        front = found.values[order]
        axes.plot(front[:, x], front[:, y], marker="o", color="#D55E00", markersize=3, linewidth=1, **style)
        axes.set_xlabel(_objective(found, x))
        axes.set_ylabel(_objective(found, y))
        axes.grid(color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    run = found.run.settings
    title = (
        f"{run.space} on {run.dataset}, {len(found.everything):,} architectures\nhypervolume {found.hypervolume:.3f}"
    )
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _objective(found: Front, i: int) -> str:
    return f"{found.names[i]} ({'higher' if found.maximised[i] else 'lower'} is better)"


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
    save_figure(figure, path)
