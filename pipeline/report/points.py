"""Architectures in a report: names, numbers and cells in a compact form."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hnas.errors import UsageError
from hnas.optim.objective import Array
from hnas.pipeline.io.printable import printable
from hnas.spaces.cell_graph import NONE, CellGraph
from hnas.spaces.protocols import Drawn

# Smaller whole numbers are kept exactly; other numbers become float32, which has more digits than a report shows.
_WHOLE = 2**31


@dataclass(frozen=True)
class PointSet:
    """Architectures (n) with their `columns` (n,) and, where their space draws cells, their `cells` (n).

    `shown` maps columns to their labels on a point's card; the card leaves out other columns.
    """

    archs: Sequence[str]
    columns: Mapping[str, Array]
    shown: Mapping[str, str]
    cells: Sequence[Mapping[str, CellGraph] | None] = ()

    def as_json(self) -> dict[str, Any]:
        """The form that report.js reads: columns in base64, and each structure and name of cells only once."""
        content: dict[str, Any] = {
            "names": [printable(arch) for arch in self.archs],
            "columns": {name: packed(column) for name, column in self.columns.items()},
            "shown": {name: printable(text) for name, text in self.shown.items()},
        }
        if any(self.cells):
            content |= _cells(self.cells)
        return content


def packed(values: Array) -> dict[str, str]:
    """Numbers (n,) as little-endian bytes in base64: int32 where all are whole, else float32."""
    finite = np.isfinite(values)
    whole = bool(finite.all()) and bool((values == np.rint(values)).all()) and bool((np.abs(values) < _WHOLE).all())
    with np.errstate(over="ignore"):  # overflows to infinity, which is not drawn
        raw = values.astype("<i4" if whole else "<f4")
    return {"type": "i4" if whole else "f4", "data": base64.b64encode(raw.tobytes()).decode()}


def cells_of(
    space: object, archs: Sequence[str], definitions: Mapping[str, str]
) -> list[Mapping[str, CellGraph] | None]:
    """The cells of each of `archs`, or None for an invalid name; empty if the space draws no cells.

    `definitions` maps names to definitions where the two differ. A store that was tampered with may have invalid names.
    """
    if not isinstance(space, Drawn):
        return []
    return [_drawn(space, definitions.get(arch, arch)) for arch in archs]


def _drawn(space: Drawn, arch: str) -> Mapping[str, CellGraph] | None:
    try:
        return space.graphs(arch)
    except UsageError:
        return None


class _Numbered:
    """Numbers things in the order of their first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        return self.numbers.setdefault(thing, len(self.numbers))


def _cells(cells: Iterable[Mapping[str, CellGraph] | None]) -> dict[str, Any]:
    """Each architecture as numbers: its structure, then the names of its nodes and of its edges' operations."""
    structures, words = _Numbered(), _Numbered()
    rows: list[list[int] | None] = []
    for graphs in cells:
        if graphs is None:
            rows.append(None)
            continue
        drawn = {name: [edge for edge in graph.edges if edge[2] != NONE] for name, graph in graphs.items()}
        structure = tuple(
            (printable(name), len(graph.nodes), tuple(edge[:2] for edge in drawn[name]))
            for name, graph in graphs.items()
        )
        row = [structures(structure)]
        for name, graph in graphs.items():
            row += [words(printable(node)) for node in graph.nodes]
            row += [words(printable(operation)) for _, _, operation in drawn[name]]
        rows.append(row)
    return {"cells": rows, "structures": list(structures.numbers), "words": list(words.numbers)}
