"""Figure 2 of the paper: test error of the incumbent against the budget, with one panel per data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from hnas.pipeline.comparison.curves import Curve
from hnas.pipeline.comparison.statistics import Array
from hnas.pipeline.io.figure_files import lighten, save_figure

# Okabe and Ito's colours, distinguishable with colour blindness; further lines differ in their dashes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
# Text stays text in PDF and SVG, at a size that is readable in a two-column page.
_STYLE: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 9, "pdf.fonttype": 42, "svg.fonttype": "none"}
# Each panel's y-range covers errors from this share of the longest budget on; the first queries would dwarf the rest.
_SHOWN_FROM = 0.08


def plot_curves(
    curves: Sequence[Curve], datasets: Sequence[str], optimum: Array, path: Path, *, by_queries: bool
) -> None:
    """Draw `curves` to `path`: means as lines, standard errors as bands, the `optimum` (data sets,) error dashed.

    Raises `HnasError` if `path` cannot be written.
    """
    legend_rows = (len(curves) + 4) // 4
    with rc_context(_STYLE):
        figure = Figure(figsize=(0.4 + 3.1 * len(datasets), 3.1 + 0.17 * legend_rows), layout="constrained")
        panels = figure.subplots(1, len(datasets), squeeze=False)[0]
        for k, (name, panel) in enumerate(zip(datasets, panels, strict=True)):
            for index, curve in enumerate(curves):
                _draw(panel, curve, k, index, by_queries=by_queries)
            if not np.isnan(optimum[k]):
                panel.axhline(optimum[k], color="0.35", linestyle="--", linewidth=0.9, label="optimum")
            panel.set_title(name)
            panel.set_xlabel("queries" if by_queries else "budget (s)")
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            lighten(panel)
            panel.set_ylim(*_limits(curves, k, optimum[k]))
        panels[0].set_ylabel("test error of the incumbent (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
        save_figure(figure, path)


def _draw(panel: Axes, curve: Curve, k: int, index: int, *, by_queries: bool) -> None:
    colour, dashes = _COLOURS[index % len(_COLOURS)], _DASHES[index // len(_COLOURS) % len(_DASHES)]
    mean, error = curve.mean[:, k], curve.error[:, k]
    if len(curve.budget) == 1:
        panel.errorbar(curve.budget, mean, error, color=colour, marker="o", markersize=3, label=curve.method)
        return
    style = "steps-post" if by_queries else "default"
    panel.plot(curve.budget, mean, color=colour, linestyle=dashes, linewidth=1.2, drawstyle=style, label=curve.method)
    step: Any = "post" if by_queries else None
    panel.fill_between(curve.budget, mean - error, mean + error, step=step, color=colour, alpha=0.15, linewidth=0)


def _limits(curves: Sequence[Curve], k: int, optimum: float) -> tuple[float | None, float | None]:
    """Return the lowest and highest error shown for data set k, with a margin; None if all are unknown."""
    begin = _SHOWN_FROM * max(curve.budget[-1] for curve in curves)
    seen = [curve.mean[(curve.budget >= begin) | (curve.budget == curve.budget[-1]), k] for curve in curves]
    errors = np.concatenate([*seen, [optimum]])
    if np.isnan(errors).all():
        return None, None
    low, high = float(np.nanmin(errors)), float(np.nanmax(errors))
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + 2 * margin
