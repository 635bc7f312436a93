"""Figures of reproductions, sized for a two-column page.

Tables become points with intervals beside the published numbers, and Figure 1 becomes clouds of points. Figure 2 looks
as `hnas compare` draws it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hnas.pipeline.comparison.figures import plot_curves
from hnas.pipeline.io.figure_files import lighten, save_figure
from hnas.pipeline.reproduction.results import Reproduction, Row, Section

_OURS, _PUBLISHED = "#0072B2", "#D55E00"
_STYLE: dict[Any, Any] = {"font.size": 8, "axes.titlesize": 8, "pdf.fonttype": 42, "svg.fonttype": "none"}


def plot(reproduction: Reproduction, path: Path) -> bool:
    """Draw `reproduction` to `path`; False if there is nothing to draw. Raises `HnasError` where writing fails."""
    if not reproduction.sections:
        return False
    if reproduction.what == "figure2":
        drawn = reproduction.drawn
        plot_curves(drawn["curves"], drawn["datasets"], drawn["optimum"], path, by_queries=drawn["by_queries"])
        return True
    with rc_context(_STYLE):
        kinds: dict[str, Callable[[Reproduction], Figure | None]]
        kinds = {"figure1": _clouds, "figure3": _topologies, "theorems": _ratios}
        figure = kinds.get(reproduction.what, _beside)(reproduction)
        if figure is not None:
            save_figure(figure, path)
    return figure is not None


def _beside(reproduction: Reproduction) -> Figure | None:
    """A panel for each column with published numbers: ours with interval or spread, the published ones as diamonds.

    None if no column has any.
    """
    sections = [replace(section, rows=tuple(filter(_computed, section.rows))) for section in reproduction.sections]
    shown = [(section, _printed(section)) for section in sections]
    shown = [(section, columns) for section, columns in shown if columns]
    if not shown:
        return None
    width = max(len(columns) for _, columns in shown)
    heights = [0.5 + 0.17 * len(section.rows) for section, _ in shown]
    figure = Figure(figsize=(1.2 + 1.55 * width, 0.5 + sum(heights)), layout="constrained")
    grid = figure.subplots(len(shown), width, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (section, columns), panels in zip(shown, grid, strict=True):
        names = [row.name for row in section.rows]
        for place, panel in enumerate(panels):
            if place >= len(columns):
                panel.set_visible(False)
                continue
            _points(panel, section, columns[place])
            panel.set_title(section.columns[columns[place]])
            panel.set_yticks(range(len(names)), names if place == 0 else [])
            panel.set_ylim(len(names) - 0.4, -0.6)
        if len(shown) > 1:
            panels[0].set_ylabel(section.short)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _computed(row: Row) -> bool:
    return any(value is not None and value.ours is not None for value in row.values)


def _printed(section: Section) -> list[int]:
    """The columns that have published numbers and an interval or a spread; plain counts have neither."""
    printed = []
    for k in range(len(section.columns)):
        values = [value for row in section.rows if (value := row.values[k]) is not None]
        if any(v.published is not None and {v.low, v.spread, v.published_spread} != {None} for v in values):
            printed.append(k)
    return printed


def _points(panel: Axes, section: Section, column: int) -> None:
    for place, row in enumerate(section.rows):
        value = row.values[column]
        if value is None or value.ours is None:
            continue
        low, high = value.low, value.high
        if low is None or high is None:
            low, high = value.ours - (value.spread or 0.0), value.ours + (value.spread or 0.0)
        panel.plot([low, high], [place, place], color=_OURS, linewidth=1.2, solid_capstyle="butt")
        panel.plot(value.ours, place, "o", color=_OURS, markersize=3.5, label="ours")
        if value.published is not None:
            spread = value.published_spread or 0.0
            ends = [value.published - spread, value.published + spread]
            panel.plot(ends, [place + 0.25] * 2, color=_PUBLISHED, linewidth=0.8, solid_capstyle="butt")
            panel.plot(
                value.published,
                place + 0.25,
                "D",
                color=_PUBLISHED,
                markersize=3,
                markerfacecolor="white",
                label="published",
            )
    lighten(panel)


def _clouds(reproduction: Reproduction) -> Figure:
    """A row of clouds for each space: one for each pair of metrics, on logarithmic axes, with its ρ above."""
    pairs = list(combinations(next(iter(reproduction.drawn.values())), 2))
    figure = Figure(figsize=(1.45 * len(pairs), 1.7 * len(reproduction.sections)), layout="constrained")
    grid = figure.subplots(len(reproduction.sections), len(pairs), squeeze=False)
    for section, panels in zip(reproduction.sections, grid, strict=True):
        columns = reproduction.drawn[section.short]
        for (x, y), row, panel in zip(pairs, section.rows, panels, strict=True):
            seen = (columns[x] > 0) & (columns[y] > 0)
            panel.plot(
                np.log10(columns[x][seen]), np.log10(columns[y][seen]), ".", color=_OURS, markersize=1, alpha=0.25,
                markeredgewidth=0, rasterized=True,
            )  # fmt: skip
            value = row.values[0]
            panel.set_title("" if value is None else f"ρ = {value.ours:.2f}")
            panel.set_xlabel(f"log₁₀ {x}")
            panel.set_ylabel(f"log₁₀ {y}")
            panel.tick_params(labelsize=6)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].annotate(
            section.short, (-0.62, 0.5), xycoords="axes fraction", rotation=90, va="center", fontweight="bold"
        )
    return figure


def _topologies(reproduction: Reproduction) -> Figure:
    """Figure 3: boxes and arrows, with the formula above and the kernel below."""
    figure = Figure(figsize=(5.6, 2.0), layout="constrained")
    panels = figure.subplots(1, len(reproduction.drawn), squeeze=False)[0]
    for panel, drawn in zip(panels, reproduction.drawn.values(), strict=True):
        places = {node.name: (node.x, node.y) for node in drawn.nodes}
        for source, target in drawn.edges:
            style = {"arrowstyle": "-|>", "color": "0.35", "shrinkA": 13, "shrinkB": 13, "linewidth": 0.8}
            panel.annotate("", places[target], places[source], arrowprops=style)
        for node in drawn.nodes:
            box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": _OURS, "linewidth": 0.9}
            panel.text(node.x, node.y, node.label, ha="center", va="center", fontsize=9, bbox=box)
        panel.set_xlim(-0.5, max(x for x, _ in places.values()) + 0.5)
        panel.set_ylim(-1.6, 1.6)
        # SVG text does not embed matplotlib's mathematics fonts, in which the prime has the code of "0".
        formula, kernel = (text.replace("'", "′") for text in (drawn.formula, drawn.kernel))
        panel.set_title(f"{drawn.name}: {formula}", fontsize=9)
        panel.text(0.5, 0.0, kernel, ha="center", va="bottom", transform=panel.transAxes, fontsize=9)
        panel.axis("off")
    return figure


def _ratios(reproduction: Reproduction) -> Figure:
    """Each statement's measured number as a share of its bound; shares below 10⁻⁶, and zero, lie at the edge."""
    rows = reproduction.sections[0].rows
    values = [value for row in rows for value in row.values if value]
    shares = [value.ours / value.published for value in values if value.ours is not None and value.published]
    figure = Figure(figsize=(5.2, 0.6 + 0.22 * len(rows)), layout="constrained")
    panel = figure.add_subplot()
    floor = 1e-6
    panel.plot(np.maximum(shares, floor), range(len(rows)), "o", color=_OURS, markersize=4, clip_on=False)
    panel.axvline(1.0, color=_PUBLISHED, linestyle="--", linewidth=0.9)
    panel.set_yticks(range(len(rows)), [row.name for row in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xscale("log")
    panel.set_xlim(left=floor)
    panel.set_xlabel("measured / bound (less than 10⁻⁶ at the edge)")
    lighten(panel)
    return figure
