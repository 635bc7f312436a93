"""Draws cells and networks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from hnas.pipeline.io.figure_files import check_figure, save_figure
from hnas.pipeline.models.layout import Layout, Place, layout
from hnas.spaces.cell_graph import CellGraph

_TEXT = 8  # points
# In inches: the height of a line, the gap between layers, the margin, the padding of a text, the arrow head.
_LINE, _GAP, _MARGIN, _PADDING, _HEAD = 0.34, 0.45, 0.2, 0.04, 0.1
_CENTRED: dict[str, Any] = {"fontsize": _TEXT, "ha": "center", "va": "center"}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def plot_graphs(graphs: Mapping[str, CellGraph], path: FilePath) -> None:
    """Draw each graph under its name, one below the other, from left to right, with one colour per operation.

    Raises `UsageError` for a path that cannot hold a figure, and `HnasError` if writing fails.
    """
    check_figure(path)
    laid_out = {name: layout(graph) for name, graph in graphs.items()}
    operations = dict.fromkeys(sorted({route.operation for placed in laid_out.values() for route in placed.routes}))
    operations.pop("", None)
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(operations)}
    halves = [_halves(graphs[name], placed) for name, placed in laid_out.items()]
    width = max(2 * sum(half) + (len(half) - 1) * _GAP for half in halves) + 2 * _MARGIN
    tops = {name: max(place.height for place in _places(placed)) for name, placed in laid_out.items()}
    spans = [tops[name] - min(place.height for place in _places(placed)) + 2.5 for name, placed in laid_out.items()]
    height = sum(spans) * _LINE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.axis("off")
    top = height
    for (name, placed), span in zip(laid_out.items(), spans, strict=True):
        axes.text(_MARGIN, top - _LINE / 2, _literal(name), fontsize=_TEXT + 1, fontweight="bold", va="center")
        _draw(axes, graphs[name], placed, top - 1.5 * _LINE - tops[name] * _LINE, colours)
        top -= span * _LINE
    save_figure(figure, path)


def _places(placed: Layout) -> list[Place]:
    return [*placed.nodes, *(place for route in placed.routes for place in route.places)]


def _shown(name: str) -> str:
    """Return a node's name for matplotlib: `c_{k}` with its index typeset."""
    return f"${name}$" if "_{" in name and "$" not in name else _literal(name)


def _literal(text: str) -> str:
    """Escape a text so that matplotlib does not read it as a formula."""
    return text.replace("$", r"\$")


@cache
def _half_width(text: str) -> float:
    """Return half the width of a framed text, in inches."""
    return float(TextPath((0, 0), text, size=_TEXT).get_extents().width) / 72 / 2 + _PADDING


def _halves(graph: CellGraph, placed: Layout) -> list[float]:
    """Return half the width of each layer in inches, that of its widest text."""
    half = [0.0] * (1 + max(place.layer for place in placed.nodes))
    for name, place in zip(graph.nodes, placed.nodes, strict=True):
        half[place.layer] = max(half[place.layer], _half_width(_shown(name)))
    for route in placed.routes:
        if route.named is not None:
            half[route.named.layer] = max(half[route.named.layer], _half_width(_literal(route.operation)))
    return half


def _draw(axes: Axes, graph: CellGraph, placed: Layout, zero: float, colours: Mapping[str, str]) -> None:
    half = _halves(graph, placed)
    middle = [_MARGIN + wide + 2 * sum(half[:i]) + i * _GAP for i, wide in enumerate(half)]
    shown = [_shown(name) for name in graph.nodes]
    for route in placed.routes:
        # Straight across layers with texts and curved only in the gaps, so that no line crosses a text.
        last = len(route.places) - 1
        spans = []
        for i, (layer, height) in enumerate(route.places):
            left, right = middle[layer] - half[layer], middle[layer] + half[layer]
            if i == 0:
                left = middle[layer] + _half_width(shown[route.source])
            if i == last:
                right = middle[layer] - _half_width(shown[route.target])
                left = min(left, right - _HEAD)
            spans.append((left, right, zero + height * _LINE))
        curve, codes = [(spans[0][0], spans[0][2]), spans[0][1:]], [Path.MOVETO, Path.LINETO]
        for (_, x0, y0), (x1, x2, y1) in pairwise(spans):
            curve += [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), (x1, y1), (x2, y1)]
            codes += [*[Path.CURVE4] * 3, Path.LINETO]
        colour = colours.get(route.operation, "0.45")
        style: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.1}
        axes.add_patch(FancyArrowPatch(path=Path(curve, codes), color=colour, zorder=1, **style))
        if route.named is not None:
            place = middle[route.named.layer], zero + route.named.height * _LINE
            box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
            axes.text(*place, _literal(route.operation), color=colour, bbox=box, zorder=2, **_CENTRED)
    frame = {"boxstyle": "round,pad=0.35", "facecolor": "0.94", "edgecolor": "0.5", "linewidth": 0.8}
    for text, (layer, height) in zip(shown, placed.nodes, strict=True):
        axes.text(middle[layer], zero + height * _LINE, text, bbox=frame, zorder=3, **_CENTRED)
