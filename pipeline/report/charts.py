"""Specifications of charts for report.js: the points of a set, lines through them, a surface behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hnas.optim.objective import Array
from hnas.pipeline.io.printable import printable
from hnas.pipeline.report.points import packed

Spec = dict[str, Any]


def axis(column: str, label: str, *, log: bool = False, reach: tuple[float, float] | None = None) -> Spec:
    """An axis over a `column` of the chart's points. The limits `reach`, if given, are its initial range."""
    spec: Spec = {"column": column, "label": printable(label), "log": log}
    return spec if reach is None else {**spec, "reach": list(reach)}


def scatter(points: str, x: Spec, y: Spec, *, colour: Spec | None = None, rings: Sequence[int] = ()) -> Spec:
    """The points of the set `points`, coloured by the axis `colour`, with rings around those at the indices `rings`."""
    return {"set": points, "x": x, "y": y, "colour": colour, "rings": list(rings), "dots": True, "lines": []}


def line(
    name: str, first: int, last: int, *, step: bool = False, low: Array | None = None, high: Array | None = None
) -> Spec:
    """A line through the points `first` to `last` (exclusive) of the set, with a band from `low` to `high` (n,)."""
    band = {} if low is None or high is None else {"low": packed(low), "high": packed(high)}
    return {"name": printable(name), "first": first, "last": last, "step": step, **band}


def lines(points: str, x: Spec, y: Spec, drawn: Sequence[Spec], *, dots: bool = False) -> Spec:
    """Lines through the points of a set; `dots` draws the points as well."""
    return {"set": points, "x": x, "y": y, "colour": None, "rings": [], "dots": dots, "lines": list(drawn)}


def surface(values: Array, x: tuple[float, float], y: tuple[float, float]) -> Spec:
    """An image of `values` (rows, columns), lowest row first, over the ranges `x` and `y`."""
    rows, columns = values.shape
    return {"rows": rows, "columns": columns, "values": packed(values.ravel()), "x": list(x), "y": list(y)}


def bulk(values: Array) -> tuple[float, float] | None:
    """Axis limits that show most of `values` (n,) where a few lie far below the others, else None.

    Networks that do not train only guess; without limits they would press the others against the upper edge.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    least, low, high = float(finite.min()), float(np.quantile(finite, 0.05)), float(finite.max())
    if high - low <= 0 or least >= low - (high - low):
        return None
    return low - 0.15 * (high - low), high + 0.05 * (high - low)
